//! The images of a sheet, as seen by networks.

use augment::EvalTransform;
use data::Dataset;
use data::decode::Image;
use image::RgbImage;
use image::imageops::{self, FilterType};
use model::normalize::Normalize;
use tch::{Device, Tensor};

use super::sheet::Row;
use crate::error::{Error, Result};

/// Side of the square cells of a sheet in pixels, which gives 8 pixels to each patch of a 30 x 30
/// grid.
pub(super) const CELL: u32 = 240;

/// Images for networks. The shorter side is resized and the center is cropped.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// The set, with the channels of the network.
    pub dataset: &'a Dataset,
    /// Indices of its images, one per column.
    pub indices: &'a [usize],
    /// Side of the square that the network sees, in pixels; a multiple of the patch size.
    pub side: u32,
}

impl Scene<'_> {
    /// Returns the row of the images themselves. Of images with more than three channels, the first
    /// three are shown.
    ///
    /// # Errors
    /// Returns an error if there is no index or an image cannot be read.
    pub fn row(&self) -> Result<Row> {
        let cells = self.squares()?.iter().map(|image| fit(&image.to_rgb())).collect();
        Ok(Row { cells, ..Row::default() })
    }

    /// Returns the square images, in order.
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

    /// Returns the square images as network inputs, each `[1, C, side, side]`.
    pub(super) fn inputs(&self, normalize: &Normalize, device: Device) -> Result<Vec<Tensor>> {
        let side = self.side as usize;
        let input = |image: &Image| Ok(normalize.apply(image.data(), [1, side, side], device)?);
        self.squares()?.iter().map(input).collect()
    }
}

/// Resizes a square image to the size of a cell. Enlarged pixels, such as patches, keep sharp
/// edges.
pub(super) fn fit(image: &RgbImage) -> RgbImage {
    let filter = if image.width() < CELL { FilterType::Nearest } else { FilterType::Triangle };
    imageops::resize(image, CELL, CELL, filter)
}
