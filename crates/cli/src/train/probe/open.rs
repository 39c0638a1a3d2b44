//! Opens the images of the probes of a run, and rejects what could not be measured before any
//! training.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use data::dense::DenseSet;
use data::{DataConfig, Dataset};
use eval::segmentation::MaskSize;
use eval::segmentation::knn::PatchConfig;
use eval::{
    Error, ExtractOptions, FeaturePrecision, ImageSet, KnnConfig, KnnOptions, KnnTask,
    check_labels, open_labeled,
};
use simdino::assemble::{normalize, probe_transform};
use tch::Device;
use trainer::config::Precision;

use super::images::Images;
use super::segment::Segmentation;
use super::suite::Probes;
use crate::config::RunConfig;
use crate::failure::{Context, Failure, Result};
use crate::label_meaning::LabelMeaning;

/// Minimum number of labeled images for logistic regression, which holds out a tenth of them.
const LEAST_OF_REGRESSION: usize = 10;

/// The opened probes of a run.
#[derive(Default)]
pub struct Opened {
    /// The measurements during training; `None` if all probes are off.
    pub probes: Option<Probes>,
    /// The k-NN task for the table at the end.
    pub knn: Option<KnnTask>,
    /// Sentences about the files and labels of the sets, such as files that were left out.
    pub notices: Vec<String>,
}

/// Opens the images of the probes that are on. `dataset` contains the images that the run trains
/// on.
///
/// # Errors
/// Returns a sentence with the config key if images cannot be opened, have no labels or only one
/// class, or are too few.
pub fn open(
    config: &RunConfig,
    dataset: &Arc<Dataset>,
    device: Device,
    workers: Option<usize>,
) -> Result<Opened> {
    let mut opening = Opening {
        config,
        data: DataConfig { workers, ..config.data.clone() },
        options: extract_options(config, device, workers),
        images: Vec::new(),
        opened: Opened::default(),
    };
    let probe = &config.probe;
    if let (Some(train), Some(test)) = (&probe.train_path, &probe.test_path)
        && (probe.knn_is_on() || probe.logistic_is_on() || probe.rank_is_on())
    {
        opening.labeled(train, test)?;
    }
    let rank = probe.rank_is_on().then(|| opening.rank(dataset)).transpose()?;
    let segmentation = probe.segment_is_on().then(|| opening.segmentation()).transpose()?;
    let Opening { images, options, mut opened, .. } = opening;
    if !images.is_empty() || segmentation.is_some() {
        opened.probes = Some(Probes {
            config: probe.clone(),
            images,
            rank,
            segmentation,
            fresh: config.init.from.is_none(),
            knn: KnnConfig { device, ..knn(config) },
            options,
            name: Cell::new("first"),
            said: BTreeSet::new(),
        });
    }
    Ok(opened)
}

fn extract_options(config: &RunConfig, device: Device, workers: Option<usize>) -> ExtractOptions {
    let mut options = ExtractOptions::new(probe_transform(config), normalize(&config.augment));
    (options.batch, options.device, options.workers) =
        (ExtractOptions::batch_for(device), device, workers);
    // On a GPU, extraction in single precision would be several times slower than the training.
    if device != Device::Cpu && config.train.precision == Precision::Bf16 {
        options.precision = FeaturePrecision::Bf16;
    }
    options
}

fn knn(config: &RunConfig) -> KnnConfig {
    let probe = &config.probe;
    KnnConfig { k: vec![probe.k], temperature: probe.temperature, ..KnnConfig::default() }
}

struct Opening<'a> {
    config: &'a RunConfig,
    data: DataConfig,
    options: ExtractOptions,
    images: Vec<Images>,
    opened: Opened,
}

