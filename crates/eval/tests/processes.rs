//! Tests that evaluations shared by several processes equal those of one process, and fail in all
//! processes if they fail in one. They run over Gloo, with real processes.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../torch-ext/tests/support/processes.rs"]
mod processes;

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use augment::EvalTransform;
use data::dense::{DenseOptions, DenseSet, LabelRules};
use data::loader::BrokenImage;
use data::{DataConfig, Dataset, SyntheticConfig};
use eval::baseline::PixelOptions;
use eval::logistic::{LogisticConfig, logistic, logistic_shared};
use eval::segmentation::knn::{PatchConfig, TrainPatches};
use eval::segmentation::{
    DenseData, DenseExtractor, DenseNetwork, Layers, MaskSize, evaluate, evaluate_shared,
};
use eval::{
    Error, ExtractOptions, FeatureExtractor, FeaturePrecision, FeatureSet, Frozen, ImageSet,
    KnnConfig, check_labels, knn, knn_shared, open_labeled, pixels_shared,
};
use image::{GrayImage, Luma, Rgb, RgbImage};
use model::normalize::Normalize;
use processes::{all_pass, rendezvous};
use tch::{Device, Tensor};
use torch_ext::{Collective, ProcessGroup, SingleProcess};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Extracts the mean of each channel in four bands of the image.
struct Bands;

fn bands(images: &Tensor) -> Tensor {
    images.adaptive_avg_pool2d([4, 1]).flatten(1, -1)
}

impl FeatureExtractor for Bands {
    fn features(&self, images: &Tensor) -> eval::Result<Tensor> {
        Ok(bands(images))
    }
}

/// Like [`Bands`], but fails after this number of batches.
struct Fails(Cell<usize>);

impl FeatureExtractor for Fails {
    fn features(&self, images: &Tensor) -> eval::Result<Tensor> {
        match self.0.replace(self.0.get().saturating_sub(1)) {
            0 => Err(Error::NothingLabeled),
            _ => Ok(bands(images)),
        }
    }
}

fn normalize() -> Normalize {
    Normalize { mean: vec![0.5; 3], std: vec![0.25; 3] }
}

fn options() -> ExtractOptions {
    let mut options = ExtractOptions::new(EvalTransform::for_crop(32), normalize());
    (options.batch, options.workers) = (4, Some(1));
    options
}

/// Writes 31 synthetic images and a broken one.
fn drawn(folder: &Path) -> Arc<Dataset> {
    let config = SyntheticConfig { count: 31, size: 32, seed: 3 };
    data::synthetic::write_folder(&config, folder, |_| ()).unwrap();
    let images = folder.join("images");
    let class = std::fs::read_dir(&images).unwrap().map(|entry| entry.unwrap().path()).min();
    std::fs::write(class.unwrap().join("z.png"), b"no picture").unwrap();
    open_labeled(images.to_str().unwrap(), &DataConfig::default()).unwrap()
}

fn same(a: &FeatureSet, b: &FeatureSet) {
    assert!(a.features.allclose(&b.features, 1e-6, 1e-7, false));
    assert_eq!((&a.labels, &a.class_names), (&b.labels, &b.class_names));
    assert_eq!(a.broken, b.broken);
}

#[test]
fn what_is_shared_is_what_one_process_computes() {
    for size in [2, 3] {
        all_pass("share_labeled_images", size);
        all_pass("share_segmentation", size);
    }
}

#[test]
fn a_failure_of_one_process_is_one_of_all() {
    all_pass("fail_in_the_last_process", 2);
}

