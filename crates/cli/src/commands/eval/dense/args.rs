//! Options of all dense evaluations: networks, and two sets of images with a class for every pixel.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use eval::record::Record;
use eval::segmentation::MaskSize;
use protocols::dense::{DenseFolder, DenseImages};
use protocols::{Protocol, Subject};

use crate::commands::eval::networks::Networks;
use crate::commands::eval::outcome::{Measured, Outcome, check_folders, measure_each};
use crate::commands::eval::terminal::{SHOWN, Terminal};
use crate::failure::{Failure, Result};
use crate::sizes::{MOST, whole_patches};

use super::labels::Labels;

/// Two sets of images with a class for every pixel.
#[derive(Debug, Clone, clap::Args)]
pub struct DenseImageArgs {
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
pub struct DenseArgs {
    #[command(flatten)]
    pub networks: Networks,
    #[command(flatten)]
    images: DenseImageArgs,
    /// Side of the images, in pixels; by default that of the protocol
    #[arg(long, value_name = "N")]
    pub crop: Option<u32>,
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
}

/// A [`MaskSize`] on the command line.
#[derive(Debug, Clone, Copy)]
struct Mask(MaskSize);

impl FromStr for Mask {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match (text, text.parse()) {
            ("original", _) => Ok(Self(MaskSize::Original)),
            (_, Ok(side @ 1..=MOST)) => Ok(Self(MaskSize::Square(side))),
            _ => Err(format!("expected `original` or a number of pixels up to {MOST}")),
        }
    }
}

impl DenseImageArgs {
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

    /// Returns the images with at most `limits` of them to learn from and to segment.
    ///
    /// # Errors
    /// Returns an error if something is missing or a file cannot be read.
    pub fn images(&self, limits: [Option<NonZeroUsize>; 2]) -> Result<DenseImages> {
        self.check()?;
        let (options, meaning) = self.meaning.options()?;
        let folder = |images: &Option<PathBuf>,
                      labels: &Option<PathBuf>,
                      list: &Option<PathBuf>| {
            let [images, labels] = [images, labels].map(|path| path.clone().unwrap_or_default());
            DenseFolder { images, labels, list: list.clone() }
        };
        let train = folder(&self.images, &self.labels, &self.list);
        let test = folder(&self.test_images, &self.test_labels, &self.test_list);
        let mut images = DenseImages::new(train, test, options, meaning);
        let [max_train, max_test] = limits.map(|limit| limit.map(NonZeroUsize::get));
        (images.max_train, images.max_test) = (max_train, max_test);
        Ok(images)
    }
}

impl DenseArgs {
    /// Returns the images.
    ///
    /// # Errors
    /// Returns an error if something is missing or a file cannot be read.
    pub fn images(&self) -> Result<DenseImages> {
        self.images.images([self.max_train, self.max_test])
    }

    /// Returns the value of `--mask-size`, or `usual` if it is not given.
    pub fn mask(&self, usual: MaskSize) -> MaskSize {
        self.mask_size().unwrap_or(usual)
    }

    /// Returns the value of `--mask-size`.
    pub fn mask_size(&self) -> Option<MaskSize> {
        self.mask_size.map(|mask| mask.0)
    }

    /// Returns the number of images in the picture.
    pub fn shown(&self) -> usize {
        if self.picture.is_some() { SHOWN } else { 0 }
    }

    /// Measures all networks by a protocol, after checking the folders of results and the images.
    /// `measured` creates a result from the records of the protocol.
    ///
    /// # Errors
    /// Returns an error if the images cannot be found, or if `--crop` does not consist of whole
    /// patches of a network. Otherwise the same as for [`measure_each`].
    pub fn measure(
        &self,
        protocol: &dyn Protocol,
        terminal: &Terminal,
        measured: fn(Vec<Record>) -> Result<Measured>,
    ) -> Result<Outcome> {
        check_folders(&self.networks)?;
        protocol.check()?;
        measure_each(&self.networks, &mut |subject| {
            self.check_crop(subject)?;
            measured(protocol.measure(subject, terminal)?)
        })
    }

    /// Checks that the value of `--crop` consists of whole patches of a network.
    ///
    /// # Errors
    /// Returns an error if it does not.
    pub fn check_crop(&self, subject: &Subject) -> Result<()> {
        let check = |side| whole_patches("--crop", side, &subject.weights.model);
        self.crop.map_or(Ok(()), check)
    }
}
