//! Tests of depth estimation: errors against NumPy (tools/parity/depth.py), and training on drawn
//! scenes with known depth.
#![allow(clippy::unwrap_used)] // test helpers

use std::path::{Path, PathBuf};

use data::dense::{DepthMap, DepthOptions, DepthSet};
use eval::depth::{
    DepthConfig, DepthData, DepthHead, Errors, Estimator, LinearEstimator, MeanMap, Scored,
    evaluate, state_file, train,
};
use eval::segmentation::{DenseExtractor, DenseNetwork, Layers};
use eval::{Error, FeaturePrecision, Frozen};
use image::{ImageBuffer, Luma, Rgb, RgbImage};
use model::normalize::Normalize;
use model::weights::read_safetensors;
use tch::{Device, Kind, Tensor};

fn map(tensor: &Tensor) -> DepthMap {
    let (height, width) = tensor.size2().unwrap();
    let meters = Vec::<f32>::try_from(tensor.flatten(0, -1)).unwrap();
    DepthMap { width: width as u32, height: height as u32, meters }
}

#[test]
fn errors_are_those_of_numpy() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/depth.safetensors");
    let file = read_safetensors(&path).unwrap();
    let of = |name: &str| &file.tensors[&format!("errors.{name}")];
    let (config, mut errors) = (DepthConfig::default(), Errors::default());
    let near = |got: f64, expected: f64| assert!((got - expected).abs() < 1e-7, "{got} {expected}");
    for i in 0..3 {
        let predicted = map(&of("predicted").get(i)).meters;
        let score = errors.add(&predicted, &map(&of("truth").get(i)), &config).unwrap().unwrap();
        for (k, (_, got)) in (0..).zip(score.named()) {
            near(got, of("images").double_value(&[i, k]));
        }
    }
    for (k, (_, got)) in (0..).zip(errors.mean(&config).unwrap().named()) {
        near(got, of("mean").double_value(&[k]));
    }
}

#[test]
fn errors_by_hand_and_what_is_not_scored() {
    let mut config = DepthConfig::default();
    let truth = |meters: Vec<f32>| DepthMap { width: meters.len() as u32, height: 1, meters };
    let mut errors = Errors::default();
    // Predictions that are twice as deep, exact, without measured truth, and for a truth that is
    // too far.
    let of_image = errors.add(&[4.0, 3.0, 9.0, 1.0], &truth(vec![2.0, 3.0, 0.0, 11.0]), &config);
    let score = of_image.unwrap().unwrap();
    assert_eq!((score.within, score.abs_rel), ([0.5, 0.5, 0.5], 0.5));
    assert!(
        (score.rmse - 2f64.sqrt()).abs() < 1e-12
            && (score.log10 - 2f64.log10() / 2.0).abs() < 1e-12
    );
    // A common factor causes no scale-invariant error.
    let of_image = errors.add(&[2.0, 4.0, 8.0], &truth(vec![1.0, 2.0, 4.0]), &config);
    let score = of_image.unwrap().unwrap();
    assert!(score.silog < 1e-7 && (score.rmse_log - 2f64.ln()).abs() < 1e-7, "{score:?}");
    // Means are over images, not over pixels, of which two and three are scored. An image without a
    // score changes nothing.
    assert!((errors.mean(&config).unwrap().abs_rel - 0.75).abs() < 1e-12);
    assert!(errors.add(&[1.0], &truth(vec![0.0]), &config).unwrap().is_none());
    assert!((errors.mean(&config).unwrap().abs_rel - 0.75).abs() < 1e-12);
    // Infinite predictions are clamped, and NaN is an error.
    assert_eq!(
        errors.add(&[f32::INFINITY], &truth(vec![5.0]), &config).unwrap().unwrap().rmse,
        5.0
    );
    let nan = errors.add(&[f32::NAN], &truth(vec![5.0]), &config);
    assert!(matches!(nan, Err(Error::DepthNotFinite)));
    assert!(matches!(
        errors.add(&[1.0], &truth(vec![1.0, 2.0]), &config),
        Err(Error::Shape { .. })
    ));
    assert!(matches!(Errors::default().mean(&config), Err(Error::NoDepths { .. })));
    // Eigen's crop: the pixels at its corners count, and those just outside do not.
    config.scored = Scored::Nyu;
    let mut nyu = DepthMap { width: 640, height: 480, meters: vec![0.0; 640 * 480] };
    nyu.meters[45 * 640 + 41] = 1.0;
    nyu.meters[45 * 640 + 40] = 9.0;
    nyu.meters[470 * 640 + 600] = 1.0;
    nyu.meters[471 * 640 + 600] = 9.0;
    let score = errors.add(&vec![1.0; 640 * 480], &nyu, &config).unwrap().unwrap();
    assert_eq!(score.rmse, 0.0);
    let error = errors.add(&[1.0], &truth(vec![1.0]), &config).unwrap_err();
    assert!(error.to_string().contains("640x480"), "{error}");
    // Garg's crop: rows 40 to 98 and columns 3 to 95 of 100.
    config.scored = Scored::Garg;
    let mut wide = DepthMap { width: 100, height: 100, meters: vec![0.0; 10_000] };
    for (y, x) in [(40, 3), (98, 95)] {
        wide.meters[y * 100 + x] = 1.0;
    }
    for (y, x) in [(39, 3), (40, 2), (99, 95), (98, 96)] {
        wide.meters[y * 100 + x] = 9.0;
    }
    let score = errors.add(&[1.0; 10_000], &wide, &config).unwrap().unwrap();
    assert_eq!(score.rmse, 0.0);
}

