//! Tests of segmentation: against NumPy and scikit-learn (tools/parity/segmentation.py), and on
//! images with known segmentations.
#![allow(clippy::unwrap_used)] // test helpers

use std::path::{Path, PathBuf};

use data::dense::{DenseOptions, DenseSet, IGNORE, LabelRules};
use eval::nearest::{Index, Similarity};
use eval::segmentation::in_context::{IgnoredPixels, InContextConfig, Memory, soft_labels};
use eval::segmentation::knn::{Chosen, PatchConfig, TrainPatches, Votes};
use eval::segmentation::linear::{LinearConfig, LinearSegmenter, Recipe, StateFile, train};
use eval::segmentation::{
    Confusion, DenseData, DenseExtractor, DenseNetwork, Layers, MaskSize, SegmentationScore,
    Segmenter, evaluate,
};
use eval::{Error, FeaturePrecision, Frozen};
use image::{GrayImage, Luma, Rgb, RgbImage};
use model::normalize::Normalize;
use model::weights::{WeightsFile, read_safetensors};
use tch::{Device, Kind, Tensor};

fn fixture() -> WeightsFile {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    read_safetensors(&folder.join("segmentation.safetensors")).unwrap()
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    Vec::<u8>::try_from(tensor.flatten(0, -1)).unwrap()
}

#[test]
fn the_confusion_is_that_of_scikit_learn() {
    let file = fixture();
    let of = |name: &str| &file.tensors[&format!("confusion.{name}")];
    let mut confusion = Confusion::new(6);
    confusion.add(&bytes(of("truth")), &bytes(of("predicted"))).unwrap();
    for truth in 0..6 {
        for predicted in 0..6 {
            let expected = of("matrix").int64_value(&[truth, predicted]);
            assert_eq!(confusion.count(truth as usize, predicted as usize), expected);
        }
    }
    let score = confusion.score().unwrap();
    let got = [score.miou, score.mean_accuracy, score.pixel_accuracy];
    for (i, got) in (0..).zip(got) {
        assert!((got - of("scores").double_value(&[i])).abs() < 1e-12, "{got}");
    }
    assert_eq!(score.per_class[5].iou, None);
    assert_eq!((score.per_class[3].iou, score.per_class[3].accuracy), (Some(0.0), None));
}

#[test]
fn soft_labels_are_those_of_numpy() {
    let file = fixture();
    let of = |name: &str| &file.tensors[&format!("in_context.{name}")];
    let index = Index::new(of("keys"), Similarity::Cosine).unwrap();
    let got = soft_labels(&index, of("labels"), of("queries"), 30, 0.02).unwrap();
    let difference = (got.to_kind(Kind::Double) - of("soft_labels")).abs().max().double_value(&[]);
    assert!(difference < 1e-5, "{difference}");
}

#[test]
fn votes_are_those_of_numpy() {
    let file = fixture();
    let of = |name: &str| &file.tensors[&format!("knn.{name}")];
    for (name, similarity) in [("cosine", Similarity::Cosine), ("euclidean", Similarity::Euclidean)]
    {
        let votes = Votes::new(of("keys"), bytes(of("pixels")), 4, similarity).unwrap();
        let predicted = votes.predict(of("queries"), &[1, 3, 10]).unwrap();
        for (k, predicted) in [1, 3, 10].into_iter().zip(predicted) {
            assert_eq!(predicted, bytes(of(&format!("{name}.{k}"))), "{name} {k}");
        }
    }
    let two = Tensor::zeros([2, 5], (Kind::Float, Device::Cpu));
    assert!(Votes::new(&two, vec![0; 3], 4, Similarity::Cosine).is_err());
    assert!(Votes::new(&two, vec![0, 4], 4, Similarity::Cosine).is_err());
}

/// Extracts the mean color of each patch of 4 x 4 pixels.
struct MeanColor;