#[test]
#[ignore = "the body of a process"]
fn share_labeled_images() {
    let group = ProcessGroup::join(rendezvous(TIMEOUT)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let dataset = drawn(folder.path());
    let (train, test) =
        (ImageSet::new(Arc::clone(&dataset), None), ImageSet::new(dataset, Some(20)));
    assert_eq!((train.len(), test.len(), test.num_labeled()), (32, 20, 20));
    assert!(check_labels(&train, &test).unwrap().is_empty());
    let of = |processes: &dyn Collective| {
        [&train, &test].map(|set| set.features(&Bands, &options(), processes).unwrap())
    };
    let (alone, shared) = (of(&SingleProcess), of(&group));
    alone.iter().zip(&shared).for_each(|(alone, shared)| same(alone, shared));
    assert_eq!(shared[0].broken.len(), 1, "every process knows the broken image");

    // No image of the first process is readable.
    let other = tempfile::tempdir().unwrap();
    let dataset = drawn(other.path());
    let path = other.path().join("images");
    (0..16).for_each(|index| std::fs::write(path.join(dataset.name(index)), b"").unwrap());
    let half = ImageSet::new(dataset, None);
    let of = |processes: &dyn Collective| half.features(&Bands, &options(), processes).unwrap();
    let set = of(&group);
    same(&of(&SingleProcess), &set);
    assert!((16..18).contains(&set.broken.len()) && set.len() + set.broken.len() == 32);

    let [train_set, test_set] = &alone;
    let config = KnnConfig { k: vec![3, 100], ..KnnConfig::default() };
    let expected = knn(train_set, test_set, &config).unwrap();
    assert_eq!(knn_shared(train_set, test_set, &config, &group).unwrap(), expected);
    // Fewer images than processes.
    let one = FeatureSet::new(test_set.features.narrow(0, 0, 1), test_set.labels[..1].to_vec());
    let known = FeatureSet::new(train_set.features.copy(), train_set.labels.clone());
    let expected = knn(&known, &one, &config).unwrap();
    assert_eq!(knn_shared(&known, &one, &config, &group).unwrap(), expected);

    let config = LogisticConfig::coarse();
    let expected = logistic(train_set, test_set, &config).unwrap();
    let shared = logistic_shared(train_set, test_set, &config, &group).unwrap();
    assert_eq!((shared.top1, shared.c), (expected.top1, expected.c));
    assert_eq!(shared.held_out_top1.len(), config.c.len());

    let pixels = |processes: &dyn Collective| {
        pixels_shared([&train, &test], &PixelOptions::default(), processes).unwrap()
    };
    for (alone, shared) in pixels(&SingleProcess).iter().zip(&pixels(&group)) {
        same(alone, shared);
    }
}

#[test]
#[ignore = "the body of a process"]
fn fail_in_the_last_process() {
    let group = ProcessGroup::join(rendezvous(TIMEOUT)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let set = ImageSet::new(drawn(folder.path()), None);
    let batches = if group.rank() == 1 { 1 } else { 100 };
    let error = set.features(&Fails(Cell::new(batches)), &options(), &group).unwrap_err();
    match group.rank() {
        1 => assert!(matches!(error, Error::NothingLabeled), "{error}"),
        _ => assert!(matches!(error, Error::Elsewhere), "{error}"),
    }
    // The processes are still in sync.
    assert_eq!(group.all_gather_text("x").unwrap().len(), 2);
    // A set without labels is an error in every process.
    let features = set.features(&Bands, &options(), &group).unwrap();
    let unlabeled = FeatureSet::new(features.features.copy(), vec![None; features.len()]);
    let error = knn_shared(&unlabeled, &features, &KnnConfig::default(), &group).unwrap_err();
    assert!(matches!(error, Error::Unlabeled { set: "training" }), "{error}");
    assert_eq!(group.all_gather_text("x").unwrap().len(), 2);
}

/// Extracts the mean color of each patch of 8 x 8 pixels.
struct Colors;

impl DenseExtractor for Colors {
    fn maps(&self, images: &Tensor, _: Layers, _: bool) -> eval::Result<Tensor> {
        Ok(images.avg_pool2d([8, 8], [8, 8], [0, 0], false, true, None))
    }

    fn patch_size(&self) -> u32 {
        8
    }
}

/// Writes images of 24 x 24 pixels with a bright part at the top, and dark and green columns below;
/// one is broken.
fn scenes(folder: &Path, count: u32) -> DenseSet {
    let [images, labels] = ["images", "labels"].map(|kind| folder.join(kind));
    [&images, &labels].into_iter().for_each(|path| std::fs::create_dir_all(path).unwrap());
    for i in 0..count {
        let class = |x: u32, y: u32| match (x + i, y) {
            (_, y) if y < 5 + i => 0,
            (x, _) if x % 17 < 9 => 1,
            _ => 2,
        };
        let color = |x, y| [[230, 220, 210], [30, 20, 40], [20, 90, 30]][class(x, y) as usize];
        let image = RgbImage::from_fn(24, 24, |x, y| Rgb(color(x, y)));
        image.save(images.join(format!("{i}.png"))).unwrap();
        let classes = GrayImage::from_fn(24, 24, |x, y| Luma([class(x, y)]));
        classes.save(labels.join(format!("{i}.png"))).unwrap();
    }
    std::fs::write(images.join("1.png"), b"no picture").unwrap();
    let rules = LabelRules::numbered(3, &[255]).unwrap();
    DenseSet::open(&images, &labels, DenseOptions::new(rules)).unwrap()
}

#[test]
#[ignore = "the body of a process"]
fn share_segmentation() {
    let group = ProcessGroup::join(rendezvous(TIMEOUT)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (train, test) = (scenes(&folder.path().join("a"), 7), scenes(&folder.path().join("b"), 2));
    let data = |set| DenseData { set, limit: None, workers: Some(1) };
    let (train, test) = (data(&train), data(&test));
    let normalize = normalize();
    let network: &dyn DenseExtractor = &Colors;
    let (device, precision) = (Device::Cpu, FeaturePrecision::Fp32);
    let frozen = Frozen { network, normalize: &normalize, device, precision };
    let network = DenseNetwork { frozen, layers: Layers::Last(1), class_token: false };
    let mut config = PatchConfig::default();
    (config.side, config.mask, config.held_out) = (24, MaskSize::Square(24), 0.3);
    config.k = vec![1, 3];

    let alone = TrainPatches::new(network, &train, &config, &mut |_, _| ()).unwrap();
    let (segmenter, candidates) = alone.knn().unwrap();
    let expected = evaluate(&test, &segmenter, config.mask, &mut |_, _, _| Ok(())).unwrap();
    let shared = TrainPatches::shared(network, &train, &config, &group, &mut |_, _| ()).unwrap();
    assert_eq!((shared.len(), shared.images), (alone.len(), 6));
    // Each process writes its images to its own folder, so only names can be compared.
    let names = |broken: &[BrokenImage]| broken.iter().map(|b| b.name.clone()).collect::<Vec<_>>();
    assert_eq!(
        (names(&shared.broken), names(&alone.broken)),
        (vec!["1.png".into()], vec!["1.png".into()])
    );
    let (segmenter, shared_candidates) = shared.knn_shared(&group).unwrap();
    assert_eq!(shared_candidates, candidates);
    let got = evaluate_shared(&test, &segmenter, config.mask, &group).unwrap();
    assert_eq!((&got.confusion, got.images), (&expected.confusion, 1));
    assert_eq!(names(&got.broken), names(&expected.broken));
    assert!(got.confusion.score().unwrap().miou > 0.3);
    // The held-out images of this process alone could lead to another choice.
    assert!(matches!(shared.knn(), Err(Error::Setting { key: "processes", .. })));
    assert!(matches!(shared.logistic(), Err(Error::Setting { key: "processes", .. })));
}
