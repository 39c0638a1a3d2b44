//! What all dense evaluations take: networks, and two sets of images with labels.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use data::dense::{DenseOptions, DenseSet};
use eval::segmentation::{DenseData, DenseNetwork, Layers, MaskSize};
use model::VisionTransformer;
use simdino::weights::data_config;

use crate::commands::eval::networks::{Networks, Opened};
use crate::console::note;
use crate::failure::{Failure, Result};

use super::labels::Labels;

/// Options of dense evaluations.
#[derive(Debug, clap::Args)]
pub struct DenseSubject {
    #[command(flatten)]
    pub networks: Networks,
    /// Images to learn from: a folder, or a folder in a tar file, such as pack.tar/train/images
    #[arg(long, value_name = "FOLDER")]
    images: PathBuf,
    /// Their label images (PNG), which have the same names
    #[arg(long, value_name = "FOLDER")]
    labels: PathBuf,
    /// Images to segment
    #[arg(long, value_name = "FOLDER")]
    test_images: PathBuf,
    /// Their label images
    #[arg(long, value_name = "FOLDER")]
    test_labels: PathBuf,
    /// File with names of images to learn from, one per line; all if it is not given
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// File with names of images to segment, one per line; all if it is not given
    #[arg(long, value_name = "FILE")]
    test_list: Option<PathBuf>,
    #[command(flatten)]
    meaning: Labels,
    /// Most images used of the first set; all if it is not given
    #[arg(long)]
    max_train: Option<NonZeroUsize>,
    /// Most images used of the second set; all if it is not given
    #[arg(long)]
    max_test: Option<NonZeroUsize>,
    /// Size at which masks are compared: `original`, or the side of a square in pixels
    #[arg(long, value_name = "SIZE")]
    mask_size: Option<Mask>,
    /// PNG file for a picture of the first test images, their true classes, and the predictions of each network
    #[arg(long, value_name = "FILE")]
    pub picture: Option<PathBuf>,
    /// Do not measure the same network untrained, which every number should be compared with
    #[arg(long)]
    pub skip_untrained: bool,
    /// Seed of all random choices
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// A [`MaskSize`] as it is typed.
#[derive(Debug, Clone, Copy)]
struct Mask(MaskSize);

impl FromStr for Mask {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match (text, text.parse()) {
            ("original", _) => Ok(Self(MaskSize::Original)),
            (_, Ok(side @ 1..)) => Ok(Self(MaskSize::Square(side))),
            _ => Err("expected `original` or a number of pixels".to_owned()),
        }
    }
}

/// Both sets.
pub struct DenseSets {
    pub train: DenseSet,
    pub test: DenseSet,
    /// The meaning of label values, in words.
    pub meaning: String,
}

impl DenseSubject {
    /// Opens both sets, as the network reads images, and says what is left out.
    ///
    /// # Errors
    /// A set cannot be opened, or options of other evaluations were given.
    pub fn sets(&self, opened: &Opened) -> Result<DenseSets> {
        if self.networks.sizes.typed()[0].is_some() {
            return Err(Failure::usage("--resize has no meaning for segmentation: use --crop"));
        }
        if self.networks.features.is_some() {
            return Err(Failure::usage("--features has no meaning for segmentation"));
        }
        let (options, meaning) = self.meaning.options()?;
        let pixels = data_config(&opened.weights, "").pixels();
        let open =
            |images: &PathBuf, labels: &PathBuf, list: &Option<PathBuf>| -> Result<DenseSet> {
                let mut options: DenseOptions = options.clone();
                (options.list, options.pixels) = (list.clone(), pixels.clone());
                let set = DenseSet::open(images, labels, options)?;
                set.notices().iter().for_each(|text| note(text));
                Ok(set)
            };
        Ok(DenseSets {
            train: open(&self.images, &self.labels, &self.list)?,
            test: open(&self.test_images, &self.test_labels, &self.test_list)?,
            meaning,
        })
    }

    /// Images to learn from, and to segment.
    pub fn data<'a>(&self, sets: &'a DenseSets) -> [DenseData<'a>; 2] {
        let of = |set, limit: Option<NonZeroUsize>| DenseData {
            set,
            limit: limit.map(NonZeroUsize::get),
            workers: None,
        };
        [of(&sets.train, self.max_train), of(&sets.test, self.max_test)]
    }

    /// The network, with the patch tokens of these blocks.
    pub fn network<'a>(
        &self,
        opened: &'a Opened,
        backbone: &'a VisionTransformer,
        layers: Layers,
    ) -> DenseNetwork<'a> {
        DenseNetwork {
            extractor: backbone,
            normalize: &opened.weights.normalize,
            device: opened.device,
            precision: self.networks.precision.into(),
            layers,
        }
    }

    /// The side that was typed as `--crop`.
    pub fn crop(&self) -> Option<u32> {
        self.networks.sizes.typed()[1]
    }

    /// The size of masks that was typed, or else `usual`.
    pub fn mask(&self, usual: MaskSize) -> MaskSize {
        self.mask_size.map_or(usual, |mask| mask.0)
    }
}
