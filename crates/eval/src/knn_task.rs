//! k-NN of a backbone on labeled images, compared with two baselines: raw pixels, and the same
//! network untrained.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use augment::EvalTransform;
use data::decode::PixelFormat;
use data::{CacheKind, DataConfig, Dataset, SourceKind};
use model::normalize::Normalize;
use model::weights::PretrainedBackbone;
use serde::Serialize;
use tch::Device;
use torch_ext::{Collective, SingleProcess};

use crate::baseline::PixelOptions;
use crate::error::Result;
use crate::features::{ExtractOptions, FeatureExtractor, FeaturePrecision};
use crate::image_set::{ImageSet, pixels_shared};
use crate::knn::{KnnConfig, KnnResult, knn_shared};
use crate::record::Record;

/// The k-NN results of a network and its baselines, as stored in `results.json` of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct KnnTable {
    /// Result of the trained network.
    pub knn: KnnResult,
    /// Result of the same network before training.
    pub untrained: KnnResult,
    /// Result of raw pixels.
    pub pixels: KnnResult,
    /// Size of the shorter side after resizing, in pixels.
    pub resize: u32,
    /// Side of the center crop that the networks see, in pixels.
    pub crop: u32,
    /// Precision of the networks.
    pub precision: FeaturePrecision,
    /// Whether the training itself measured this at its end, with the images of its config.
    pub of_training: bool,
}

impl KnnTable {
    /// Combines the results of a network, of the same network untrained, and of raw pixels.
    pub fn new(
        knn: KnnResult,
        untrained: KnnResult,
        pixels: KnnResult,
        seen: (EvalTransform, FeaturePrecision),
        of_training: bool,
    ) -> Self {
        let (EvalTransform { resize, crop }, precision) = seen;
        Self { knn, untrained, pixels, resize, crop, precision, of_training }
    }

    /// Adds the settings, scores, and notes to a record.
    pub fn describe(&self, record: &mut Record) {
        let k: Vec<usize> = self.knn.scores.iter().map(|score| score.k).collect();
        record.set("k", k);
        record.set("temperature", self.knn.temperature);
        self.knn.notes.iter().for_each(|text| record.note(text));
        for score in &self.knn.scores {
            record.score(&format!("k{}_top1", score.k), score.top1);
            record.score(&format!("k{}_top5", score.k), score.top5);
        }
        for (of, result) in [("untrained", &self.untrained), ("pixels", &self.pixels)] {
            for score in &result.scores {
                record.baseline(of, &format!("k{}_top1", score.k), score.top1);
                record.baseline(of, &format!("k{}_top5", score.k), score.top5);
            }
        }
    }

    /// Describes the result in a sentence.
    pub fn sentence(&self) -> String {
        let percent = |result: &KnnResult| 100.0 * result.top1();
        format!(
            "k-NN {:.1}%, the same network untrained {:.1}%, raw pixels {:.1}%",
            percent(&self.knn),
            percent(&self.untrained),
            percent(&self.pixels)
        )
    }
}

/// Options of a [`KnnTask`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct KnnOptions {
    /// Path of the labeled training images.
    pub train_path: String,
    /// Path of the labeled test images.
    pub test_path: String,
    /// Maximum number of training images, spread evenly over the set; `None` = all.
    pub max_train: Option<usize>,
    /// Maximum number of test images, spread evenly over the set; `None` = all.
    pub max_test: Option<usize>,
    /// Numbers of neighbors and temperature.
    pub knn: KnnConfig,
    /// How images are resized and cropped.
    pub transform: EvalTransform,
    /// How images are normalized.
    pub normalize: Normalize,
    /// Device of the networks and of the search.
    pub device: Device,
    /// Precision of the networks.
    pub precision: FeaturePrecision,
}

impl KnnOptions {
    /// Returns options that use all images of both sets, DINO's numbers of neighbors, and the CPU.
    pub fn new(
        train_path: impl Into<String>,
        test_path: impl Into<String>,
        transform: EvalTransform,
        normalize: Normalize,
    ) -> Self {
        Self {
            train_path: train_path.into(),
            test_path: test_path.into(),
            max_train: None,
            max_test: None,
            knn: KnnConfig::default(),
            transform,
            normalize,
            device: Device::Cpu,
            precision: FeaturePrecision::default(),
        }
    }
}

/// Returns the config for reading the images of `path` in the pixel format of this network.
pub fn data_config(pretrained: &PretrainedBackbone, path: &str) -> DataConfig {
    let channels = usize::try_from(pretrained.model.in_channels).unwrap_or_default();
    let pixels = PixelFormat { channels, value_range: pretrained.value_range.clone() };
    DataConfig { path: Some(path.to_owned()), ..DataConfig::default() }.with_pixels(pixels)
}

