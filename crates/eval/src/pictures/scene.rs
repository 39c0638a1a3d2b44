//! The images of a sheet, as networks see them.

use augment::EvalTransform;
use data::Dataset;
use data::decode::Image;
use image::RgbImage;
use image::imageops::{self, FilterType};
use model::normalize::Normalize;
use tch::{Device, Tensor};

use super::sheet::Row;
use crate::error::{Error, Result};

/// Side of the square cells of a sheet, in pixels: 8 pixels for each patch of a grid of 30.
pub(super) const CELL: u32 = 240;

/// Images that networks look at. The shorter side is resized and the center is cropped.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// The set, in the channels of the network.
    pub dataset: &'a Dataset,
    /// Which of its images, one per column.
    pub indices: &'a [usize],
    /// Side of the square that the network sees, in pixels; a multiple of the patch size.
    pub side: u32,
}

impl Scene<'_> {
    /// Returns the row of the images themselves; with more than three channels, it shows the first three.
    ///
    /// # Errors
    /// Returns an error if there is no index or an image cannot be read.
    pub fn row(&self) -> Result<Row> {
        let cells = self.squares()?.iter().map(|image| fit(&image.to_rgb())).collect();
        Ok(Row { cells, ..Row::default() })
    }

    /// The squares, in order.
    pub(super) fn squares(&self) -> Result<Vec<Image>> {
        if self.indices.is_empty() {
            return Err(Error::Setting { key: "images", problem: "needs at least one".to_owned() });
        }
        let transform = EvalTransform { resize: self.side, crop: self.side };
        let square = |&index: &usize| -> Result<Image> {
            Ok(transform.apply((&self.dataset.image(index)?).into())?)
        };
        self.indices.iter().map(square).collect()
    }

    /// The squares as inputs of a network, each `[1, C, side, side]`.
    pub(super) fn inputs(&self, normalize: &Normalize, device: Device) -> Result<Vec<Tensor>> {
        let side = self.side as usize;
        let input = |image: &Image| Ok(normalize.apply(image.data(), [1, side, side], device)?);
        self.squares()?.iter().map(input).collect()
    }
}

/// A square image in the size of a cell. Enlarged pixels, such as patches, keep their edges.
pub(super) fn fit(image: &RgbImage) -> RgbImage {
    let filter = if image.width() < CELL { FilterType::Nearest } else { FilterType::Triangle };
    imageops::resize(image, CELL, CELL, filter)
}
