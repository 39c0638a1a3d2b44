//! Tests of retrieval: scores against NumPy (tools/parity/segmentation.py), the ground-truth
//! readers, and images of various sizes.
#![allow(clippy::unwrap_used)] // test helpers

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use data::decode::PixelFormat;
use eval::retrieval::copydays::Copydays;
use eval::retrieval::{
    Difficulty, EmbedOptions, GroundTruth, ImageFeatureKind, ImageFile, Query, Revisited, embed,
    images_in,
};
use eval::{Error, FeaturePrecision, Frozen};
use image::{Rgb, RgbImage};
use model::normalize::Normalize;
use model::weights::read_safetensors;
use model::{Arch, ModelConfig, VisionTransformer};
use serde_json::Value;
use tch::{Device, nn};

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn indices(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect()
}

#[test]
fn scores_are_those_of_numpy() {
    let file = read_safetensors(&fixtures().join("segmentation.safetensors")).unwrap();
    let truth: Value = serde_json::from_str(&file.metadata["truth"]).unwrap();
    let query = |of: &Value| Query {
        name: String::new(),
        bbox: None,
        easy: indices(&of["easy"]),
        hard: indices(&of["hard"]),
        junk: indices(&of["junk"]),
    };
    let queries: Vec<Query> = truth.as_array().unwrap().iter().map(query).collect();
    let (count, database) = (queries.len() as i64, vec![String::new(); 60]);
    let truth = GroundTruth { images: database, queries };
    let features = &file.tensors["retrieval.features"];
    let ranked =
        Revisited::new(&features.narrow(0, 0, count), &features.narrow(0, count, 60)).unwrap();
    let expected: Value = serde_json::from_str(&file.metadata["expected"]).unwrap();
    let none = HashSet::new();
    for (name, difficulty) in Difficulty::ALL {
        let score = ranked.score(&truth, difficulty, &none, &none).unwrap();
        let expected = &expected[name];
        assert!((score.map - expected["map"].as_f64().unwrap()).abs() < 1e-9, "{name} {score:?}");
        for (got, expected) in score.precision_at.iter().zip(expected["mp"].as_array().unwrap()) {
            assert!((got - expected.as_f64().unwrap()).abs() < 1e-9, "{name} {score:?}");
        }
        assert_eq!(score.queries, if name == "easy" { 6 } else { 7 });
    }
    // A missing image is neither a positive nor part of the ranking.
    let all: HashSet<usize> = (0..60).collect();
    assert!(matches!(
        ranked.score(&truth, Difficulty::Medium, &all, &none),
        Err(Error::NoPositives)
    ));
    let others: HashSet<usize> = (1..7).collect();
    let one = ranked.score(&truth, Difficulty::Medium, &none, &others).unwrap();
    assert_eq!(one.queries, 1);
}

#[test]
fn ground_truth_is_read_from_pickle_and_json() {
    let json = GroundTruth::read(&fixtures().join("gnd_small.json")).unwrap();
    assert_eq!(json.images, ["all_souls_000013", "christ_church_000179", "oxford_002904"]);
    assert_eq!(json.queries[0].bbox, Some([136.5, 34.1, 648.5, 955.7]));
    assert_eq!(
        (json.queries[1].easy.as_slice(), json.queries[1].junk.as_slice()),
        ([2].as_slice(), [0, 1].as_slice())
    );
    for name in ["lists_2", "arrays_2", "arrays_4"] {
        let path = fixtures().join(format!("gnd_small_{name}.pkl"));
        assert_eq!(GroundTruth::read(&path).unwrap(), json, "{name}");
        let bytes = std::fs::read(&path).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let cut = folder.path().join("cut.pkl");
        std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
        let error = GroundTruth::read(&cut).unwrap_err();
        assert!(error.to_string().contains("cut.pkl"), "{error}");
    }
}

#[test]
fn wrong_ground_truth_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gnd.json");
    for (text, word) in [
        (r#"{"imlist": ["a"], "qimlist": ["q"], "gnd": []}"#, "1 queries, but labels for 0"),
        (
            r#"{"imlist": ["a"], "qimlist": ["q"], "gnd": [{"easy": [1]}]}"#,
            "query q: the easy image 1",
        ),
        (r#"{"imlist": ["a"], "qimlist": ["q"], "gnd": [{"hard": [-1]}]}"#, "the hard image -1"),
        (r#"{"imlist": ["a"], "qimlist": ["q"], "gnd": [{"junk": [0.5]}]}"#, "the junk image 0.5"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = GroundTruth::read(&path).unwrap_err().to_string();
        assert!(error.contains("gnd.json") && error.contains(word), "{error}");
    }
    std::fs::write(&path, "no ground truth").unwrap();
    assert!(matches!(GroundTruth::read(&path), Err(Error::Unreadable { .. })));
}

fn tiny(vars: &nn::VarStore) -> VisionTransformer {
    let config = ModelConfig {
        arch: Arch::VitNano,
        image_size: 32,
        patch_size: 8,
        ..ModelConfig::default()
    };
    VisionTransformer::new(&vars.root(), &config).unwrap()
}

fn write(path: &Path, (width, height): (u32, u32), shift: u32) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([(x * 9 + shift) as u8, (y * 7 + shift) as u8, 40])
    })
    .save(path)
    .unwrap();
}