/// Opens a set of labeled images. Of `data`, the settings for pixels, threads, and limits apply;
/// its images, mix, and cache are only for training.
///
/// # Errors
/// Returns an error if the set cannot be opened.
pub fn open_labeled(path: &str, data: &DataConfig) -> Result<Arc<Dataset>> {
    let config = DataConfig {
        path: Some(path.to_owned()),
        source: SourceKind::Auto,
        mix: Vec::new(),
        cache: CacheKind::None,
        ..data.clone()
    };
    Ok(Arc::new(data::open(&config)?))
}

/// A k-NN evaluation on opened training and test sets.
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
    workers: Option<usize>,
}

impl KnnTask {
    /// Opens both sets. Of `data`, the settings for pixels, threads, and limits apply; its images,
    /// mix, and cache are only for training.
    ///
    /// # Errors
    /// Returns an error if a set cannot be opened.
    pub fn open(options: KnnOptions, data: &DataConfig) -> Result<Self> {
        let open = |path: &String| open_labeled(path, data);
        let sets = [open(&options.train_path)?, open(&options.test_path)?];
        Ok(Self::new(sets, options, data.workers))
    }

    /// Creates a task from sets that are already open, the training set first. `workers` is the
    /// number of decoding threads; `None` = one per core.
    pub fn new(
        [train, test]: [Arc<Dataset>; 2],
        options: KnnOptions,
        workers: Option<usize>,
    ) -> Self {
        Self { train, test, options, workers }
    }

    /// Stops waiting for images as soon as `flag` is set.
    pub fn stop_on(&self, flag: &Arc<AtomicBool>) {
        [&self.train, &self.test].into_iter().for_each(|set| set.stop_on(Arc::clone(flag)));
    }

    /// Returns the notices about both sets as sentences, each of which starts with the path of its
    /// set.
    pub fn notices(&self) -> Vec<String> {
        let mut notices = self.train.notices().sentences_about(&self.options.train_path);
        notices.extend(self.test.notices().sentences_about(&self.options.test_path));
        notices
    }

    /// Measures k-NN of a network at the end of its training, of the same network untrained, and of
    /// raw pixels.
    ///
    /// # Errors
    /// Returns an error if images cannot be read or have no labels.
    pub fn table(
        &self,
        trained: &dyn FeatureExtractor,
        untrained: &dyn FeatureExtractor,
    ) -> Result<KnnTable> {
        self.table_shared(trained, untrained, &SingleProcess)
    }

    /// [`Self::table`] for several processes, which share the images. All of them get the table.
    ///
    /// # Errors
    /// Fails like [`Self::table`], and in every process if one fails.
    pub fn table_shared(
        &self,
        trained: &dyn FeatureExtractor,
        untrained: &dyn FeatureExtractor,
        processes: &dyn Collective,
    ) -> Result<KnnTable> {
        let ([train, test], options) = (self.sets(), self.extract_options());
        let of = |network: &dyn FeatureExtractor| {
            let known = train.features(network, &options, processes)?;
            let asked = test.features(network, &options, processes)?;
            knn_shared(&known, &asked, &self.knn_config(), processes)
        };
        let (trained, untrained) = (of(trained)?, of(untrained)?);
        let [known, asked] = pixels_shared([&train, &test], &self.pixel_options(), processes)?;
        let pixels = knn_shared(&known, &asked, &self.knn_config(), processes)?;
        let seen = (self.options.transform, self.options.precision);
        Ok(KnnTable::new(trained, untrained, pixels, seen, true))
    }

    /// Returns the training and the test images.
    pub fn sets(&self) -> [ImageSet; 2] {
        let KnnOptions { max_train, max_test, .. } = self.options;
        [
            ImageSet::new(Arc::clone(&self.train), max_train),
            ImageSet::new(Arc::clone(&self.test), max_test),
        ]
    }

    /// Returns the options for reading raw pixels.
    fn pixel_options(&self) -> PixelOptions {
        PixelOptions { workers: self.workers, ..PixelOptions::default() }
    }

    /// Returns the settings of k-NN, with the device of this task.
    fn knn_config(&self) -> KnnConfig {
        KnnConfig { device: self.options.device, ..self.options.knn.clone() }
    }

    fn extract_options(&self) -> ExtractOptions {
        let KnnOptions { transform, normalize, device, precision, .. } = &self.options;
        ExtractOptions {
            batch: ExtractOptions::batch_for(*device),
            workers: self.workers,
            device: *device,
            precision: *precision,
            ..ExtractOptions::new(*transform, normalize.clone())
        }
    }
}
