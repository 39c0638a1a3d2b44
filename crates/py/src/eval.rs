//! The evaluation loader, which yields every image once, in order.

use std::sync::Mutex;

use augment::EvalTransform;
use data::loader::{self, EvalBatch};
use numpy::{PyArray1, PyArray4, PyArrayMethods};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::dataset::Dataset;
use crate::error::of_data;

/// Images, indices, labels (-1 if there is none), and broken images.
type EvalArrays<'py> = (
    Bound<'py, PyArray4<u8>>,
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<i64>>,
    Vec<(usize, String, String)>,
);

/// Batches of resized and center-cropped images.
#[pyclass(frozen, module = "simdino._native")]
pub(crate) struct EvalLoader {
    /// `None` only while it is dropped.
    loader: Mutex<Option<loader::EvalLoader>>,
    /// The process in which the loader's threads run.
    process: u32,
}

#[pymethods]
impl EvalLoader {
    #[new]
    fn new(
        py: Python<'_>,
        dataset: &Dataset,
        resize: u32,
        crop: u32,
        batch_size: usize,
        workers: Option<usize>,
    ) -> PyResult<Self> {
        let dataset = dataset.shared();
        let transform = EvalTransform { resize, crop };
        let made =
            py.detach(|| loader::EvalLoader::new(dataset, transform, batch_size, workers, None));
        let loader = Mutex::new(Some(made.map_err(of_data)?));
        Ok(Self { loader, process: std::process::id() })
    }

    /// Returns the next batch, or `None` at the end.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Option<EvalArrays<'py>>> {
        if std::process::id() != self.process {
            let text = "the threads of this iterator do not exist in a forked process: call iter() \
                        on the loader in the new process";
            return Err(PyRuntimeError::new_err(text));
        }
        let made = py.detach(|| {
            self.loader.lock().ok().and_then(|mut loader| loader.as_mut().and_then(Iterator::next))
        });
        py.check_signals()?;
        made.map(|batch| arrays(py, batch.map_err(of_data)?)).transpose()
    }
}

impl Drop for EvalLoader {
    fn drop(&mut self) {
        let loader = self.loader.get_mut().ok().and_then(Option::take);
        if std::process::id() != self.process {
            std::mem::forget(loader);
        } else if let Some(loader) = loader {
            Python::attach(|py| py.detach(|| drop(loader)));
        }
    }
}

fn arrays(py: Python<'_>, batch: EvalBatch) -> PyResult<EvalArrays<'_>> {
    let (n, height, width, channels) = batch.images.dim();
    let images = PyArray1::from_vec(py, batch.images.into_raw_vec_and_offset().0);
    let labels = batch.labels.iter().map(|label| label.map_or(-1, i64::from)).collect();
    let indices = batch.indices.iter().map(|&index| index as i64).collect();
    let broken = batch.broken.into_iter().map(|image| (image.index, image.name, image.reason));
    Ok((
        images.reshape([n, height, width, channels])?,
        PyArray1::from_vec(py, indices),
        PyArray1::from_vec(py, labels),
        broken.collect(),
    ))
}