impl DenseExtractor for MeanColor {
    fn maps(&self, images: &Tensor, _: Layers, _: bool) -> eval::Result<Tensor> {
        Ok(images.avg_pool2d([4, 4], [4, 4], [0, 0], false, true, None))
    }

    fn patch_size(&self) -> u32 {
        4
    }
}

/// Extracts features that are not finite.
struct Broken;

impl DenseExtractor for Broken {
    fn maps(&self, images: &Tensor, layers: Layers, class: bool) -> eval::Result<Tensor> {
        Ok(MeanColor.maps(images, layers, class)? * f64::NAN)
    }

    fn patch_size(&self) -> u32 {
        4
    }
}

fn network<'a>(extractor: &'a dyn DenseExtractor, normalize: &'a Normalize) -> DenseNetwork<'a> {
    let (device, precision) = (Device::Cpu, FeaturePrecision::Fp32);
    let frozen = Frozen { network: extractor, normalize, device, precision };
    DenseNetwork { frozen, layers: Layers::Last(1), class_token: false }
}

fn normalize() -> Normalize {
    Normalize { mean: vec![0.5; 3], std: vec![0.25; 3] }
}

/// Writes images of various sizes, whose left part is red, right part blue, and lower part green
/// (classes 0, 1, and 2). A column is ignored and has the color of another class.
fn colored_folder(folder: &Path, count: u32) -> DenseSet {
    let (images, labels) = (folder.join("images"), folder.join("labels"));
    std::fs::create_dir_all(&images).unwrap();
    std::fs::create_dir_all(&labels).unwrap();
    for i in 0..count {
        let (width, height) = (64 + 16 * (i % 3), 48 + 8 * (i % 2));
        let split = 16 + 8 * (i % 4);
        let class = |x, y| if y >= 32 { 2 } else { u8::from(x >= split) };
        let colors = [Rgb([200, 20, 30]), Rgb([10, 40, 220]), Rgb([30, 180, 60])];
        RgbImage::from_fn(width, height, |x, y| match x {
            0..4 => colors[(usize::from(class(x, y)) + 1) % 3],
            _ => colors[usize::from(class(x, y))],
        })
        .save(images.join(format!("{i}.png")))
        .unwrap();
        GrayImage::from_fn(width, height, |x, y| Luma([if x < 4 { 255 } else { class(x, y) }]))
            .save(labels.join(format!("{i}.png")))
            .unwrap();
    }
    let options = DenseOptions::new(LabelRules::numbered(3, &[255]).unwrap());
    DenseSet::open(&images, &labels, options).unwrap()
}

fn data(set: &DenseSet) -> DenseData<'_> {
    DenseData { set, limit: None, workers: Some(2) }
}

fn scored(segmenter: &dyn Segmenter, set: &DenseSet, mask: MaskSize) -> SegmentationScore {
    let mut count = 0;
    let evaluated = evaluate(&data(set), segmenter, mask, &mut |_, sample, predicted| {
        count += 1;
        assert_eq!(predicted.len(), sample.labels.ids.len());
        Ok(())
    });
    let evaluated = evaluated.unwrap();
    assert_eq!((evaluated.images, count), (set.len(), set.len()));
    evaluated.confusion.score().unwrap()
}