/// Extracts the mean color of each patch of 4 x 4 pixels, and that of the whole image as the class
/// token.
struct MeanColor;

impl DenseExtractor for MeanColor {
    fn maps(&self, images: &Tensor, _: Layers, class_token: bool) -> eval::Result<Tensor> {
        let maps = images.avg_pool2d([4, 4], [4, 4], [0, 0], false, true, None);
        let whole = maps.mean_dim([2, 3].as_slice(), true, Kind::Float).expand_as(&maps);
        Ok(if class_token { Tensor::cat(&[maps, whole], 1) } else { maps })
    }

    fn patch_size(&self) -> u32 {
        4
    }
}

fn network<'a>(extractor: &'a dyn DenseExtractor, normalize: &'a Normalize) -> DenseNetwork<'a> {
    let (device, precision) = (Device::Cpu, FeaturePrecision::Fp32);
    let frozen = Frozen { network: extractor, normalize, device, precision };
    DenseNetwork { frozen, layers: Layers::Last(1), class_token: true }
}

fn normalize() -> Normalize {
    Normalize { mean: vec![0.5; 3], std: vec![0.25; 3] }
}

/// Writes scenes of a box in front of a wall. Nearer pixels are brighter, and one column is not
/// measured.
fn scenes(folder: &Path, count: u32) -> DepthSet {
    let (images, maps) = (folder.join("images"), folder.join("depth"));
    [&images, &maps].iter().for_each(|path| std::fs::create_dir_all(path).unwrap());
    for i in 0..count {
        let (width, height) = (62, 50);
        let wall = 4.0 + f64::from(i % 3);
        let depth = |x: u32, y: u32| {
            let inside = (10 + 5 * (i % 5)..34 + 5 * (i % 5)).contains(&x) && (12..40).contains(&y);
            if inside { 1.0 + 0.5 * f64::from(i % 4) } else { wall + 0.02 * f64::from(y) }
        };
        RgbImage::from_fn(width, height, |x, y| {
            let bright = (255.0 * (1.0 - depth(x, y) / 9.0)) as u8;
            Rgb([bright, 128, bright])
        })
        .save(images.join(format!("{i}.png")))
        .unwrap();
        ImageBuffer::<Luma<u16>, Vec<u16>>::from_fn(width, height, |x, y| {
            Luma([if x == 3 { 0 } else { (1000.0 * depth(x, y)) as u16 }])
        })
        .save(maps.join(format!("{i}.png")))
        .unwrap();
    }
    DepthSet::open(&images, &maps, DepthOptions::new(1000.0).unwrap()).unwrap()
}

fn data(set: &DepthSet) -> DepthData<'_> {
    DepthData { set, limit: None, workers: Some(2) }
}

fn short() -> DepthConfig {
    let mut config = DepthConfig::default().with_iterations(300);
    (config.batch, config.crop, config.lr, config.bins) = (4, [40, 48], 0.05, 64);
    config
}

#[test]
fn a_head_learns_what_brightness_tells() {
    let folder = tempfile::tempdir().unwrap();
    let set = scenes(folder.path(), 12);
    let normalize = normalize();
    let (network, config) = (network(&MeanColor, &normalize), short());
    let (head, report) = train(network, &data(&set), &config, None, &mut |_, _| ()).unwrap();
    assert_eq!((report.images, report.broken.len()), (12, 0));
    let of =
        |estimator: &dyn Estimator| evaluate(&data(&set), estimator, &config, &mut || ()).unwrap();
    let mean = of(&MeanMap::new(&data(&set), &config).unwrap());
    let mut learned = LinearEstimator { network, head, config: config.clone() };
    let flipped = of(&learned);
    assert!(flipped.score.abs_rel < 0.2 && flipped.score.within[0] > 0.8, "{flipped:?}");
    assert!(mean.score.abs_rel > 1.5 * flipped.score.abs_rel, "{mean:?} {flipped:?}");
    assert_eq!((flipped.images, flipped.broken.len()), (12, 0));
    learned.config.test_flip = false;
    let once = of(&learned);
    assert!((once.score.abs_rel - flipped.score.abs_rel).abs() < 0.05, "{once:?}");
    assert_ne!(once.score, flipped.score);
    // A prediction has the size of the image, even if that is not a multiple of the patch size.
    let image = set.load(0).unwrap().image;
    assert_eq!(learned.depths(&image).unwrap().len(), 62 * 50);
}

