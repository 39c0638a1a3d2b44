//! Tests of features, the pixel baseline, and pictures on the synthetic dataset.
#![allow(clippy::unwrap_used)] // test helpers

use std::cell::RefCell;
use std::sync::Arc;

use augment::{AugmentConfig, EvalTransform};
use data::{DataConfig, Dataset, SourceKind, SyntheticConfig};
use eval::baseline::{PixelOptions, pixel_features};
use eval::extract_with_progress;
use eval::pca::Pca;
use eval::pictures::{
    AttentionOptions, AttentionView, Embedded, PatchKeys, PcaOptions, Scene, attention_rows,
    crop_sheet, lay_out, neighbor_cells, pca_rows,
};
use eval::{Error, ExtractOptions, FeatureExtractor, KnnConfig, extract, knn};
use model::normalize::Normalize;
use model::{Arch, Mode, ModelConfig, VisionTransformer};
use tch::{Device, Kind, Tensor, nn};

fn dataset(count: usize, seed: u64) -> Arc<Dataset> {
    let synthetic = SyntheticConfig { count, size: 32, seed };
    let config = DataConfig { source: SourceKind::Synthetic, synthetic, ..Default::default() };
    Arc::new(data::open(&config).unwrap())
}

fn vit() -> (nn::VarStore, VisionTransformer) {
    let vs = nn::VarStore::new(Device::Cpu);
    let config =
        ModelConfig { arch: Arch::VitNano, patch_size: 8, image_size: 32, ..Default::default() };
    let vit = VisionTransformer::new(&vs.root(), &config).unwrap();
    (vs, vit)
}

fn normalize() -> Normalize {
    Normalize { mean: vec![0.5; 3], std: vec![0.25; 3] }
}

fn options() -> ExtractOptions {
    let mut options = ExtractOptions::new(EvalTransform { resize: 32, crop: 32 }, normalize());
    (options.batch, options.workers) = (7, Some(2));
    options
}

/// Extracts the mean of each channel, three numbers that can be recomputed from the image.
struct ChannelMeans;

impl FeatureExtractor for ChannelMeans {
    fn features(&self, images: &Tensor) -> eval::Result<Tensor> {
        Ok(images.mean_dim([2, 3].as_slice(), false, Kind::Float))
    }
}

#[test]
fn rows_belong_to_their_images() {
    let dataset = dataset(30, 1);
    let calls = RefCell::new(Vec::new());
    let set = extract_with_progress(&dataset, &ChannelMeans, &options(), &mut |done, total| {
        calls.borrow_mut().push((done, total));
    })
    .unwrap();
    assert_eq!(set.features.size(), [30, 3]);
    assert_eq!(calls.into_inner(), [(7, 30), (14, 30), (21, 30), (28, 30), (30, 30)]);
    assert_eq!(set.class_names, dataset.class_names());
    for index in [0, 8, 29] {
        assert_eq!(set.names[index], dataset.name(index));
        assert_eq!(set.labels[index], dataset.label(index));
        let image = dataset.image(index).unwrap();
        let greens = image.data().iter().skip(1).step_by(3);
        let mean = greens.map(|&v| f64::from(v)).sum::<f64>() / (32.0 * 32.0);
        let expected = (mean / 255.0 - 0.5) / 0.25;
        let got = set.features.double_value(&[index as i64, 1]);
        assert!((got - expected).abs() < 1e-4, "{got} instead of {expected}");
    }
}

#[test]
fn a_backbone_gives_its_class_token() {
    let (_vs, vit) = vit();
    let dataset = dataset(9, 2);
    let set = extract(&dataset, &vit, &options()).unwrap();
    assert_eq!(set.features.size(), [9, 128]);
    assert!(!set.features.requires_grad());
    let pixels =
        ndarray::Array4::from_shape_vec((1, 32, 32, 3), dataset.image(4).unwrap().into_data());
    let input = eval::to_input(&pixels.unwrap(), &normalize(), Device::Cpu).unwrap();
    let expected = vit.forward(&input, Mode::Eval).unwrap().cls.squeeze();
    let error = (set.features.get(4) - expected).abs().max().double_value(&[]);
    assert!(error < 1e-4, "{error}");
}

