//! The k-NN probe of a run, which measures accuracy during training.

use std::rc::Rc;

use data::DataConfig;
use eval::{FeaturePrecision, KnnConfig, KnnOptions, KnnTask};
use model::VisionTransformer;
use simdino::assemble::{normalize, probe_transform};
use tch::Device;
use trainer::config::Precision;
use trainer::probe::Probe;
use trainer::processes::Processes;

use crate::config::RunConfig;
use crate::failure::Result;

/// Opens the labeled images of a run's probe; none where the config names none.
///
/// # Errors
/// A set cannot be opened.
pub fn open(config: &RunConfig, device: Device, workers: Option<usize>) -> Result<Option<KnnTask>> {
    let probe = &config.probe;
    let (Some(train), Some(test)) = (&probe.train_path, &probe.test_path) else { return Ok(None) };
    let mut options =
        KnnOptions::new(train, test, probe_transform(config), normalize(&config.augment));
    (options.max_train, options.max_test) = (probe.max_train, probe.max_test);
    options.knn =
        KnnConfig { k: vec![probe.k], temperature: probe.temperature, ..KnnConfig::default() };
    options.device = device;
    // On a GPU, single precision would take several times as long as training does.
    if device != Device::Cpu && config.train.precision == Precision::Bf16 {
        options.precision = FeaturePrecision::Bf16;
    }
    let data = DataConfig { workers, ..config.data.clone() };
    Ok(Some(KnnTask::open(options, &data)?))
}

/// The probe of a run. Its first measurement is of the untrained network and brings raw pixels
/// along, so that the curve never stands without its baselines.
pub struct KnnProbe {
    task: Rc<KnnTask>,
    first: bool,
}

impl KnnProbe {
    /// A probe on `task`; `first` says that the run starts here.
    pub fn new(task: Rc<KnnTask>, first: bool) -> Self {
        Self { task, first }
    }
}

impl Probe for KnnProbe {
    fn name(&self) -> &str {
        "k-NN"
    }

    fn measure(
        &mut self,
        backbone: &VisionTransformer,
        processes: &Processes,
    ) -> std::result::Result<Vec<(String, f64)>, Box<dyn std::error::Error + Send + Sync>> {
        let processes = processes.collective();
        // All that is done together comes first: a process that fails after it fails alone.
        let pixels = match std::mem::take(&mut self.first) {
            true => self.task.pixels_shared(processes)?,
            false => None,
        };
        let Some(features) = self.task.features_shared(backbone, processes)? else {
            return Ok(Vec::new());
        };
        let value = self.task.classify(&features)?.top1();
        let (_, rank) = objectives::health::spread(&features[0].features)?;
        let mut values =
            vec![("probe/knn_top1".to_owned(), value), ("probe/effective_rank".to_owned(), rank)];
        if let Some(pixels) = pixels {
            values.push(("probe/untrained".to_owned(), value));
            values.push(("probe/pixels".to_owned(), self.task.classify(&pixels)?.top1()));
        }
        Ok(values)
    }
}