#[test]
fn images_of_any_size_are_embedded() {
    let folder = tempfile::tempdir().unwrap();
    for (i, size) in [(61, 40), (40, 61), (16, 16), (5, 90)].into_iter().enumerate() {
        write(&folder.path().join(format!("{i}.png")), size, 50 * i as u32);
    }
    std::fs::write(folder.path().join("9.png"), "no image").unwrap();
    let files = images_in(folder.path()).unwrap();
    let files: Vec<ImageFile> =
        files.into_iter().map(|path| ImageFile { path, part: None }).collect();
    let vars = nn::VarStore::new(Device::Cpu);
    let (backbone, normalize) = (tiny(&vars), Normalize { mean: vec![0.5; 3], std: vec![0.25; 3] });
    let options = |kind| EmbedOptions {
        frozen: Frozen {
            network: &backbone,
            normalize: &normalize,
            device: Device::Cpu,
            precision: FeaturePrecision::Fp32,
        },
        pixels: PixelFormat::RGB,
        kind,
    };
    for (kind, width, broken) in [
        (ImageFeatureKind::Cls { most: 48, multi_scale: false }, 128, 2), // 5 pixels: no whole patch
        (ImageFeatureKind::ClsGem { side: 32 }, 256, 1),
    ] {
        let embedded = embed(&files, &options(kind), &mut |_, _| ()).unwrap();
        assert_eq!(embedded.features.size(), [5, width]);
        assert_eq!(embedded.broken.len(), broken, "{:?}", embedded.broken);
        assert!(embedded.broken.iter().any(|broken| broken.name.ends_with("9.png")));
    }
    // If the network rejects the input, the images are not to blame.
    let gray = Normalize { mean: vec![0.5], std: vec![0.25] };
    let mut wrong = options(ImageFeatureKind::ClsGem { side: 32 });
    wrong.frozen.normalize = &gray;
    let error = embed(&files, &wrong, &mut |_, _| ()).unwrap_err();
    assert!(!matches!(error, Error::NoImages { .. }), "{error}");
    let several = ImageFeatureKind::Cls { most: 64, multi_scale: true };
    let embedded = embed(&files[..2], &options(several), &mut |_, _| ()).unwrap();
    let norms = embedded.features.square().sum_dim_intlist([1].as_slice(), false, tch::Kind::Float);
    assert!((norms - 1.0).abs().max().double_value(&[]) < 1e-5);
    let error = embed(&files[4..], &options(several), &mut |_, _| ()).unwrap_err();
    assert!(matches!(error, Error::NoImages { asked: 1, .. }), "{error}");
}

#[test]
#[cfg(unix)]
fn images_are_listed_once_even_if_a_link_leads_back() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(path("b/.hidden")).unwrap();
    for name in ["a.png", "b/c.png", ".d.png", "b/.hidden/e.png", "f.txt"] {
        std::fs::write(path(name), "").unwrap();
    }
    symlink(folder.path(), path("b/up")).unwrap();
    symlink("/no/such/image.png", path("b/lost.png")).unwrap();
    symlink("/no/such/image.png", path(".lost.png")).unwrap();
    let files = images_in(folder.path()).unwrap();
    assert_eq!(files, [path("a.png"), path("b/c.png"), path("b/lost.png")]);
    assert!(matches!(images_in(&path("none")), Err(Error::Unreadable { .. })));
}

#[test]
fn copydays_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let error = Copydays::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("original"), "{error}");
    write(&folder.path().join("original/200000.png"), (8, 8), 0);
    assert!(Copydays::open(folder.path()).unwrap_err().to_string().contains("strong"));
    write(&folder.path().join("strong/200001.png"), (8, 8), 0);
    write(&folder.path().join("jpegqual/10/200000.png"), (8, 8), 0);
    write(&folder.path().join("crops/80/200000.png"), (8, 8), 0);
    let names: Vec<String> =
        Copydays::open(folder.path()).unwrap().blocks.into_iter().map(|block| block.name).collect();
    assert_eq!(names, ["strong", "jpegqual/10", "crops/80"]);
}

#[test]
fn pixels_do_not_depend_on_brightness() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |name: &str, color: &dyn Fn(u32, u32) -> [u8; 3]| {
        let path = folder.path().join(name);
        RgbImage::from_fn(64, 48, |x, y| Rgb(color(x, y))).save(&path).unwrap();
        ImageFile { path, part: None }
    };
    let files = [
        draw("a.png", &|x, y| [x as u8, 2 * y as u8, 30]),
        draw("brighter.png", &|x, y| [x as u8 + 100, 2 * y as u8 + 50, 90]),
        draw("mirrored.png", &|x, y| [63 - x as u8, 2 * y as u8, 30]),
    ];
    let vars = nn::VarStore::new(Device::Cpu);
    let config = ModelConfig { arch: Arch::VitNano, ..ModelConfig::default() };
    let network = VisionTransformer::new(&vars.root(), &config).unwrap();
    let normalize = Normalize { mean: vec![0.5; 3], std: vec![0.25; 3] };
    let (device, precision) = (Device::Cpu, FeaturePrecision::Fp32);
    let frozen = Frozen { network: &network, normalize: &normalize, device, precision };
    let kind = ImageFeatureKind::Pixels { side: 8, network: [u32::MAX, 1] };
    let options = EmbedOptions { frozen, pixels: PixelFormat::RGB, kind };
    let rows = embed(&files, &options, &mut |_, _| ()).unwrap().features;
    assert_eq!(rows.size(), [3, 8 * 8 * 3]);
    let rows = &rows / rows.square().sum_dim_intlist([1].as_slice(), true, tch::Kind::Float).sqrt();
    let cosines = rows.get(0).unsqueeze(0).matmul(&rows.tr());
    assert!((cosines.double_value(&[0, 1]) - 1.0).abs() < 1e-4, "{cosines:?}");
    assert!(cosines.double_value(&[0, 2]) < 0.9, "{cosines:?}");
}
