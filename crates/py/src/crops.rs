//! Functions for single images: decoding and multi-crop.

use augment::{AugmentConfig, CropKey, GLOBAL_CROPS, Pixels, Preset};
use decode::PixelFormat;
use numpy::{PyArray1, PyArray3, PyArrayMethods, PyReadonlyArray3, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::{check, of_augment, options, wrong};

/// Turns pixels into an array `[height, width, channels]` without copying.
fn image_array(
    py: Python<'_>,
    data: Vec<u8>,
    shape: [usize; 3],
) -> PyResult<Bound<'_, PyArray3<u8>>> {
    PyArray1::from_vec(py, data).reshape(shape)
}

/// Decodes an image file: `bytes -> [H, W, C]`.
#[pyfunction(name = "decode")]
pub(crate) fn decode_image<'py>(
    py: Python<'py>,
    bytes: &[u8],
    channels: usize,
    value_range: Vec<[f64; 2]>,
) -> PyResult<Bound<'py, PyArray3<u8>>> {
    let format = PixelFormat { channels, value_range };
    let decoded = py.detach(|| decode::decode_as(bytes, &format));
    let image = decoded.map_err(|error| PyValueError::new_err(base::error_chain(&error)))?.image;
    let (width, height) = image.dimensions();
    let shape = [height as usize, width as usize, image.channels()];
    image_array(py, image.into_data(), shape)
}

/// Returns the options of a published augmentation as JSON.
#[pyfunction]
pub(crate) fn preset(name: &str) -> PyResult<String> {
    let known: Preset = serde_json::from_value(name.into()).map_err(|_| {
        wrong(format!("there is no preset '{name}': choose simdino, simdinov2, dino, or dinov2"))
    })?;
    serde_json::to_string(&AugmentConfig::of(known)).map_err(|error| wrong(error.to_string()))
}

/// Reads and checks the options of an augmentation.
pub(crate) fn augmentation(json: &str) -> PyResult<AugmentConfig> {
    let config: AugmentConfig = options("augment", json)?;
    check(config.validate())?;
    Ok(config)
}

/// The multi-crop augmentation of single images.
#[pyclass(frozen, module = "simdino._native")]
pub(crate) struct MultiCrop {
    crops: augment::MultiCrop,
}

#[pymethods]
impl MultiCrop {
    #[new]
    fn new(config: &str) -> PyResult<Self> {
        Ok(Self { crops: augment::MultiCrop::new(&augmentation(config)?) })
    }

    /// Returns the crops of an image, which depend on (seed, epoch, sample).
    /// `[H, W, C] -> [[S, S, C]; 2 + local crops]`
    fn apply<'py>(
        &self,
        py: Python<'py>,
        image: PyReadonlyArray3<'py, u8>,
        seed: u64,
        epoch: u64,
        sample: u64,
    ) -> PyResult<Vec<Bound<'py, PyArray3<u8>>>> {
        let shape = image.shape();
        let (channels, size) = (shape[2], (shape[1] as u32, shape[0] as u32));
        let values = image.as_slice().map_err(|_| wrong("the image must be C-contiguous"))?;
        let pixels = Pixels::new(values, size.0, size.1, channels)
            .filter(|pixels| !pixels.data().is_empty())
            .ok_or_else(|| wrong(format!("an image of shape {shape:?} has no pixels")))?;
        self.crops.config().check_colors(channels).map_err(of_augment)?;
        let views = GLOBAL_CROPS + self.crops.config().local_crops_number;
        let key = CropKey { seed, epoch, sample };
        let made = py.detach(|| {
            let plans: Vec<_> = (0..views).map(|view| self.crops.plan(size, key, view)).collect();
            let bytes = |side: u32| channels * (side as usize).pow(2);
            let mut outs: Vec<Vec<u8>> =
                plans.iter().map(|plan| vec![0; bytes(plan.side)]).collect();
            self.crops.apply_plans(pixels, &plans, outs.iter_mut().map(Vec::as_mut_slice))?;
            Ok(plans.iter().map(|plan| plan.side as usize).zip(outs).collect::<Vec<_>>())
        });
        let made = made.map_err(of_augment)?;
        made.into_iter().map(|(side, out)| image_array(py, out, [side, side, channels])).collect()
    }
}
