//! The input of all dense evaluations: networks, and two sets of images with a class for every
//! pixel.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use data::decode::PixelFormat;
use data::dense::{DenseOptions, DenseSet};
use eval::segmentation::{DenseData, DenseExtractor, DenseNetwork, Layers, MaskSize};
use simdino::weights::data_config;

use crate::commands::eval::networks::{Networks, Opened};
use crate::commands::eval::subject::warn_same_images;
use crate::console::note;
use crate::failure::{Failure, Result};
use crate::sizes::whole_patches;

use super::labels::Labels;

/// Two sets of images with a class for every pixel.
#[derive(Debug, Clone, clap::Args)]
pub struct DenseImages {
    /// Images to learn from: a folder, or a folder in a tar file, such as pack.tar/train/images
    #[arg(long, value_name = "FOLDER")]
    images: Option<PathBuf>,
    /// Their label images (PNG), which have the same names
    #[arg(long, value_name = "FOLDER")]
    labels: Option<PathBuf>,
    /// Images to segment
    #[arg(long, value_name = "FOLDER")]
    test_images: Option<PathBuf>,
    /// Their label images
    #[arg(long, value_name = "FOLDER")]
    test_labels: Option<PathBuf>,
    /// File with names of images to learn from, one per line; all if it is not given
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// File with names of images to segment, one per line; all if it is not given
    #[arg(long, value_name = "FILE")]
    test_list: Option<PathBuf>,
    #[command(flatten)]
    meaning: Labels,
}

/// Options of dense evaluations.
#[derive(Debug, clap::Args)]
pub struct DenseSubject {
    #[command(flatten)]
    pub networks: Networks,
    #[command(flatten)]
    images: DenseImages,
    /// Side of the images, in pixels; by default that of the protocol
    #[arg(long, value_name = "N")]
    crop: Option<u32>,
    /// Maximum number of images to learn from; all by default
    #[arg(long)]
    max_train: Option<NonZeroUsize>,
    /// Maximum number of images to segment; all by default
    #[arg(long)]
    max_test: Option<NonZeroUsize>,
    /// Size at which masks are compared: `original`, or the side of a square in pixels
    #[arg(long, value_name = "SIZE")]
    mask_size: Option<Mask>,
    /// PNG file for a picture of the first test images, their true classes, and the predictions of
    /// each network
    #[arg(long, value_name = "FILE")]
    pub picture: Option<PathBuf>,
    /// Do not measure the same network untrained, which every number should be compared with
    #[arg(long)]
    pub skip_untrained: bool,
    /// Seed of all random choices
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Whether this is part of `eval all`.
    #[arg(skip)]
    of_all: bool,
}

/// A [`MaskSize`] on the command line.
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

/// The images to learn from and those to segment.
pub struct DenseSets {
    pub train: DenseSet,
    pub test: DenseSet,
    /// The meaning of label values, in words.
    pub meaning: String,
}

impl DenseImages {
    /// Returns whether any folder was given.
    pub fn given(&self) -> bool {
        self.folders().iter().any(|(_, folder)| folder.is_some())
    }

    /// Returns the options of the folders.
    pub fn folders(&self) -> [(&'static str, Option<&PathBuf>); 4] {
        [
            ("--images", self.images.as_ref()),
            ("--labels", self.labels.as_ref()),
            ("--test-images", self.test_images.as_ref()),
            ("--test-labels", self.test_labels.as_ref()),
        ]
    }

    /// Checks that all folders and the meaning of the label values are given.
    ///
    /// # Errors
    /// Returns an error if something is missing or a file cannot be read.
    pub fn check(&self) -> Result<()> {
        let missing = self.folders().map(|(name, folder)| folder.is_none().then_some(name));
        let missing: Vec<&str> = missing.into_iter().flatten().collect();
        if !missing.is_empty() {
            return Err(Failure::usage(format!(
                "segmentation needs training and test images with their label images: also give {}",
                missing.join(", ")
            )));
        }
        self.meaning.options().map(|_| ())
    }

    /// Opens both sets with this pixel format, and prints what is left out.
    fn open(&self, pixels: &PixelFormat) -> Result<DenseSets> {
        self.check()?;
        let (options, meaning) = self.meaning.options()?;
        let set = |images: &Option<PathBuf>, labels: &Option<PathBuf>, list: &Option<PathBuf>| {
            let mut options: DenseOptions = options.clone();
            (options.list, options.pixels) = (list.clone(), pixels.clone());
            let [images, labels] =
                [images, labels].map(|path| path.as_deref().unwrap_or(Path::new("")));
            let set = DenseSet::open(images, labels, options)?;
            set.notices().iter().for_each(|text| note(text));
            Ok::<_, Failure>(set)
        };
        Ok(DenseSets {
            train: set(&self.images, &self.labels, &self.list)?,
            test: set(&self.test_images, &self.test_labels, &self.test_list)?,
            meaning,
        })
    }
}

impl DenseSubject {
    /// Creates the options of `eval all` from networks and images, without a picture.
    pub fn new(
        networks: Networks,
        images: DenseImages,
        crop: Option<u32>,
        [max_train, max_test]: [Option<NonZeroUsize>; 2],
        skip_untrained: bool,
    ) -> Self {
        let (mask_size, picture, seed, of_all) = (None, None, 0, true);
        Self {
            networks,
            images,
            crop,
            max_train,
            max_test,
            mask_size,
            picture,
            skip_untrained,
            seed,
            of_all,
        }
    }

    /// Opens both sets in the pixel format of the network, and prints what is left out.
    ///
    /// # Errors
    /// Returns an error if the given crop is not a multiple of the patch size or a set cannot be
    /// opened.
    pub fn sets(&self, opened: &Opened) -> Result<DenseSets> {
        self.crop.map_or(Ok(()), |crop| {
            whole_patches(self.crop_option(), crop, &opened.weights.model)
        })?;
        let sets = self.images.open(&data_config(&opened.weights, "").pixels())?;
        if sets.train.fingerprint() == sets.test.fingerprint() {
            warn_same_images();
        }
        Ok(sets)
    }

    /// Returns both sets with their limits: the images to learn from, then those to segment.
    pub fn data<'a>(&self, sets: &'a DenseSets) -> [DenseData<'a>; 2] {
        let of = |set, limit: Option<NonZeroUsize>| DenseData {
            set,
            limit: limit.map(NonZeroUsize::get),
            workers: None,
        };
        [of(&sets.train, self.max_train), of(&sets.test, self.max_test)]
    }

    /// Returns `network` as one that outputs the patch tokens of the given blocks.
    pub fn network<'a>(
        &self,
        opened: &'a Opened,
        network: &'a dyn DenseExtractor,
        layers: Layers,
    ) -> DenseNetwork<'a> {
        DenseNetwork { frozen: opened.frozen(network), layers, class_token: false }
    }

    /// Returns the option of [`Self::crop`], whose name differs in `eval all`.
    fn crop_option(&self) -> &'static str {
        if self.of_all { "--dense-crop" } else { "--crop" }
    }

    /// Returns the value of `--crop`.
    pub fn crop(&self) -> Option<u32> {
        self.crop
    }

    /// Returns the value of `--mask-size`, or `usual` if it is not given.
    pub fn mask(&self, usual: MaskSize) -> MaskSize {
        self.mask_size.map_or(usual, |mask| mask.0)
    }
}
