//! Feature extraction for datasets.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use augment::EvalTransform;
use data::Dataset;
use data::loader::{BrokenImage, EvalBatch, EvalLoader};
use model::normalize::Normalize;
use model::{Mode, ModelConfig, VisionTransformer};
use ndarray::{Array2, Array4};
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::subset::evenly_spaced;

/// A network that turns each image into one vector.
pub trait FeatureExtractor {
    /// Computes the features `[B, D]` of normalized images `[B, C, H, W]` in fp32, without
    /// gradients.
    ///
    /// # Errors
    /// Returns an error if the model does not accept the images.
    fn features(&self, images: &Tensor) -> Result<Tensor>;
}

impl FeatureExtractor for VisionTransformer {
    /// Returns the class token after the final norm.
    fn features(&self, images: &Tensor) -> Result<Tensor> {
        let cls = tch::no_grad(|| self.forward_cls(images, Mode::Eval))?;
        Ok(cls.to_kind(Kind::Float))
    }
}

/// Extracts the mean of the patch tokens after the final norm, instead of the class token.
#[derive(Debug)]
pub struct MeanPatch<'a>(pub &'a VisionTransformer);

impl FeatureExtractor for MeanPatch<'_> {
    fn features(&self, images: &Tensor) -> Result<Tensor> {
        let tokens = tch::no_grad(|| self.0.forward(images, Mode::Eval))?;
        Ok(tokens.patches.to_kind(Kind::Float).mean_dim(1, false, None)) // [B, N, D] -> [B, D]
    }
}

/// Features of the readable images of a dataset, in order.
#[derive(Debug)]
#[non_exhaustive]
pub struct FeatureSet {
    /// The features, `[n, D]`, fp32, on the CPU.
    pub features: Tensor,
    /// Class of each image, if it has one.
    pub labels: Vec<Option<u32>>,
    /// Name of each image; empty if images have no names.
    pub names: Vec<String>,
    /// Names of the classes by label; empty if classes have no names.
    pub class_names: Vec<String>,
    /// Images that could not be read and have no row.
    pub broken: Vec<BrokenImage>,
}

impl FeatureSet {
    /// Creates a set from features `[n, D]` of images with these `n` labels, without names.
    pub fn new(features: Tensor, labels: Vec<Option<u32>>) -> Self {
        let (names, class_names, broken) = (Vec::new(), Vec::new(), Vec::new());
        Self { features, labels, names, class_names, broken }
    }

    /// Returns the number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Returns `true` if there are no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Fails if no image could be read.
    pub(crate) fn not_empty(self) -> Result<Self> {
        if !self.is_empty() {
            return Ok(self);
        }
        let first = self.broken.first().map(|b| format!("{}: {}", b.name, b.reason));
        Err(Error::NoImages { asked: self.broken.len(), first: first.unwrap_or_default() })
    }
}

/// The precision in which features are computed; they are always stored in fp32.
///
/// The text form in records and on the command line is `fp32` or `bf16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FeaturePrecision {
    /// Single precision.
    #[default]
    Fp32,
    /// Matrix products in bf16 under autocast, which is several times as fast on a GPU.
    Bf16,
}

impl fmt::Display for FeaturePrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Bf16 => "bf16",
        })
    }
}

impl FromStr for FeaturePrecision {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "fp32" => Ok(Self::Fp32),
            "bf16" => Ok(Self::Bf16),
            _ => Err("expected fp32 or bf16".to_owned()),
        }
    }
}

impl FeaturePrecision {
    /// Returns the kind for autocast, or `None` if it is not needed.
    pub(crate) fn autocast(self) -> Option<Kind> {
        match self {
            Self::Fp32 => None,
            Self::Bf16 => Some(Kind::BFloat16),
        }
    }
}

/// Options of feature extraction.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ExtractOptions {
    /// Resize and crop sizes; 256 and 224 in DINO.
    pub transform: EvalTransform,
    /// Mean and standard deviation of each channel for values on the scale [0, 1]; must match those
    /// of training.
    pub normalize: Normalize,
    /// Images per forward pass.
    pub batch: usize,
    /// Decoding threads; `None` = one per core.
    pub workers: Option<usize>,
    /// Device of the model.
    pub device: Device,
    /// Precision of the forward pass.
    pub precision: FeaturePrecision,
    /// Maximum number of images, spread evenly over the dataset; `None` = all.
    pub limit: Option<usize>,
}

impl ExtractOptions {
    /// Returns options that use all images, in fp32, on the CPU with all cores.
    pub fn new(transform: EvalTransform, normalize: Normalize) -> Self {
        Self {
            transform,
            normalize,
            batch: Self::batch_for(Device::Cpu),
            workers: None,
            device: Device::Cpu,
            precision: FeaturePrecision::Fp32,
            limit: None,
        }
    }

