//! Arguments of `simdino eval all`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::value_parser;
use protocols::dense::DenseImages;

use crate::commands::eval::dense::DenseImageArgs;
use crate::commands::eval::labeled::Embedding;
use crate::commands::eval::networks::Networks;
use crate::commands::eval::numbers::positive;
use crate::failure::{Failure, Result};

/// Arguments of `simdino eval all`.
#[derive(Debug, clap::Args)]
pub struct AllArgs {
    #[command(flatten)]
    pub networks: Networks,
    #[command(flatten)]
    pub embedding: Embedding,
    /// Labeled images to learn from: folder, list, or shards
    #[arg(long, value_name = "PATH", requires = "test")]
    pub train: Option<String>,
    /// Labeled images to classify
    #[arg(long, value_name = "PATH", requires = "train")]
    pub test: Option<String>,
    #[command(flatten)]
    pub dense: DenseImageArgs,
    /// Iterations of linear segmentation; its recipe has 40,000
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u64).range(1..))]
    pub segment_iterations: u64,
    /// Side of the images for segmentation and depth, in pixels; by default that of each protocol
    #[arg(long, value_name = "N")]
    pub dense_crop: Option<u32>,
    #[command(flatten)]
    pub other: OtherImages,
    /// Maximum number of images of each set to learn from; all by default
    #[arg(long)]
    pub max_train: Option<NonZeroUsize>,
    /// Maximum number of images of each set to test with, except videos, retrieval, and copies; all
    /// by default
    #[arg(long)]
    pub max_test: Option<NonZeroUsize>,
    /// Protocols to leave out: knn, logistic, linear, in-context, segment-knn, segment, depth,
    /// retrieval, copy, maskcut, video
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub without: Vec<String>,
    /// Do not measure the same network untrained, except by knn and logistic
    #[arg(long)]
    pub skip_untrained: bool,
    /// Also segment by logistic regression on patches, which takes several times as long as by k-NN
    #[arg(long)]
    pub segment_logistic: bool,
}

/// Images of protocols on objects, videos, depth, and whole images.
#[derive(Debug, clap::Args)]
pub struct OtherImages {
    /// Folder of images with objects
    #[arg(long, value_name = "FOLDER")]
    pub object_images: Option<PathBuf>,
    /// Their objects, in COCO's format; without them, only the share of images with a mask is
    /// measured
    #[arg(long, value_name = "FILE", requires = "object_images")]
    pub ground_truth: Option<PathBuf>,
    /// Videos: a folder with one folder of images per sequence
    #[arg(long, value_name = "FOLDER", requires = "truth")]
    pub frames: Option<PathBuf>,
    /// Their annotations: a folder of the same structure with PNG files
    #[arg(long, value_name = "FOLDER", requires = "frames")]
    pub truth: Option<PathBuf>,
    /// Everything but 0 is one object in the annotations of videos, as in DAVIS 2016
    #[arg(long, requires = "truth")]
    pub single_object: bool,
    /// Images of retrieval: a folder of the database images and of the query images
    #[arg(long, value_name = "FOLDER", requires = "retrieval_truth")]
    pub retrieval_images: Option<PathBuf>,
    /// Their ground truth: gnd_roxford5k.pkl, gnd_rparis6k.pkl, or a JSON file of the same form
    #[arg(long, value_name = "FILE", requires = "retrieval_images")]
    pub retrieval_truth: Option<PathBuf>,
    /// Folder of Copydays, for copy detection
    #[arg(long, value_name = "FOLDER")]
    pub copydays: Option<PathBuf>,
    #[command(flatten)]
    pub depth: Depth,
}