#[test]
fn a_limit_takes_images_from_the_whole_set() {
    let dataset = dataset(30, 1);
    let mut few = options();
    few.limit = Some(3);
    let set = extract(&dataset, &ChannelMeans, &few).unwrap();
    assert_eq!(set.names.len(), 3);
    for (third, name) in set.names.iter().enumerate() {
        assert!((10 * third..10 * third + 10).any(|i| dataset.name(i) == *name), "{name}");
    }
    let mut none = options();
    none.batch = 0;
    let error = extract(&dataset, &ChannelMeans, &none);
    assert!(matches!(error.unwrap_err(), Error::Setting { key: "batch", .. }));
}

#[test]
fn pixels_are_standardized_with_the_train_set() {
    let (train, test) = (dataset(200, 1), dataset(100, 2));
    let options = PixelOptions { side: 8, workers: Some(2), limits: [None; 2] };
    let (train, test) = pixel_features(&train, &test, &options).unwrap();
    assert_eq!((train.features.size(), test.features.size()), (vec![200, 192], vec![100, 192]));
    let largest = |t: Tensor| t.abs().max().double_value(&[]);
    let axis = [0].as_slice();
    assert!(largest(train.features.mean_dim(axis, false, Kind::Float)) < 1e-5);
    assert!(largest(train.features.std_dim(axis, false, false) - 1.0) < 1e-4);
    let off = largest(test.features.mean_dim(axis, false, Kind::Float));
    assert!(off > 1e-3, "the test set must not be standardized with its own mean");
    let result = knn(&train, &test, &KnnConfig { k: vec![20], ..KnnConfig::default() }).unwrap();
    assert_eq!((result.num_train, result.num_test), (200, 100));
}

#[test]
fn pca_recovers_the_directions_of_variance() {
    let n = 400;
    let wave = |f: f64, p: f64| {
        ((Tensor::arange(n, (Kind::Double, Device::Cpu)) * f + p).sin()).unsqueeze(1)
    };
    let rows = [[0.6, 0.0, -0.8, 0.0], [0.8, 0.0, 0.6, 0.0], [0.0, -1.0, 0.0, 0.0]];
    let direction = |i: usize| Tensor::from_slice(&rows[i]).unsqueeze(0);
    let features = wave(1.1, 0.0).matmul(&direction(0)) * 5.0
        + wave(1.7, 1.0).matmul(&direction(1)) * 2.0
        + wave(2.3, 2.0).matmul(&direction(2)) * 0.5
        + 3.0;
    let pca = Pca::fit(&features, 3).unwrap();
    for (i, sign) in [(0, -1.0), (1, 1.0), (2, -1.0)] {
        let error = pca.components.get(i) - direction(i as usize).squeeze() * sign;
        assert!(error.abs().max().double_value(&[]) < 0.02, "component {i}");
    }
    let projected = pca.project(&features);
    let variance = projected.var_dim([0].as_slice(), true, false);
    let error = ((variance - &pca.variance) / &pca.variance).abs().max().double_value(&[]);
    assert!(error < 1e-9, "{error}");
    for (features, k) in
        [(features.narrow(0, 0, 1), 1), (features.narrow(1, 0, 2), 3), (features.get(0), 1)]
    {
        assert!(matches!(Pca::fit(&features, k), Err(Error::Shape { .. })));
    }
}

