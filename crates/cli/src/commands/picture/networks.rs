//! The networks and images of a picture. Each network has its own rows.

use std::path::{Path, PathBuf};

use data::Dataset;
use eval::pictures::Scene;
use model::VisionTransformer;
use model::weights::PretrainedBackbone;
use simdino::device::{self, DeviceSpec};
use tch::Device;

use crate::failure::{Failure, Result};
use crate::weights;

/// Default number of patches per side of the images that the network sees, as in DINO's pictures.
const PATCHES: i64 = 30;

/// Options for the networks of a picture.
#[derive(Debug, clap::Args)]
pub struct Networks {
    /// A run, a checkpoint, or a weight file of any kind that `simdino import` reads; may be
    /// repeated, for one sheet with rows of each network
    #[arg(short, long, required = true)]
    weights: Vec<PathBuf>,
    /// Prefix of the keys of the network, if the file contains several
    #[arg(long)]
    prefix: Option<String>,
    /// Also draw rows of the first network untrained, for comparison
    #[arg(long)]
    untrained: bool,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: DeviceSpec,
}

/// A network whose rows are drawn.
pub struct Subject<'a> {
    /// Label of its rows.
    pub label: String,
    /// File or folder of the weights.
    pub path: &'a Path,
    pub backbone: &'a VisionTransformer,
    /// The weights that it was read from; those of the trained network if `backbone` is untrained.
    pub weights: &'a PretrainedBackbone,
    pub device: Device,
}

impl Networks {
    /// Calls `draw` for each network. Networks are opened one after the other, so that only one is
    /// in memory.
    ///
    /// # Errors
    /// Returns an error if the device or some weights cannot be used, or the first error of `draw`.
    pub fn each(&self, draw: &mut dyn FnMut(&Subject<'_>) -> Result<()>) -> Result<()> {
        let device = device::resolve(self.device)?;
        let open = |path: &PathBuf| weights::open(path, self.prefix.as_deref(), device);
        for path in &self.weights {
            let (label, weights) = (path.display().to_string(), open(path)?);
            let backbone = &weights.backbone;
            draw(&Subject { label, path, backbone, weights: &weights, device })?;
        }
        let Some(first) = self.weights.first().filter(|_| self.untrained) else { return Ok(()) };
        let weights = open(first)?;
        let (label, backbone) = (format!("{}, untrained", first.display()), weights.untrained()?);
        draw(&Subject { label, path: first, backbone: &backbone, weights: &weights, device })
    }
}

/// Options for the images of a picture that shows them as squares.
#[derive(Debug, clap::Args)]
pub struct Images {
    /// Images: a folder, list file, tar shards
    data: String,
    /// Images on the sheet, spread over the set
    #[arg(long, default_value_t = 8)]
    images: usize,
    /// Side of the square that the networks see, in pixels; by default 30 patches
    #[arg(long)]
    side: Option<u32>,
}

/// The images of a picture, as squares of the size that a network sees.
pub struct SheetImages {
    dataset: Dataset,
    indices: Vec<usize>,
    /// Side of the square, in pixels.
    pub side: u32,
}

impl SheetImages {
    /// Returns the images as the input of the drawing functions.
    pub fn scene(&self) -> Scene<'_> {
        Scene { dataset: &self.dataset, indices: &self.indices, side: self.side }
    }

    /// Returns the number of images.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Returns the name of the image in a column.
    pub fn name(&self, column: usize) -> String {
        self.dataset.name(self.indices[column])
    }
}

impl Images {
    /// Opens the images for a network.
    ///
    /// # Errors
    /// Returns an error if no image can be read, or if the side is not a multiple of the patch
    /// size.
    pub fn open(&self, subject: &Subject<'_>) -> Result<SheetImages> {
        if !(1..=64).contains(&self.images) {
            return Err(Failure::usage(format!(
                "--images: must be between 1 and 64 (got {})",
                self.images
            )));
        }
        let patch = subject.weights.model.patch_size;
        let side = self.side.map_or(PATCHES * patch, i64::from);
        if side < patch || side % patch != 0 {
            return Err(Failure::usage(format!(
                "--side: must be a multiple of the patch size of {}, {patch} pixels (got {side})",
                subject.label
            )));
        }
        let side = u32::try_from(side)
            .map_err(|_| Failure::usage(format!("--side: {side} is too large")))?;
        let dataset = data::open(&eval::data_config(subject.weights, &self.data))?;
        let indices = dataset.readable(self.images);
        if indices.is_empty() {
            return Err(nothing_readable(&self.data));
        }
        Ok(SheetImages { dataset, indices, side })
    }
}

/// Returns the failure that no image of a set can be read.
pub fn nothing_readable(path: &str) -> Failure {
    Failure::failed(format!("{path}: no readable image found (`simdino data check` says why)"))
}
