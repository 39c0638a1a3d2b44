//! k-NN of a backbone on labeled images, beside its two baselines: raw pixels, and the same
//! network untrained. Serves the probe during training and `simdino eval knn`.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use data::config::DataConfig;
use data::dataset::Dataset;
use data::transform::EvalTransform;
use eval::baseline::{PixelOptions, pixel_features};
use eval::features::{ExtractOptions, FeatureSet, extract};
use eval::knn::{KnnConfig, KnnResult, knn};
use model::VisionTransformer;
use model::normalize::Normalize;
use serde::Serialize;
use simdino::assemble::normalize;
use tch::Device;
use trainer::probe::Probe;

use crate::config::RunConfig;

/// Side that images are shrunk to for the baseline on raw pixels.
const PIXEL_SIDE: u32 = 32;

/// `results.json`: what `eval knn` found.
#[derive(Debug, Clone, Serialize)]
pub struct KnnTable {
    /// The trained network.
    pub knn: KnnResult,
    /// The same network as it was before training.
    pub untrained: KnnResult,
    /// Raw pixels.
    pub pixels: KnnResult,
    /// Shorter side that images were resized to, in pixels.
    pub resize: u32,
    /// Side of the center crop that the networks saw, in pixels.
    pub crop: u32,
}

impl KnnTable {
    /// The result in a sentence.
    pub fn sentence(&self) -> String {
        let percent = |result| 100.0 * top1(result);
        format!(
            "k-NN {:.1} %, the same network untrained {:.1} %, raw pixels {:.1} %",
            percent(&self.knn),
            percent(&self.untrained),
            percent(&self.pixels)
        )
    }
}

/// What a [`KnnTask`] is made of.
#[derive(Debug, Clone)]
pub struct KnnOptions {
    /// Labeled images that vote, and labeled images that are classified.
    pub paths: [String; 2],
    /// Most images used of each; 0 = all.
    pub limits: [usize; 2],
    /// Neighbors and temperature.
    pub knn: KnnConfig,
    /// How the images are brought to size.
    pub transform: EvalTransform,
    /// How they are normalized.
    pub normalize: Normalize,
    /// Where the features are computed.
    pub device: Device,
}

/// Sizes of the evaluation transform: a crop of `side`, and the shorter side before it `resize`, or
/// 8/7 of the crop where that is 0.
pub fn eval_transform(side: i64, resize: u32) -> EvalTransform {
    let crop = u32::try_from(side).unwrap_or(u32::MAX);
    EvalTransform { resize: if resize == 0 { crop.div_ceil(7) * 8 } else { resize }, crop }
}

impl KnnOptions {
    /// The probe of a run; none where the config names no labeled images.
    pub fn of_run(config: &RunConfig, device: Device) -> Option<Self> {
        let probe = &config.probe;
        (!probe.train_path.is_empty()).then(|| Self {
            paths: [probe.train_path.clone(), probe.test_path.clone()],
            limits: [probe.max_train, probe.max_test],
            knn: KnnConfig { k: vec![probe.k], temperature: probe.temperature },
            transform: eval_transform(config.model.image_size, probe.resize),
            normalize: normalize(&config.augment),
            device,
        })
    }
}

/// Labeled images that vote and labeled images that are classified.
pub struct KnnTask {
    sets: [Arc<Dataset>; 2],
    options: KnnOptions,
    workers: usize,
}

impl KnnTask {
    /// Opens both sets; `data` says how they are read.
    ///
    /// # Errors
    /// A set cannot be opened.
    pub fn open(options: KnnOptions, data: &DataConfig) -> eval::error::Result<Self> {
        let open = |path: &String| -> eval::error::Result<Arc<Dataset>> {
            let config = DataConfig {
                path: path.clone(),
                source: data::config::SourceKind::Auto,
                // What is said of the training images alone.
                mix: Vec::new(),
                cache: data::CacheKind::None,
                ..data.clone()
            };
            Ok(Arc::new(data::open(&config)?))
        };
        let sets = [open(&options.paths[0])?, open(&options.paths[1])?];
        Ok(Self { sets, options, workers: data.workers })
    }