#[test]
fn in_context_finds_what_looks_alike() {
    let folder = tempfile::tempdir().unwrap();
    let set = colored_folder(folder.path(), 6);
    let normalize = normalize();
    let mut config = InContextConfig::default();
    (config.side, config.k) = (64, 5);
    let network = network(&MeanColor, &normalize);
    let memory = Memory::new(network, &data(&set), &config, &mut |_, _| ()).unwrap();
    // Patches with only ignored pixels are not in memory: one column of patches of each of the two
    // images that are not narrowed.
    assert_eq!((memory.images, memory.len()), (6, 6 * 16 * 16 - 2 * 16));
    let score = scored(&memory, &set, MaskSize::Original);
    assert!(score.miou > 0.85, "{score:?}");
    config.memory = 6 * 20;
    let bounded = Memory::new(network, &data(&set), &config, &mut |_, _| ()).unwrap();
    assert_eq!(bounded.len(), 120);
    assert!(scored(&bounded, &set, MaskSize::Square(64)).miou > 0.8);
    // If ignored pixels count as class 0, the wrongly colored column spoils the result.
    (config.memory, config.ignored) = (1 << 20, IgnoredPixels::ClassZero);
    let quirk = Memory::new(network, &data(&set), &config, &mut |_, _| ()).unwrap();
    assert_eq!(quirk.len(), 6 * 16 * 16);
    assert!(scored(&quirk, &set, MaskSize::Original).miou < score.miou);
    config.memory = 5;
    let error = Memory::new(network, &data(&set), &config, &mut |_, _| ()).unwrap_err();
    assert!(matches!(error, Error::Setting { key: "memory", .. }), "{error}");
}

#[test]
fn random_views_share_the_memory() {
    let folder = tempfile::tempdir().unwrap();
    let set = colored_folder(folder.path(), 6);
    let normalize = normalize();
    let network = network(&MeanColor, &normalize);
    let mut config = InContextConfig::default();
    (config.side, config.k, config.augmented) = (64, 5, 3);
    let memory = |config: &InContextConfig, workers| {
        let data = DenseData { workers: Some(workers), ..data(&set) };
        let mut last = (0, 0);
        let memory = Memory::new(network, &data, config, &mut |done, total| {
            assert_eq!(done, last.0 + 1);
            last = (done, total);
        });
        memory.map(|memory| (memory, last))
    };
    let (all, last) = memory(&config, 2).unwrap();
    assert_eq!((all.images, last), (6, (18, 18)));
    // Nearly all patches of the three views of each image have a label.
    assert!((17 * 256..=18 * 256).contains(&all.len()), "{}", all.len());
    assert!(scored(&all, &set, MaskSize::Original).miou > 0.85);
    // The result depends on the seed, but not on the number of threads.
    let queries = Tensor::from_slice(&[1f32, -2.0, 0.5, 0.1, -1.0, 1.5]).view([2, 3]);
    let soft = |config: &InContextConfig, workers| {
        memory(config, workers).unwrap().0.soft_labels(&queries).unwrap()
    };
    config.temperature = 5.0; // so that all neighbors count
    config.k = 2000;
    assert_eq!(soft(&config, 1), soft(&config, 4));
    let mut other = config.clone();
    other.seed = 1;
    assert_ne!(soft(&other, 1), soft(&config, 1));
    // The bound applies to all views together.
    config.memory = 18 * 20;
    assert_eq!(memory(&config, 2).unwrap().0.len(), 360);
    config.memory = 17;
    let error = memory(&config, 2).unwrap_err();
    assert!(error.to_string().contains("each of the 3 views of each of the 6"), "{error}");
}

#[test]
fn patches_vote_and_are_regressed() {
    let folder = tempfile::tempdir().unwrap();
    let set = colored_folder(folder.path(), 10);
    let normalize = normalize();
    let mut config = PatchConfig::default();
    (config.side, config.mask) = (64, MaskSize::Square(64));
    config.c = vec![1e-6, 1.0, 100.0];
    let patches =
        TrainPatches::new(network(&MeanColor, &normalize), &data(&set), &config, &mut |_, _| ())
            .unwrap();
    assert_eq!((patches.images, patches.len()), (10, 10 * 16 * 16 - 4 * 16));
    let (knn, candidates) = patches.knn().unwrap();
    assert_eq!(candidates.len(), 8);
    assert!(matches!(knn.settings(), Chosen::Knn(_)));
    let score = scored(&knn, &set, MaskSize::Square(64));
    assert!(score.miou > 0.93, "{score:?}");
    let (logistic, candidates) = patches.logistic().unwrap();
    assert!(candidates[0].miou < candidates[2].miou, "{candidates:?}");
    let score = scored(&logistic, &set, MaskSize::Original);
    assert!(score.miou > 0.85, "{score:?}");
}

