//! k-NN of a backbone on labeled images, beside its two baselines: raw pixels, and the same network
//! untrained.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use augment::EvalTransform;
use data::SourceKind;
use data::{CacheKind, DataConfig, Dataset};
use model::normalize::Normalize;
use serde::Serialize;
use tch::Device;

use crate::baseline::{PixelOptions, pixel_features};
use crate::error::Result;
use crate::features::{ExtractOptions, FeatureExtractor, FeatureSet, extract};
use crate::knn::{KnnConfig, KnnResult, knn};

/// k-NN of a network beside its baselines: what `results.json` of a run holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
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
        let percent = |result: &KnnResult| 100.0 * result.top1();
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
#[non_exhaustive]
pub struct KnnOptions {
    /// Labeled images that vote.
    pub train_path: String,
    /// Labeled images that are classified.
    pub test_path: String,
    /// Most images that vote, spread evenly over the set; 0 = all.
    pub max_train: usize,
    /// Most images that are classified, spread evenly over the set; 0 = all.
    pub max_test: usize,
    /// Neighbors and temperature.
    pub knn: KnnConfig,
    /// How the images are brought to size.
    pub transform: EvalTransform,
    /// How they are normalized.
    pub normalize: Normalize,
    /// Where the networks live.
    pub device: Device,
}

impl KnnOptions {
    /// All images of both sets, the neighbors of DINO, on the CPU.
    pub fn new(
        train_path: impl Into<String>,
        test_path: impl Into<String>,
        transform: EvalTransform,
        normalize: Normalize,
    ) -> Self {
        Self {
            train_path: train_path.into(),
            test_path: test_path.into(),
            max_train: 0,
            max_test: 0,
            knn: KnnConfig::default(),
            transform,
            normalize,
            device: Device::Cpu,
        }
    }
}

/// Labeled images that vote and labeled images that are classified, opened.
///
/// ```
/// use augment::EvalTransform;
/// use data::{DataConfig, SourceKind, SyntheticConfig};
/// use eval::{KnnOptions, KnnTask};
/// use model::normalize::Normalize;
/// use model::{Arch, ModelConfig, VisionTransformer};
/// use tch::{Device, nn};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let (train, test) = (folder.path().join("train"), folder.path().join("test"));
/// # for (path, count, seed) in [(&train, 80, 0), (&test, 40, 1)] {
/// #     data::synthetic::write_folder(&SyntheticConfig { count, size: 32, seed }, path, |_| ())?;
/// # }
/// # let [train, test] = [train, test].map(|path| path.join("images").display().to_string());
/// let normalize = Normalize { mean: vec![0.5; 3], std: vec![0.25; 3] };
/// let options = KnnOptions::new(train, test, EvalTransform::for_crop(32), normalize);
/// let task = KnnTask::open(options, &DataConfig::default())?;
///
/// // `model::weights::PretrainedBackbone` has both networks of a weight file.
/// let vars = nn::VarStore::new(Device::Cpu);
/// let config = ModelConfig { arch: Arch::VitNano, image_size: 32, ..ModelConfig::default() };
/// let trained = VisionTransformer::new(&vars.root(), &config)?;
/// let untrained = VisionTransformer::new(&nn::VarStore::new(Device::Cpu).root(), &config)?;
/// let table = task.table(&trained, &untrained)?;
/// assert_eq!((table.knn.num_train, table.knn.num_test), (80, 40));
/// println!("{}", table.sentence());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct KnnTask {
    train: Arc<Dataset>,
    test: Arc<Dataset>,
    options: KnnOptions,
    workers: usize,
}

impl KnnTask {
    /// Opens both sets. `data` says how they are read: its values of pixels, threads, and limits; its
    /// own images, mix and cache are those of training and stay out.
    ///
    /// # Errors
    /// A set cannot be opened.
    pub fn open(options: KnnOptions, data: &DataConfig) -> Result<Self> {
        let open = |path: &String| -> Result<Arc<Dataset>> {
            let config = DataConfig {
                path: path.clone(),
                source: SourceKind::Auto,
                mix: Vec::new(),
                cache: CacheKind::None,
                ..data.clone()
            };
            Ok(Arc::new(data::open(&config)?))
        };
        let (train, test) = (open(&options.train_path)?, open(&options.test_path)?);
        Ok(Self { train, test, options, workers: data.workers })
    }

    /// From when `flag` is set on, no image is waited for.
    pub fn stop_on(&self, flag: &Arc<AtomicBool>) {
        [&self.train, &self.test].into_iter().for_each(|set| set.stop_on(Arc::clone(flag)));
    }

    /// What else than images was met in both sets, a sentence each, with the set's name.
    pub fn notices(&self) -> Vec<String> {
        let mut notices = self.train.notices().sentences_about(&self.options.train_path);
        notices.extend(self.test.notices().sentences_about(&self.options.test_path));
        notices
    }

    /// All three measurements: of a network, of the same untrained, and of raw pixels.
    ///
    /// # Errors
    /// Images cannot be read, or have no labels.
    pub fn table(
        &self,
        trained: &dyn FeatureExtractor,
        untrained: &dyn FeatureExtractor,
    ) -> Result<KnnTable> {
        let EvalTransform { resize, crop } = self.options.transform;
        Ok(KnnTable {
            knn: self.score(trained)?.0,
            untrained: self.score(untrained)?.0,
            pixels: self.score_pixels()?,
            resize,
            crop,
        })
    }

    /// k-NN on the features of a network, and the features of the images that vote.
    ///
    /// # Errors
    /// Images cannot be read, or have no labels.
    pub fn score(&self, network: &dyn FeatureExtractor) -> Result<(KnnResult, FeatureSet)> {
        let KnnOptions { max_train, max_test, .. } = self.options;
        let train = extract(&self.train, network, &self.extract_options(max_train))?;
        let test = extract(&self.test, network, &self.extract_options(max_test))?;
        Ok((knn(&train, &test, &self.options.knn)?, train))
    }

    /// k-NN on raw pixels.
    ///
    /// # Errors
    /// As [`Self::score`].
    pub fn score_pixels(&self) -> Result<KnnResult> {
        let KnnOptions { max_train, max_test, .. } = self.options;
        let limits = [max_train, max_test];
        let options = PixelOptions { workers: self.workers, limits, ..PixelOptions::default() };
        let (train, test) = pixel_features(&self.train, &self.test, &options)?;
        knn(&train, &test, &self.options.knn)
    }

    fn extract_options(&self, limit: usize) -> ExtractOptions {
        let KnnOptions { transform, normalize, device, .. } = &self.options;
        ExtractOptions {
            workers: self.workers,
            device: *device,
            limit,
            ..ExtractOptions::new(*transform, normalize.clone())
        }
    }
}
