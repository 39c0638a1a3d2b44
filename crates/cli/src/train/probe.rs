//! The k-NN probe of a run, which measures accuracy during training.

use std::rc::Rc;

use eval::{FeaturePrecision, KnnConfig, KnnOptions, KnnTask};
use model::VisionTransformer;
use simdino::assemble::{normalize, probe_transform};
use tch::Device;
use trainer::config::Precision;
use trainer::probe::Probe;

use crate::config::RunConfig;
use crate::failure::Result;

/// Opens the labeled images of a run's probe; none where the config names none.
///
/// # Errors
/// A set cannot be opened.
pub fn open(config: &RunConfig, device: Device) -> Result<Option<KnnTask>> {
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
    Ok(Some(KnnTask::open(options, &config.data)?))
}

/// The probe of a run. Its first measurement is of the untrained network and brings raw pixels
/// along, so that the curve never stands without its baselines.
pub struct KnnProbe {
    task: Rc<KnnTask>,
    pixels: Option<f64>,
}

impl KnnProbe {
    /// A probe on `task`; `first` says that the run starts here.
    pub fn new(task: Rc<KnnTask>, first: bool) -> eval::Result<Self> {
        let pixels = if first { Some(task.score_pixels()?.top1()) } else { None };
        Ok(Self { task, pixels })
    }
}

impl Probe for KnnProbe {
    fn name(&self) -> &str {
        "k-NN"
    }

    fn measure(
        &mut self,
        backbone: &VisionTransformer,
    ) -> std::result::Result<Vec<(String, f64)>, Box<dyn std::error::Error + Send + Sync>> {
        let (result, voters) = self.task.score(backbone)?;
        let (value, (_, rank)) = (result.top1(), objectives::health::spread(&voters.features)?);
        let mut values =
            vec![("probe/knn_top1".to_owned(), value), ("probe/effective_rank".to_owned(), rank)];
        if let Some(pixels) = self.pixels.take() {
            values.push(("probe/untrained".to_owned(), value));
            values.push(("probe/pixels".to_owned(), pixels));
        }
        Ok(values)
    }
}