/// This also holds if the broken image is among those held out to choose the settings.
#[test]
fn a_broken_image_costs_patches_only_itself() {
    let folder = tempfile::tempdir().unwrap();
    let set = colored_folder(folder.path(), 4);
    let normalize = normalize();
    let mut config = PatchConfig::default();
    (config.side, config.mask, config.c) = (32, MaskSize::Square(32), vec![1.0]);
    for index in 0..4 {
        let path = set.path().join(set.name(index));
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, b"no picture").unwrap();
        let network = network(&MeanColor, &normalize);
        let patches = TrainPatches::new(network, &data(&set), &config, &mut |_, _| ()).unwrap();
        let broken: Vec<usize> = patches.broken.iter().map(|image| image.index).collect();
        assert_eq!((patches.images, broken), (3, vec![index]));
        assert!(patches.knn().unwrap().1.iter().all(|one| one.miou > 0.5), "image {index}");
        std::fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn all_recipes_learn_three_colors() {
    let folder = tempfile::tempdir().unwrap();
    let set = colored_folder(folder.path(), 6);
    let normalize = normalize();
    for (name, recipe) in Recipe::ALL {
        let mut config = LinearConfig::of(recipe).with_iterations(60).with_crop(48);
        (config.batch, config.lr, config.test_scales) = (4, 0.1, vec![1.0, 1.5]);
        let network = DenseNetwork { layers: config.layers, ..network(&MeanColor, &normalize) };
        for cached in [false, true] {
            config.cached = cached;
            let (head, report) =
                train(network, &data(&set), &config, None, &mut |_, _| ()).unwrap();
            assert_eq!((report.images, report.broken.len()), (6, 0));
            let segmenter = LinearSegmenter { network, head, config: config.clone() };
            let score = scored(&segmenter, &set, MaskSize::Original);
            assert!(score.miou > 0.8, "{name} cached {cached}: {:?} {score:?}", report.loss);
        }
    }
}

#[test]
fn an_interrupted_training_gives_the_same_head() {
    let folder = tempfile::tempdir().unwrap();
    let set = colored_folder(folder.path(), 5);
    let normalize = normalize();
    let network = network(&MeanColor, &normalize);
    let mut config = LinearConfig::of(Recipe::Dinov3).with_iterations(12).with_crop(32);
    (config.batch, config.dropout) = (2, 0.5);
    let run = |name: &str, stop: Option<u64>| -> eval::Result<(Vec<u8>, u64)> {
        let mut state =
            StateFile::in_folder(&folder.path().join(name), "n", &network, &data(&set), &config)?;
        state.every = 5;
        let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            train(network, &data(&set), &config, Some(&state), &mut |done, _| {
                assert!(Some(done) != stop, "stopped here");
            })
        }));
        let Ok(trained) = stopped else { return Ok((Vec::new(), 0)) };
        let resumed_at = trained?.1.resumed_at;
        Ok((std::fs::read(&state.path).unwrap(), resumed_at))
    };
    let whole = run("whole", None).unwrap();
    assert_eq!(run("parts", Some(8)).unwrap(), (Vec::new(), 0));
    let parts = run("parts", None).unwrap();
    assert_eq!((whole.1, parts.1), (0, 5));
    assert!(whole.0 == parts.0, "the heads differ");
    // A completed training is not repeated.
    assert_eq!(run("parts", None).unwrap().1, 12);
    let parts = folder.path().join("parts");
    let file = |of: &DenseNetwork<'_>| StateFile::in_folder(&parts, "n", of, &data(&set), &config);
    let state = file(&network).unwrap();
    let (_, report) = train(network, &data(&set), &config, Some(&state), &mut |_, _| ()).unwrap();
    assert_eq!((report.resumed_at, report.loss), (12, None));
    // Other features get their own file.
    let mut other = network;
    other.frozen.precision = FeaturePrecision::Bf16;
    assert_ne!(file(&other).unwrap().path, state.path);
    // A file of other settings with this name is refused.
    let other = StateFile { identity: "other".to_owned(), ..state };
    let error = train(network, &data(&set), &config, Some(&other), &mut |_, _| ()).unwrap_err();
    assert!(error.to_string().contains("delete it"), "{error}");
}