#[test]
fn sheets_have_a_place_for_every_picture() {
    let (dataset, (_vs, vit)) = (dataset(6, 3), vit());
    let scene = Scene { dataset: &dataset, indices: &[0, 3, 5], side: 48 };
    let options = PcaOptions::new(normalize());
    let rows = pca_rows(&scene, "runs/a", &vit, &options).unwrap().rows;
    let keys = pca_rows(&scene, "runs/a", &PatchKeys(&vit), &options).unwrap().rows;
    assert_eq!(rows, pca_rows(&scene, "runs/a", &vit, &options).unwrap().rows);
    assert_ne!(rows, keys);
    let mut options = AttentionOptions::new(normalize());
    options.views.push(AttentionView::Heads);
    let attention = attention_rows(&scene, "runs/a", &vit, &options).unwrap();
    let labels: Vec<&str> = rows.iter().chain(&attention).map(|row| row.label.as_str()).collect();
    assert_eq!(
        labels[..4],
        [
            "runs/a: principal components",
            "runs/a: foreground",
            "runs/a: mean attention",
            "runs/a: 60% of the mean attention"
        ]
    );
    assert_eq!(labels[4], "runs/a: head 1");
    let all = [vec![scene.row().unwrap()], rows, keys, attention].concat();
    assert!(all.iter().flat_map(|row| &row.cells).all(|cell| cell.dimensions() == (240, 240)));
    assert!(all.iter().all(|row| row.cells.len() == 3));
    assert_eq!(lay_out(&all).width(), 3 * (240 + 4) + 4);
    let augment = AugmentConfig {
        global_crops_size: 56,
        local_crops_size: 24,
        local_crops_number: 3,
        ..Default::default()
    };
    let sheet = crop_sheet(&dataset, &[(1, 0), (2, 0)], &augment, 0).unwrap();
    // Local crops are stacked, two per column.
    assert_eq!(sheet.dimensions(), (3 * (112 + 4) + 2 * (48 + 4) + 4, 2 * (112 + 4) + 4));
    assert_ne!(sheet, crop_sheet(&dataset, &[(1, 1), (2, 1)], &augment, 0).unwrap());
}

#[test]
fn neighbors_are_in_order_and_never_the_image_itself() {
    let dataset = dataset(6, 3);
    let rows = [[1.0f32, 0.0], [1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, 0.0], [0.5, 0.5]];
    let features = Tensor::from_slice2(&rows);
    let labels = [Some(0), Some(0), Some(1), Some(2), Some(0), None];
    let indices = [0, 1, 2, 3, 4, 5];
    let embedded =
        Embedded { dataset: &dataset, indices: &indices, labels: &labels, features: &features };
    let cells = neighbor_cells(&embedded, &[1, 5], 3).unwrap();
    let corners: Vec<[u8; 3]> = cells[0].iter().map(|cell| cell.get_pixel(0, 0).0).collect();
    assert_eq!(corners.len(), 4);
    // The neighbors are image 0 with the same features and class, image 2 of another class, and
    // image 5 without a class.
    assert_eq!(corners[1..3], [[40, 170, 80], [230, 60, 50]]);
    assert_eq!(cells[0][3], cells[1][0]);
    assert_eq!(neighbor_cells(&embedded, &[0], 99).unwrap()[0].len(), 6);
    assert!(matches!(neighbor_cells(&embedded, &[7], 1), Err(Error::Setting { .. })));
    let broken = Tensor::from_slice2(&rows) * f64::NAN;
    let embedded = Embedded { features: &broken, ..embedded };
    assert!(matches!(neighbor_cells(&embedded, &[1], 1), Err(Error::NotFinite { count: 6, .. })));
}

#[test]
fn sheets_refuse_what_they_cannot_show() {
    let (dataset, (_vs, vit)) = (dataset(6, 3), vit());
    let options = PcaOptions::new(normalize());
    let drawn = |indices: &[usize], side: u32| {
        pca_rows(&Scene { dataset: &dataset, indices, side }, "", &vit, &options)
    };
    assert!(matches!(drawn(&[0], 50), Err(Error::Model(_))));
    assert!(matches!(drawn(&[6], 48), Err(Error::Data(_))));
    assert!(matches!(drawn(&[], 48), Err(Error::Setting { .. })));
    let augment = AugmentConfig::default();
    assert!(matches!(crop_sheet(&dataset, &[(6, 0)], &augment, 0), Err(Error::Data(_))));
}
