//! The training loader.

use std::sync::{Mutex, TryLockError};
use std::time::Duration;

use data::batch::BatchGeometry;
use data::loader::{self, Batch, Crops, LoaderConfig, Position, ViewPlan};
use numpy::{PyArray1, PyArray4, PyArrayMethods};
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::prelude::*;

use crate::crops::augmentation;
use crate::dataset::Dataset;
use crate::error::{of_data, wrong};
use crate::masks::{self, MaskArrays};

/// How often a waiting thread checks for signals, such as Ctrl-C.
const LOOK: Duration = Duration::from_millis(50);

/// Global crops, local crops, masks, samples, (epoch, step), and newly found broken images.
type BatchArrays<'py> = (
    Bound<'py, PyArray4<u8>>,
    Option<Bound<'py, PyArray4<u8>>>,
    Option<MaskArrays<'py>>,
    Bound<'py, PyArray1<i64>>,
    (u64, u64),
    Vec<(usize, String, String)>,
);

/// An endless, ordered sequence of batches, made by threads of the loader.
#[pyclass(frozen, module = "simdino._native")]
pub(crate) struct TrainLoader {
    /// `None` after the loader was closed.
    loader: Mutex<Option<loader::TrainLoader>>,
    steps_per_epoch: u64,
    /// The process in which the loader's threads run.
    process: u32,
}

#[pymethods]
impl TrainLoader {
    #[new]
    #[allow(clippy::too_many_arguments)] // passed by name, from a single place
    #[pyo3(signature = (dataset, *, augment, masks, batch_size, rank, world_size, seed, workers,
                        prefetch, max_bad_fraction, epoch, step))]
    fn new(
        py: Python<'_>,
        dataset: &Dataset,
        augment: &str,
        masks: Option<(String, usize)>,
        batch_size: usize,
        rank: usize,
        world_size: usize,
        seed: u64,
        workers: Option<usize>,
        prefetch: usize,
        max_bad_fraction: f64,
        epoch: u64,
        step: u64,
    ) -> PyResult<Self> {
        let augment = augmentation(augment)?;
        let side = augment.global_crops_size as usize;
        let masks = masks.map(|(json, patch)| {
            if patch == 0 || !side.is_multiple_of(patch) {
                let text = format!("patch_size must divide the {side} pixels of a global crop");
                return Err(wrong(format!("{text} (got {patch})")));
            }
            masks::generator(&json, side / patch, side / patch)
        });
        let views =
            ViewPlan { crops: augment::MultiCrop::new(&augment), masks: masks.transpose()? };
        let geometry = BatchGeometry::new(batch_size)
            .and_then(|geometry| geometry.of_process(rank, world_size))
            .map_err(of_data)?;
        if workers == Some(0) || !(0.0..=1.0).contains(&max_bad_fraction) {
            return Err(wrong("workers must be at least 1, and max_bad_fraction between 0 and 1"));
        }
        let config = LoaderConfig { seed, geometry, workers, prefetch, max_bad_fraction };
        let (dataset, start) = (dataset.shared(), Position { epoch, step });
        let made = py.detach(|| loader::TrainLoader::new(dataset, views, config, start));
        let made = made.map_err(of_data)?;
        let steps_per_epoch = made.steps_per_epoch();
        Ok(Self { loader: Mutex::new(Some(made)), steps_per_epoch, process: std::process::id() })
    }

    #[getter]
    fn steps_per_epoch(&self) -> u64 {
        self.steps_per_epoch
    }

    /// Waits for the next batch with the GIL released; a signal ends the wait.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<BatchArrays<'py>> {
        self.check_process()?;
        loop {
            match py.detach(|| self.next_within(LOOK))? {
                Some(batch) => return arrays(py, batch.map_err(of_data)?),
                None => py.check_signals()?,
            }
        }
    }

    /// Stops the threads after they have finished their current images.
    fn close(&self, py: Python<'_>) {
        if self.check_process().is_ok() {
            py.detach(|| drop(self.loader.lock().ok().and_then(|mut loader| loader.take())));
        }
    }
}

impl TrainLoader {
    fn next_within(&self, time: Duration) -> PyResult<Option<data::Result<Batch>>> {
        let mut loader = match self.loader.try_lock() {
            Ok(loader) => loader,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                let text = "another thread is waiting for a batch of this iterator: use one thread";
                return Err(PyRuntimeError::new_err(text));
            }
        };
        match loader.as_mut() {
            Some(loader) => Ok(loader.next_batch_within(time)),
            None => Err(PyStopIteration::new_err("the loader was closed")),
        }
    }

    /// Returns an error in a forked process, which has none of the threads.
    fn check_process(&self) -> PyResult<()> {
        let (here, there) = (std::process::id(), self.process);
        if here == there {
            return Ok(());
        }
        Err(PyRuntimeError::new_err(format!(
            "this iterator belongs to process {there}, and its threads do not exist in process \
             {here}, which was forked from it: call iter() on the loader in the new process"
        )))
    }
}

impl Drop for TrainLoader {
    fn drop(&mut self) {
        let loader = self.loader.get_mut().ok().and_then(Option::take);
        if self.check_process().is_err() {
            // Dropping would wait forever for threads that do not exist in this process.
            std::mem::forget(loader);
        } else if let Some(loader) = loader {
            // Releases the GIL while the loader's threads end.
            Python::attach(|py| py.detach(|| drop(loader)));
        }
    }
}

fn crops(py: Python<'_>, crops: Crops) -> PyResult<Bound<'_, PyArray4<u8>>> {
    PyArray1::from_vec(py, crops.pixels).reshape(crops.shape)
}

fn arrays(py: Python<'_>, batch: Batch) -> PyResult<BatchArrays<'_>> {
    let broken = batch.broken.into_iter().map(|image| (image.index, image.name, image.reason));
    let samples = batch.samples.iter().map(|&index| index as i64).collect();
    Ok((
        crops(py, batch.global)?,
        batch.local.map(|local| crops(py, local)).transpose()?,
        batch.masks.map(|masks| masks::arrays(py, masks)).transpose()?,
        PyArray1::from_vec(py, samples),
        (batch.position.epoch, batch.position.step),
        broken.collect(),
    ))
}