impl Opening<'_> {
    fn set(&mut self, key: &'static str, path: &str) -> Result<Arc<Dataset>> {
        let set = open_labeled(path, &self.data).context(|| key.to_owned())?;
        self.opened.notices.extend(set.notices().sentences_about(path));
        Ok(set)
    }

    /// Opens the labeled images of k-NN and logistic regression.
    fn labeled(&mut self, train: &str, test: &str) -> Result<()> {
        let probe = &self.config.probe;
        let mut options =
            KnnOptions::new(train, test, self.options.transform, self.options.normalize.clone());
        (options.max_train, options.max_test) = (probe.max_train, probe.max_test);
        (options.device, options.precision) = (self.options.device, self.options.precision);
        options.knn = knn(self.config);
        let sets = [self.set("probe.train_path", train)?, self.set("probe.test_path", test)?];
        let task = KnnTask::new(sets, options, self.data.workers);
        let [known, asked] = task.sets();
        if probe.knn_is_on() || probe.logistic_is_on() {
            self.check(&known, &asked)?;
        }
        self.images.push(Images { key: "probe.train_path", path: train.to_owned(), set: known });
        self.images.push(Images { key: "probe.test_path", path: test.to_owned(), set: asked });
        self.opened.knn = probe.knn_is_on().then_some(task);
        Ok(())
    }

    /// Rejects labels that cannot be learned from or tested on, without reading any image.
    fn check(&mut self, train: &ImageSet, test: &ImageSet) -> Result<()> {
        let notes = check_labels(train, test).map_err(|error| {
            let key = match error {
                Error::Unlabeled { set: "test" } | Error::ClassMismatch { .. } => "probe.test_path",
                _ => "probe.train_path",
            };
            Failure::failed(format!("{key}: {error}"))
        })?;
        self.opened.notices.extend(notes.into_iter().map(|note| format!("probe: {note}")));
        let (probe, labeled) = (&self.config.probe, train.num_labeled());
        if probe.knn_is_on() && probe.k > labeled {
            self.opened.notices.push(format!(
                "probe.k is {}, but only {labeled} images of probe.train_path have labels, so all \
                 of them are neighbors",
                probe.k
            ));
        }
        if probe.logistic_is_on() && labeled < LEAST_OF_REGRESSION {
            return Err(Failure::failed(format!(
                "probe.train_path: {labeled} labeled images are too few for probe.logistic, which \
                 holds out a tenth of them: at least {LEAST_OF_REGRESSION} are needed"
            )));
        }
        Ok(())
    }

    /// Returns the index of the set whose rank is measured. A set that is already open is reused.
    fn rank(&mut self, dataset: &Arc<Dataset>) -> Result<usize> {
        let rank = &self.config.probe.rank;
        let images = match &rank.path {
            None if !self.images.is_empty() => return self.enough(0),
            None => Images {
                key: "data.path",
                path: self.config.data.describe(),
                set: ImageSet::new(Arc::clone(dataset), rank.max_images),
            },
            Some(path) => {
                let set = ImageSet::new(self.set("probe.rank.path", path)?, rank.max_images);
                let same = |other: &Images| other.path == *path && other.set.len() == set.len();
                if let Some(number) = self.images.iter().position(same) {
                    return self.enough(number);
                }
                Images { key: "probe.rank.path", path: path.clone(), set }
            }
        };
        self.images.push(images);
        self.enough(self.images.len() - 1)
    }

    /// Checks that set `number` has at least two images: the rank of one image is meaningless.
    fn enough(&self, number: usize) -> Result<usize> {
        let Images { key, path, set } = &self.images[number];
        match set.len() {
            0 | 1 => Err(Failure::failed(format!(
                "{key}: probe.rank needs at least 2 images (got {} in {path})",
                set.len()
            ))),
            _ => Ok(number),
        }
    }

    fn segmentation(&mut self) -> Result<Segmentation> {
        let segment = &self.config.probe.segment;
        let path = |path: &Option<String>| path.clone().unwrap_or_default();
        let meaning = LabelMeaning {
            preset: segment.preset.as_deref(),
            classes: segment.classes,
            ignore: &segment.ignore,
            reduce_zero_label: segment.reduce_zero_label,
            label_map: segment.label_map.as_deref().map(Path::new),
            palette: segment.palette.as_deref().map(Path::new),
        };
        let meaning = meaning.options().context(|| "probe.segment".to_owned())?;
        let Some((mut options, _)) = meaning else {
            return Err(Failure::usage("probe.segment.classes: required"));
        };
        options.pixels = self.data.pixels();
        let open = |key: &str, images: &Option<String>, labels: &Option<String>| {
            let (images, labels) = (path(images), path(labels));
            DenseSet::open(Path::new(&images), Path::new(&labels), options.clone())
                .context(|| format!("probe.segment.{key}"))
        };
        let train = open("images", &segment.images, &segment.labels)?;
        let test = open("test_images", &segment.test_images, &segment.test_labels)?;
        let used = train.len().min(segment.max_train.unwrap_or(usize::MAX));
        if used < 2 {
            return Err(Failure::failed(format!(
                "probe.segment.images: needs at least 2 images with labels, one of which is held out (got {used})"
            )));
        }
        if used > segment.memory {
            return Err(Failure::failed(format!(
                "probe.segment.memory: must be at least {used}, one patch per image of \
                 probe.segment.images (got {})",
                segment.memory
            )));
        }
        self.opened.notices.extend(train.notices().iter().chain(test.notices()).cloned());
        let mut config = PatchConfig::default();
        config.side = segment.side.unwrap_or_else(|| 2 * self.options.transform.crop);
        config.mask = MaskSize::Square(config.side);
        config.memory = segment.memory;
        // The network would round the side anyway; doing so here keeps the listed value correct.
        let patch = u32::try_from(self.config.model.patch_size).unwrap_or(1);
        let config = config.in_whole_patches(patch);
        Ok(Segmentation {
            train,
            test,
            limits: [segment.max_train, segment.max_test],
            config,
            options: self.options.clone(),
            stop: Arc::new(AtomicBool::new(false)),
        })
    }
}
