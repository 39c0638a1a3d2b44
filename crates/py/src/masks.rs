//! Block-wise masks of patches.

use data::batch::BatchGeometry;
use data::masking::{self, MaskConfig, MaskKey, Masks};
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::prelude::*;

use crate::error::{check, of_data, options};

/// Masks `[2B, T]`, indices `[m]`, weights `[m]`, and the largest possible m.
pub(crate) type MaskArrays<'py> =
    (Bound<'py, PyArray2<bool>>, Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<f32>>, usize);

/// Converts masks to arrays.
pub(crate) fn arrays(py: Python<'_>, masks: Masks) -> PyResult<MaskArrays<'_>> {
    let (crops, patches) = masks.masks.dim();
    let flat = PyArray1::from_vec(py, masks.masks.into_iter().collect());
    Ok((
        flat.reshape([crops, patches])?,
        PyArray1::from_vec(py, masks.indices),
        PyArray1::from_vec(py, masks.weights),
        masks.upper_bound,
    ))
}

/// Creates a generator from options and the size of the grid in patches.
pub(crate) fn generator(
    json: &str,
    height: usize,
    width: usize,
) -> PyResult<masking::MaskGenerator> {
    let config: MaskConfig = options("masks", json)?;
    check(config.validate())?;
    masking::MaskGenerator::new(&config, (height, width)).map_err(of_data)
}

/// Draws masks for the global crops of a batch.
#[pyclass(frozen, module = "simdino._native")]
pub(crate) struct MaskGenerator {
    masks: masking::MaskGenerator,
}

#[pymethods]
impl MaskGenerator {
    #[new]
    fn new(config: &str, height: usize, width: usize) -> PyResult<Self> {
        Ok(Self { masks: generator(config, height, width)? })
    }

    /// Returns the masks of one process in a step; `key` is (seed, epoch, step).
    fn batch<'py>(
        &self,
        py: Python<'py>,
        key: (u64, u64, u64),
        batch_size: usize,
        rank: usize,
        world_size: usize,
    ) -> PyResult<MaskArrays<'py>> {
        let (seed, epoch, step) = key;
        let geometry = BatchGeometry::new(batch_size)
            .and_then(|geometry| geometry.of_process(rank, world_size))
            .map_err(of_data)?;
        let key = MaskKey { seed, epoch, step };
        arrays(py, py.detach(|| self.masks.batch(key, geometry, 0)))
    }
}