/// Images with a depth for every pixel.
#[derive(Debug, clap::Args)]
pub struct Depth {
    /// Images to learn depth from
    #[arg(long, value_name = "FOLDER", requires_all = ["depth_maps", "depth_test_images", "depth_test_maps"])]
    pub depth_images: Option<PathBuf>,
    /// Their depth maps: gray PNG of 16 bits, or .npy of meters
    #[arg(long, value_name = "FOLDER", requires = "depth_images")]
    pub depth_maps: Option<PathBuf>,
    /// Images whose depth is estimated
    #[arg(long, value_name = "FOLDER", requires = "depth_images")]
    pub depth_test_images: Option<PathBuf>,
    /// Their depth maps
    #[arg(long, value_name = "FOLDER", requires = "depth_images")]
    pub depth_test_maps: Option<PathBuf>,
    /// Value of a PNG of depth at one meter: 1000 for NYU, 256 for KITTI
    #[arg(long, default_value_t = 1000.0, value_name = "N", requires = "depth_images")]
    pub depth_divisor: f64,
    /// Largest depth, in meters: 10 for NYU, 80 for KITTI
    #[arg(long, default_value_t = 10.0, value_name = "N", requires = "depth_images")]
    pub max_depth: f64,
    /// Iterations of the depth head, of 4 images; its recipe has 38,400 of 16
    #[arg(long, default_value_t = 100, value_name = "N", requires = "depth_images", value_parser = value_parser!(u64).range(1..))]
    pub depth_iterations: u64,
}

impl AllArgs {
    /// Returns the maximum numbers of images to learn from and to test with.
    pub fn limits(&self) -> [Option<NonZeroUsize>; 2] {
        [self.max_train, self.max_test]
    }

    /// Returns the images with a class for every pixel.
    ///
    /// # Errors
    /// Returns an error if something is missing or a file cannot be read.
    pub fn segmented(&self) -> Result<DenseImages> {
        self.dense.images(self.limits())
    }

    /// Checks numbers, and that the images and the ground truth of all protocols but those of labeled
    /// images exist, before anything is measured.
    ///
    /// # Errors
    /// Returns an error that names the first option whose value is out of range, or whose path does
    /// not exist.
    pub fn check(&self) -> Result<()> {
        positive("--depth-divisor", &[self.other.depth.depth_divisor])?;
        positive("--max-depth", &[self.other.depth.max_depth])?;
        let other = &self.other;
        let depth = &other.depth;
        let given = [
            ("maskcut", "--object-images", &other.object_images),
            ("maskcut", "--ground-truth", &other.ground_truth),
            ("video", "--frames", &other.frames),
            ("video", "--truth", &other.truth),
            ("retrieval", "--retrieval-images", &other.retrieval_images),
            ("retrieval", "--retrieval-truth", &other.retrieval_truth),
            ("copy", "--copydays", &other.copydays),
            ("depth", "--depth-images", &depth.depth_images),
            ("depth", "--depth-maps", &depth.depth_maps),
            ("depth", "--depth-test-images", &depth.depth_test_images),
            ("depth", "--depth-test-maps", &depth.depth_test_maps),
        ];
        let given = given.into_iter().map(|(name, option, path)| (name, option, path.as_ref()));
        for (option, path) in [("--train", &self.train), ("--test", &self.test)] {
            // A pattern or an address is checked when it is opened.
            let plain = path.as_ref().filter(|path| !path.contains(['*', '?', '[', '{', ':']));
            if let Some(path) = plain.filter(|path| !PathBuf::from(path).exists()) {
                return Err(Failure::failed(format!("{option} {path}: does not exist")));
            }
        }
        let dense = self.dense.folders().map(|(option, path)| ("", option, path));
        for (protocol, option, path) in given.chain(dense) {
            // A folder may be in a tar file, whose content is not known here.
            let exists = |path: &PathBuf| {
                path.exists() || path.ancestors().skip(1).any(|parent| parent.is_file())
            };
            let is_left_out = self.without.iter().any(|name| name == protocol);
            if let Some(path) = path.filter(|path| !is_left_out && !exists(path)) {
                let path = path.display();
                return Err(Failure::failed(format!("{option} {path}: does not exist")));
            }
        }
        Ok(())
    }
}