    /// From when `flag` is set on, no image is waited for.
    pub fn stop_on(&self, flag: &Arc<AtomicBool>) {
        self.sets.iter().for_each(|set| set.stop_on(Arc::clone(flag)));
    }

    /// What else than images was met in both sets, a sentence each.
    pub fn notices(&self) -> Vec<String> {
        let told = self.sets.iter().zip(&self.options.paths);
        told.flat_map(|(set, path)| notices(path, set)).collect()
    }

    /// All three measurements: of a network, of the same untrained, and of raw pixels.
    ///
    /// # Errors
    /// Images cannot be read, or have no labels.
    pub fn table(
        &self,
        trained: &VisionTransformer,
        untrained: &VisionTransformer,
    ) -> eval::error::Result<KnnTable> {
        let EvalTransform { resize, crop } = self.options.transform;
        Ok(KnnTable {
            knn: self.score(trained)?,
            untrained: self.score(untrained)?,
            pixels: self.score_pixels()?,
            resize,
            crop,
        })
    }

    /// k-NN on the features of a backbone.
    ///
    /// # Errors
    /// Images cannot be read, or have no labels.
    pub fn score(&self, backbone: &VisionTransformer) -> eval::error::Result<KnnResult> {
        Ok(self.measure(backbone)?.0)
    }

    /// The same, with the features of the images that vote.
    fn measure(
        &self,
        backbone: &VisionTransformer,
    ) -> eval::error::Result<(KnnResult, FeatureSet)> {
        let features = |i: usize| extract(&self.sets[i], backbone, &self.extract_options(i));
        let voters = features(0)?;
        Ok((self.vote(&voters, &features(1)?)?, voters))
    }

    /// k-NN on raw pixels.
    ///
    /// # Errors
    /// As [`Self::score`].
    pub fn score_pixels(&self) -> eval::error::Result<KnnResult> {
        let options =
            PixelOptions { side: PIXEL_SIDE, workers: self.workers, limits: self.options.limits };
        let (train, test) = pixel_features(&self.sets[0], &self.sets[1], &options)?;
        self.vote(&train, &test)
    }

    fn vote(&self, train: &FeatureSet, test: &FeatureSet) -> eval::error::Result<KnnResult> {
        knn(train, test, &self.options.knn)
    }

    fn extract_options(&self, set: usize) -> ExtractOptions {
        ExtractOptions {
            transform: self.options.transform,
            mean: self.options.normalize.mean.clone(),
            std: self.options.normalize.std.clone(),
            batch: 64,
            workers: self.workers,
            device: self.options.device,
            limit: self.options.limits[set],
        }
    }
}

/// What else than images was met in a data set, a sentence each, with its name.
pub fn notices(path: &str, dataset: &Dataset) -> Vec<String> {
    dataset.notices().sentences().iter().map(|text| format!("{path}: {text}")).collect()
}

/// The probe of a run. Its first measurement is of the untrained network and brings raw pixels
/// along, so that the curve never stands without its baselines.
pub struct KnnProbe {
    task: Rc<KnnTask>,
    pixels: Option<f64>,
}

impl KnnProbe {
    /// A probe on `task`; `first` says that the run starts here.
    pub fn new(task: Rc<KnnTask>, first: bool) -> eval::error::Result<Self> {
        let pixels = if first { Some(top1(&task.score_pixels()?)) } else { None };
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
    ) -> Result<Vec<(String, f64)>, Box<dyn std::error::Error + Send + Sync>> {
        let (result, voters) = self.task.measure(backbone)?;
        let (value, (_, rank)) = (top1(&result), objectives::health::spread(&voters.features)?);
        let mut values =
            vec![("probe/knn_top1".to_owned(), value), ("probe/effective_rank".to_owned(), rank)];
        if let Some(pixels) = self.pixels.take() {
            values.push(("probe/untrained".to_owned(), value));
            values.push(("probe/pixels".to_owned(), pixels));
        }
        Ok(values)
    }
}

/// Accuracy of the first `k` of a result, 0-1.
pub fn top1(result: &KnnResult) -> f64 {
    result.scores.first().map_or(f64::NAN, |score| score.top1)
}