#[test]
fn the_mean_map_of_one_image_is_that_image_in_cells() {
    let folder = tempfile::tempdir().unwrap();
    let set = scenes(folder.path(), 1);
    let map = MeanMap::new(&data(&set), &short()).unwrap();
    let score = evaluate(&data(&set), &map, &short(), &mut || ()).unwrap().score;
    assert!(score.abs_rel < 0.1, "{score:?}");
}

#[test]
fn an_interrupted_training_gives_the_same_head() {
    let folder = tempfile::tempdir().unwrap();
    let set = scenes(folder.path(), 5);
    let normalize = normalize();
    let network = network(&MeanColor, &normalize);
    let mut config = short().with_iterations(12);
    config.batch = 2;
    let run = |name: &str, workers, stop: Option<u64>| -> eval::Result<(Vec<u8>, u64)> {
        let data = DepthData { workers: Some(workers), ..data(&set) };
        let mut state = state_file(&folder.path().join(name), "n", &network, &data, &config)?;
        state.every = 5;
        let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            train(network, &data, &config, Some(&state), &mut |done, _| {
                assert!(Some(done) != stop, "stopped here");
            })
        }));
        let Ok(trained) = stopped else { return Ok((Vec::new(), 0)) };
        let resumed_at = trained?.1.resumed_at;
        Ok((std::fs::read(&state.path).unwrap(), resumed_at))
    };
    let whole = run("whole", 1, None).unwrap();
    assert_eq!(run("parts", 3, Some(8)).unwrap(), (Vec::new(), 0));
    let parts = run("parts", 3, None).unwrap();
    assert_eq!((whole.1, parts.1), (0, 5));
    assert!(whole.0 == parts.0, "the heads differ");
    assert_eq!(run("parts", 2, None).unwrap().1, 12);
    // Learning nothing after resuming is not an error, because steps were taken before.
    let parts = folder.path().join("parts");
    let state = state_file(&parts, "n", &network, &data(&set), &config).unwrap();
    let mut longer = config.clone().with_iterations(13);
    longer.max_depth = 0.5;
    train(network, &data(&set), &longer, Some(&state), &mut |_, _| ()).unwrap();
    let error = train(network, &data(&set), &longer, None, &mut |_, _| ()).unwrap_err();
    assert!(matches!(error, Error::NoDepths { .. }), "{error}");
}

#[test]
fn broken_maps_cost_only_themselves() {
    let folder = tempfile::tempdir().unwrap();
    scenes(folder.path(), 4);
    let path = |name: &str| folder.path().join("depth").join(name);
    std::fs::write(path("0.png"), "no image").unwrap();
    ImageBuffer::<Luma<u16>, Vec<u16>>::new(62, 50).save(path("1.png")).unwrap();
    let open = || {
        let options = DepthOptions::new(1000.0).unwrap();
        DepthSet::open(&folder.path().join("images"), &folder.path().join("depth"), options)
            .unwrap()
    };
    let (set, normalize) = (open(), normalize());
    let network = network(&MeanColor, &normalize);
    let mut config = short().with_iterations(4);
    let head = |config: &DepthConfig| -> eval::Result<(DepthHead, usize)> {
        let (head, report) = train(network, &data(&set), config, None, &mut |_, _| ())?;
        Ok((head, report.broken.len()))
    };
    let (trained, broken) = head(&config).unwrap();
    assert_eq!(broken, 2);
    let estimator = LinearEstimator { network, head: trained, config: config.clone() };
    let evaluated = evaluate(&data(&set), &estimator, &config, &mut || ()).unwrap();
    assert_eq!((evaluated.images, evaluated.broken.len()), (2, 2));
    assert!(evaluated.broken[1].reason.contains("no valid pixels"), "{:?}", evaluated.broken);
    // With a wrong divisor, no depth is in range.
    config.max_depth = 0.01;
    let error = head(&config).err().unwrap();
    assert!(error.to_string().contains("divisor"), "{error}");
    assert!(matches!(MeanMap::new(&data(&set), &config), Err(Error::NoDepths { .. })));
}