#[test]
fn broken_images_are_left_out_and_named() {
    let folder = tempfile::tempdir().unwrap();
    colored_folder(folder.path(), 6);
    std::fs::write(folder.path().join("images/1.png"), "no image").unwrap();
    GrayImage::from_pixel(5, 5, Luma([0])).save(folder.path().join("labels/3.png")).unwrap();
    let options = DenseOptions::new(LabelRules::numbered(3, &[255]).unwrap());
    let set = DenseSet::open(&folder.path().join("images"), &folder.path().join("labels"), options)
        .unwrap();
    let normalize = normalize();
    let network = network(&MeanColor, &normalize);
    let mut config = InContextConfig::default();
    (config.side, config.k) = (64, 5);
    let memory = Memory::new(network, &data(&set), &config, &mut |_, _| ()).unwrap();
    let names: Vec<&str> = memory.broken.iter().map(|broken| broken.name.as_str()).collect();
    assert_eq!((memory.images, names), (4, vec!["1.png", "3.png"]));
    assert!(memory.broken[1].reason.contains("labels/3.png"), "{}", memory.broken[1].reason);
    let evaluated =
        evaluate(&data(&set), &memory, MaskSize::Original, &mut |_, _, _| Ok(())).unwrap();
    assert_eq!((evaluated.images, evaluated.broken.len()), (4, 2));
    for cached in [false, true] {
        let mut config = LinearConfig::of(Recipe::Dinov3).with_iterations(6).with_crop(32);
        (config.batch, config.cached) = (4, cached);
        let (_, report) = train(network, &data(&set), &config, None, &mut |_, _| ()).unwrap();
        assert_eq!((report.images, report.broken.len()), (4, 2), "cached {cached}");
    }
    for i in 0..6 {
        std::fs::write(folder.path().join(format!("images/{i}.png")), "no image").unwrap();
    }
    let error = Memory::new(network, &data(&set), &config, &mut |_, _| ()).unwrap_err();
    assert!(matches!(error, Error::NoImages { asked: 6, .. }), "{error}");
    let config = LinearConfig::of(Recipe::Dinov3).with_crop(32);
    let error = train(network, &data(&set), &config, None, &mut |_, _| ()).unwrap_err();
    assert!(matches!(error, Error::NoImages { asked: 6, .. }), "{error}");
}

#[test]
fn images_without_a_label_and_broken_features_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let set = colored_folder(folder.path(), 3);
    let normalize = normalize();
    let mut config = InContextConfig::default();
    config.side = 32;
    let broken = Memory::new(network(&Broken, &normalize), &data(&set), &config, &mut |_, _| ());
    assert!(matches!(broken, Err(Error::PatchesNotFinite { set: "training", .. })));
    for i in 0..3 {
        let path = folder.path().join(format!("labels/{i}.png"));
        let (width, height) = image::image_dimensions(&path).unwrap();
        GrayImage::from_pixel(width, height, Luma([IGNORE])).save(path).unwrap();
    }
    let network = network(&MeanColor, &normalize);
    let nothing = Memory::new(network, &data(&set), &config, &mut |_, _| ());
    assert!(matches!(nothing, Err(Error::NothingLabeled)));
    let config = LinearConfig::of(Recipe::Dinov3).with_iterations(2).with_crop(32);
    let nothing = train(network, &data(&set), &config, None, &mut |_, _| ());
    assert!(matches!(nothing, Err(Error::NothingLabeled)));
    let nothing = TrainPatches::new(network, &data(&set), &PatchConfig::default(), &mut |_, _| ());
    assert!(matches!(nothing, Err(Error::NothingLabeled)));
}
