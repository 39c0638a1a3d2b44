//! Datasets: folders, lists, shards, parquet files, or mixes of them.

use std::sync::Arc;

use data::DataConfig;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::{check, of_data, options, wrong};

/// A fixed, ordered collection of images.
#[pyclass(frozen, module = "simdino._native")]
pub(crate) struct Dataset {
    inner: Arc<data::Dataset>,
}

impl Dataset {
    /// Returns the shared dataset.
    pub(crate) fn shared(&self) -> Arc<data::Dataset> {
        Arc::clone(&self.inner)
    }
}

#[pymethods]
impl Dataset {
    /// Opens the source that the options describe.
    #[new]
    fn open(py: Python<'_>, config: &str, channels: usize) -> PyResult<Self> {
        let config: DataConfig = options("source", config)?;
        let config = DataConfig { channels, ..config };
        check(config.validate())?;
        let dataset = py.detach(|| in_own_pool(|| data::open(&config)))?.map_err(of_data)?;
        Ok(Self { inner: Arc::new(dataset) })
    }

    fn __len__(&self) -> usize {
        self.inner.len()
    }

    #[getter]
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    #[getter]
    fn channels(&self) -> usize {
        self.inner.channels()
    }

    #[getter]
    fn class_names(&self) -> Vec<String> {
        self.inner.class_names().to_vec()
    }

    /// Returns sentences about what was found besides images.
    #[getter]
    fn notices(&self) -> Vec<String> {
        self.inner.notices().sentences()
    }

    fn name(&self, index: usize) -> PyResult<String> {
        self.known(index)?;
        Ok(self.inner.name(index))
    }

    fn label(&self, index: usize) -> PyResult<Option<u32>> {
        self.known(index)?;
        Ok(self.inner.label(index))
    }

    /// Returns bytes that identify the dataset, made from its size and the names of a few images.
    fn mark<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        const NAMES: usize = 32;
        let len = self.inner.len();
        let some = (0..NAMES.min(len)).map(|i| i * len / NAMES.min(len));
        let names: Vec<String> = some.map(|index| self.inner.name(index)).collect();
        PyBytes::new(py, format!("{len}\n{}", names.join("\n")).as_bytes())
    }
}

impl Dataset {
    fn known(&self, index: usize) -> PyResult<()> {
        let len = self.inner.len();
        if index < len {
            return Ok(());
        }
        Err(wrong(format!("there is no image {index}: the dataset has {len} images")))
    }
}

/// Runs `work` on threads that end with it. The threads of rayon's global pool would keep running,
/// and would be missing in a process that is forked later.
fn in_own_pool<T: Send>(work: impl FnOnce() -> T + Send) -> PyResult<T> {
    let pool = rayon::ThreadPoolBuilder::new().build();
    let pool = pool.map_err(|error| wrong(format!("cannot start threads: {error}")))?;
    Ok(pool.install(work))
}