    /// Returns the number of images per forward pass that keeps `device` busy.
    pub fn batch_for(device: Device) -> usize {
        if device == Device::Cpu { 64 } else { 256 }
    }
}

/// Extracts the features of `dataset`.
///
/// # Errors
/// Returns an error if the batch size is 0, no image is readable, or the model does not accept the
/// images.
pub fn extract(
    dataset: &Arc<Dataset>,
    extractor: &dyn FeatureExtractor,
    options: &ExtractOptions,
) -> Result<FeatureSet> {
    extract_with_progress(dataset, extractor, options, &mut |_, _| ())
}

/// Like [`extract`], but calls `progress(completed images, total images)` after each batch.
///
/// # Errors
/// Fails like [`extract`].
pub fn extract_with_progress(
    dataset: &Arc<Dataset>,
    extractor: &dyn FeatureExtractor,
    options: &ExtractOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<FeatureSet> {
    let chosen = evenly_spaced(dataset.len(), options.limit);
    extract_chosen(dataset, chosen, extractor, options, progress)?.not_empty()
}

/// [`extract_with_progress`] for the `chosen` images, possibly none of which is readable.
pub(crate) fn extract_chosen(
    dataset: &Arc<Dataset>,
    chosen: Vec<usize>,
    extractor: &dyn FeatureExtractor,
    options: &ExtractOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<FeatureSet> {
    collect(dataset, chosen, options, progress, &|batch| {
        let images = to_input(&batch.images, &options.normalize, options.device)?;
        match options.precision.autocast() {
            None => extractor.features(&images),
            kind => torch_ext::autocast(options.device, kind, || extractor.features(&images))?,
        }
    })
}

/// Concatenates the heads of the queries, keys, or values of one image: `[1, H, T, D/H]` to one
/// vector per patch, `[N, D]`.
pub(crate) fn heads_side_by_side(vectors: &Tensor, model: &ModelConfig) -> Tensor {
    let vectors = vectors.transpose(1, 2).flatten(2, 3).squeeze_dim(0); // -> [1, T, D] -> [T, D]
    let first = 1 + model.num_register_tokens;
    vectors.narrow(0, first, vectors.size()[0] - first) // -> [N, D]
}

/// Converts pixels `[B, H, W, C]` to normalized input `[B, C, H, W]` in fp32 on `device`.
///
/// # Errors
/// Returns an error if the numbers of means and channels differ.
pub fn to_input(images: &Array4<u8>, normalize: &Normalize, device: Device) -> Result<Tensor> {
    let (b, h, w, channels) = images.dim();
    let contiguous = images.as_standard_layout();
    let (true, Some(pixels)) = (channels == normalize.mean.len(), contiguous.as_slice()) else {
        let got = images.shape().iter().map(|&n| n as i64).collect();
        let expected = "[B, H, W, C] with a mean for each of C channels";
        return Err(Error::Shape { what: "images", expected, got });
    };
    Ok(normalize.apply(pixels, [b, h, w], device)?)
}

/// Converts a matrix `[n, D]` on any device to an `ndarray` in fp32.
pub(crate) fn to_array(matrix: &Tensor) -> Result<Array2<f32>> {
    let got = matrix.size();
    let shape =
        || Error::Shape { what: "features of patches", expected: "[n, D]", got: got.clone() };
    let &[rows, columns] = got.as_slice() else { return Err(shape()) };
    let matrix = matrix.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
    let mut values = vec![0f32; matrix.numel()];
    matrix.f_copy_data(&mut values, matrix.numel())?;
    Array2::from_shape_vec((rows as usize, columns as usize), values).map_err(|_| shape())
}

/// Divides each row by its norm: `[n, D]` to `[n, D]`, in the kind of the features.
///
/// Evaluations do not depend on the scale of features. Norms are clamped to at least 1e-12, as in
/// `torch.nn.functional.normalize`, which DINO's k-NN uses, so rows of zeros stay zero.
pub fn unit_rows(features: &Tensor) -> Tensor {
    torch_ext::unit_rows(features, 1e-12)
}

/// Runs `to_features` on batches of the `chosen` images of `dataset`, and collects the rows on the
/// CPU. If no image is readable, there are no rows, and all images are listed as broken.
pub(crate) fn collect(
    dataset: &Arc<Dataset>,
    chosen: Vec<usize>,
    options: &ExtractOptions,
    progress: &mut dyn FnMut(usize, usize),
    to_features: &dyn Fn(&EvalBatch) -> Result<Tensor>,
) -> Result<FeatureSet> {
    if options.batch == 0 {
        let problem = "must be at least 1 (got 0)".to_owned();
        return Err(Error::Setting { key: "batch", problem });
    }
    let total = chosen.len();
    let (transform, batch, workers) = (options.transform, options.batch, options.workers);
    let mut loader = EvalLoader::new(Arc::clone(dataset), transform, batch, workers, Some(chosen))?;
    let mut rows = Rows::default();
    let (mut labels, mut names, mut broken) = (Vec::new(), Vec::new(), Vec::new());
    for batch in loader.by_ref() {
        let batch = match batch {
            Err(data::Error::NoReadableImage { .. }) => break,
            batch => batch?,
        };
        if !batch.indices.is_empty() {
            let features = to_features(&batch)?;
            check_rows(&features, batch.indices.len())?;
            rows.push(features);
        }
        names.extend(batch.indices.iter().map(|&index| dataset.name(index)));
        labels.extend(batch.labels);
        broken.extend(batch.broken);
        progress(labels.len() + broken.len(), total);
    }
    broken.extend(loader.take_undelivered());
    let class_names = dataset.class_names().to_vec();
    Ok(FeatureSet { features: rows.into_tensor(), labels, names, class_names, broken })
}

/// The features of many batches. They leave the device in large blocks, because a copy waits for
/// all pending work of the device, which should instead compute while the next images are decoded.
#[derive(Default)]
struct Rows {
    on_cpu: Vec<Tensor>,
    on_device: Vec<Tensor>,
    waiting: usize,
}

impl Rows {
    /// Maximum number of values that wait on the device: 256 MB of fp32.
    const MOST: usize = 64 << 20;

    fn push(&mut self, features: Tensor) {
        self.waiting += features.numel();
        self.on_device.push(features);
        if self.waiting > Self::MOST {
            self.fetch();
        }
    }

    fn fetch(&mut self) {
        if !self.on_device.is_empty() {
            self.on_cpu.push(Tensor::cat(&self.on_device, 0).to_device(Device::Cpu));
        }
        self.on_device.clear();
        self.waiting = 0;
    }

    /// Returns all rows on the CPU, as `[n, D]`, or `[0, 0]` if there are none.
    fn into_tensor(mut self) -> Tensor {
        self.fetch();
        match self.on_cpu.is_empty() {
            true => Tensor::zeros([0, 0], (Kind::Float, Device::Cpu)),
            false => Tensor::cat(&self.on_cpu, 0),
        }
    }
}

/// Returns an error if the features of any image, `[n, D]`, are infinite or NaN.
pub(crate) fn check_images(features: &Tensor, set: &'static str) -> Result<()> {
    match not_finite(features) {
        (0, _) => Ok(()),
        (count, total) => Err(Error::NotFinite { set, count, total }),
    }
}

/// Returns an error if any patch of these features, `[N, D]`, is infinite or NaN.
pub(crate) fn check_finite(features: &Tensor, set: &'static str) -> Result<()> {
    match not_finite(features) {
        (0, _) => Ok(()),
        (count, total) => Err(Error::PatchesNotFinite { set, count, total }),
    }
}

/// Returns the number of rows of `[n, D]` with a value that is infinite or NaN, and `n`.
fn not_finite(features: &Tensor) -> (i64, i64) {
    let finite = features.isfinite().all_dim(1, false); // [n, D] -> [n]
    let total = features.size()[0];
    (total - finite.sum(Kind::Int64).int64_value(&[]), total)
}

fn check_rows(features: &Tensor, expected: usize) -> Result<()> {
    let got = features.size();
    if got.len() == 2 && got[0] == expected as i64 {
        return Ok(());
    }
    Err(Error::Shape { what: "features of a batch", expected: "[B, D]", got })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_normalized_channels_first() {
        let images =
            Array4::from_shape_fn((2, 1, 2, 3), |(b, _, x, c)| (60 * b + 20 * x + c) as u8);
        let normalize = Normalize { mean: vec![0.5; 3], std: vec![0.25; 3] };
        let input = to_input(&images, &normalize, Device::Cpu).unwrap();
        assert_eq!(input.size(), [2, 3, 1, 2]);
        let expected = (82.0 / 255.0 - 0.5) / 0.25;
        assert!((input.double_value(&[1, 2, 0, 1]) - expected).abs() < 1e-6);
        let transposed = images.clone().permuted_axes([0, 2, 1, 3]);
        let input = to_input(&transposed, &normalize, Device::Cpu).unwrap();
        assert!((input.double_value(&[1, 2, 1, 0]) - expected).abs() < 1e-6);
        assert!(to_input(&Array4::zeros((1, 2, 2, 4)), &normalize, Device::Cpu).is_err());
    }
}
