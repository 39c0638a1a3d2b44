//! The baseline that a backbone must beat: k-NN on the pixels themselves.

use std::sync::Arc;

use augment::EvalTransform;
use data::Dataset;
use model::normalize::Normalize;
use tch::{Kind, Tensor};

use crate::error::Result;
use crate::features::{ExtractOptions, FeatureSet, collect};
use crate::subset::evenly_spaced;

/// Lower bound of the standard deviations that dimensions are divided by.
const STD_MIN: f64 = 1e-6;

/// How the pixel baseline reads images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PixelOptions {
    /// Side in pixels of the square to which images are shrunk: the shorter side is resized, and
    /// the center is cropped.
    pub side: u32,
    /// Decoding threads; `None` = one per core.
    pub workers: Option<usize>,
    /// Maximum numbers of training and test images, spread evenly over each set; `None` = all.
    pub limits: [Option<usize>; 2],
}

impl Default for PixelOptions {
    fn default() -> Self {
        Self { side: 32, workers: None, limits: [None; 2] }
    }
}

/// Shrinks images to small squares and flattens them to `side * side * C` values. Each dimension is
/// standardized by the mean and standard deviation of the training set.
///
/// # Errors
/// Returns an error if the side is 0 or no image is readable.
pub fn pixel_features(
    train: &Arc<Dataset>,
    test: &Arc<Dataset>,
    options: &PixelOptions,
) -> Result<(FeatureSet, FeatureSet)> {
    let [of_train, of_test] = options.limits;
    let mut train =
        raw_pixels(train, evenly_spaced(train.len(), of_train), options)?.not_empty()?;
    let mut test = raw_pixels(test, evenly_spaced(test.len(), of_test), options)?.not_empty()?;
    standardize(&mut train, &mut test);
    Ok((train, test))
}

/// Standardizes each dimension by the mean and standard deviation of the training set.
pub(crate) fn standardize(train: &mut FeatureSet, test: &mut FeatureSet) {
    let mean = train.features.mean_dim([0].as_slice(), true, Kind::Float); // [n, D] -> [1, D]
    let std = train.features.std_dim([0].as_slice(), false, true).clamp_min(STD_MIN); // -> [1, D]
    train.features = (&train.features - &mean) / &std;
    test.features = (&test.features - &mean) / &std;
}

/// Returns the pixels of the `chosen` images, possibly none of which is readable, scaled to [0, 1]
/// but not standardized.
pub(crate) fn raw_pixels(
    dataset: &Arc<Dataset>,
    chosen: Vec<usize>,
    options: &PixelOptions,
) -> Result<FeatureSet> {
    let transform = EvalTransform { resize: options.side, crop: options.side };
    // The loader's pixels are used directly, so the normalization is never applied.
    let normalize = Normalize { mean: Vec::new(), std: Vec::new() };
    let extract = ExtractOptions {
        batch: 256,
        workers: options.workers,
        ..ExtractOptions::new(transform, normalize)
    };
    collect(dataset, chosen, &extract, &mut |_, _| (), &|batch| {
        let pixels = batch.images.as_standard_layout();
        let rows = pixels.as_slice().map(Tensor::f_from_slice).transpose()?.unwrap_or_default();
        Ok(rows.view([batch.indices.len() as i64, -1]).to_kind(Kind::Float) / 255.0) // -> [B, side side C]
    })
}
