//! Tests of logistic regression: against scikit-learn (tools/parity/logistic.py), by hand, and its
//! errors.
#![allow(clippy::unwrap_used)] // test helpers

use std::path::PathBuf;

use eval::logistic::{LogisticConfig, few_shot_logistic, fit, fit_without_bias, logistic};
use eval::{Error, FeatureSet, FewShotConfig};
use model::weights::{WeightsFile, read_safetensors};
use tch::{Device, Kind, Tensor};

fn fixture() -> WeightsFile {
    named("logistic")
}

fn named(name: &str) -> WeightsFile {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    read_safetensors(&folder.join(format!("{name}.safetensors"))).unwrap()
}

fn set(features: &Tensor, labels: &Tensor) -> FeatureSet {
    let labels = Vec::<i64>::try_from(labels).unwrap().into_iter();
    FeatureSet::new(features.shallow_clone(), labels.map(|label| Some(label as u32)).collect())
}

fn one(c: f64) -> LogisticConfig {
    let mut config = LogisticConfig::default();
    config.c = vec![c];
    config
}

#[test]
fn agrees_with_scikit_learn() {
    let file = fixture();
    let of = |name: &str| &file.tensors[name];
    let numbers = |name: &str| Vec::<f64>::try_from(of(name)).unwrap();
    let correct = Vec::<i64>::try_from(of("correct")).unwrap();
    for (i, (&c, &loss)) in numbers("c").iter().zip(&numbers("loss")).enumerate() {
        let config = LogisticConfig::default();
        let model = fit(of("train"), of("train_labels"), 6, c, &config).unwrap();
        assert!(model.converged);
        assert!((model.loss / loss - 1.0).abs() < 1e-9, "C = {c}: {} and {loss}", model.loss);
        let scores = model.scores(of("test"));
        let scores = &scores - scores.mean_dim([1].as_slice(), true, Kind::Double);
        let expected = of("scores").get(i as i64);
        let error = (scores - &expected).abs().max() / expected.abs().max();
        assert!(error.double_value(&[]) < 1e-4, "C = {c}: {error:?}");
        let (train, test) =
            (set(of("train"), of("train_labels")), set(of("test"), of("test_labels")));
        let result = logistic(&train, &test, &one(c)).unwrap();
        assert_eq!((result.top1 * 150.0).round() as i64, correct[i]);
        assert_eq!((result.num_train, result.num_test, result.classes), (240, 150, 6));
        assert!(result.notes.is_empty() && result.top5 >= result.top1, "{result:?}");
    }
}

#[test]
fn few_shots_agree_with_scikit_learn() {
    let file = named("few_shot_logistic");
    let of = |name: &str| &file.tensors[name];
    let device = Device::Cpu;
    let model = fit_without_bias(of("prepared"), of("train_labels"), 6, 4000.0, device).unwrap();
    let loss = of("loss").double_value(&[0]);
    assert!((model.loss / loss - 1.0).abs() < 1e-6, "{} and {loss}", model.loss);
    assert_eq!(model.bias.abs().max().double_value(&[]), 0.0);
    let error = (model.weight.tr() - of("weight")).abs().max() / of("weight").abs().max();
    assert!(error.double_value(&[]) < 1e-3, "{error:?}");
    // All images of every class, with the test images that scikit-learn classifies as they are
    // labeled.
    let config = FewShotConfig { per_class: vec![18, 1], tries: 2 };
    let train = set(of("train"), of("train_labels"));
    let scores =
        few_shot_logistic(&train, &set(of("test"), of("predicted")), &config, device).unwrap();
    assert!((scores[0].top1 - 1.0).abs() < 0.01 && scores[0].top1_std == 0.0, "{scores:?}");
    assert!(scores[1].top1 < scores[0].top1 && scores[1].top5 >= scores[1].top1, "{scores:?}");
    let none = FewShotConfig { per_class: vec![0], tries: 1 };
    assert!(few_shot_logistic(&train, &train, &none, device).is_err());
}

/// The features of an untrained network vary along few directions: single precision loses the
/// others, and a large `C` amplifies what is lost.
#[test]
fn features_that_hardly_vary_are_classified_at_any_c() {
    let (n, d) = (400, 96);
    let wave = |rows: i64, columns: i64, scale: f64| {
        (Tensor::arange(rows * columns, (Kind::Float, Device::Cpu)) * scale)
            .sin()
            .view([rows, columns])
    };
    let few = wave(n, 2, 1.7) * 30.0;
    let features = few.matmul(&wave(2, d, 0.37)) + wave(n, d, 12.9) * 1e-5 + 50.0;
    let labels = few.select(1, 0).gt(0.0).to_kind(Kind::Int64);
    let all = set(&features, &labels);
    for config in [LogisticConfig::default(), LogisticConfig::coarse(), one(1e5)] {
        let result = logistic(&all, &all, &config).unwrap();
        assert!(result.top1 > 0.9, "{result:?}");
    }
}

/// Fewer images than dimensions, some of which never vary. The minimum must equal that of a problem
/// with fewer dimensions.
#[test]
fn directions_without_variance_get_no_weight() {
    let file = fixture();
    let rows = |name: &str| file.tensors[name].narrow(0, 0, 8);
    let (features, labels) = (rows("train"), rows("train_labels").remainder(2));
    let same = Tensor::full([8, 3], 5.0, (Kind::Float, Device::Cpu));
    let wide = Tensor::cat(&[&features, &features, &same], 1);
    let config = LogisticConfig::default();
    let narrow = fit(&features, &labels, 2, 4.0, &config).unwrap();
    let model = fit(&wide, &labels, 2, 2.0, &config).unwrap();
    // Repeating the features halves the penalty for the same scores, so `C` can be halved.
    assert!((model.loss * 2.0 / narrow.loss - 1.0).abs() < 1e-9, "{} {}", model.loss, narrow.loss);
    let error = (model.scores(&wide) - narrow.scores(&features)).abs().max();
    assert!(error.double_value(&[]) < 1e-4, "{error:?}");
    assert!(model.weight.narrow(0, 20, 3).abs().max().double_value(&[]) < 1e-9);
}

#[test]
fn features_of_a_network_that_has_collapsed_give_a_number() {
    // Fewer images than dimensions, and more.
    for count in [40, 8] {
        let features = Tensor::full([count, 16], 0.3, (Kind::Float, Device::Cpu));
        let labels = Tensor::arange(count, (Kind::Int64, Device::Cpu)).remainder(4);
        let all = set(&features, &labels.fmod(3)); // class 0 is the most frequent
        let result = logistic(&all, &all, &one(1.0)).unwrap();
        assert!((result.top1 - 0.5).abs() < 0.2, "{result:?}");
    }
}

#[test]
fn few_iterations_are_enough_although_the_features_are_badly_scaled() {
    let file = fixture();
    let config = LogisticConfig::default();
    let (train, labels) = (&file.tensors["train"], &file.tensors["train_labels"]);
    let model = fit(train, labels, 6, 1.0, &config).unwrap();
    assert!(model.iterations < 300, "{}", model.iterations);
}

/// Classes that overlap in pairs, and a direction without variance, as after a final norm. With a
/// Hessian that ignores the coupling of classes, the second `C` needs 238 iterations, and 1,000 are
/// too few for the last.
#[test]
fn classes_that_trade_places_take_few_iterations() {
    let noise = |row: i64, column: i64| {
        f64::from((row * 7919 + column * 104_729) as i32 % 1009) / 504.5 - 1.0
    };
    let mut values = Vec::new();
    for row in 0..3000 {
        let class = row % 6;
        let values_of = (0..11).map(|column| {
            let scale = 0.6_f64.powi(column as i32);
            let mean = f64::from(u8::from(column == class / 2)) * 3.0 + 0.05 * (class % 2) as f64;
            scale * (mean + 2.0 * noise(row, column))
        });
        let values_of: Vec<f64> = values_of.collect();
        values.extend(values_of.iter().map(|&value| value as f32));
        values.push(-values_of.iter().sum::<f64>() as f32);
    }
    let features = Tensor::from_slice(&values).view([3000, 12]);
    let labels = Tensor::from_slice(&(0..3000).map(|row| row % 6).collect::<Vec<i64>>());
    let config = LogisticConfig::default();
    let mut last = f64::INFINITY;
    for c in [1e-2, 10.0, 1e5] {
        let model = fit(&features, &labels, 6, c, &config).unwrap();
        assert!(model.converged && model.iterations < 120, "C = {c}: {}", model.iterations);
        assert!(model.loss / c <= last, "a weaker penalty allows a lower cross-entropy");
        last = model.loss / c;
    }
}

#[test]
fn the_strength_of_the_penalty_is_chosen_on_held_out_images() {
    let file = fixture();
    let of = |name: &str| &file.tensors[name];
    let (train, test) = (set(of("train"), of("train_labels")), set(of("test"), of("test_labels")));
    let mut config = LogisticConfig::default();
    config.c = vec![1.0, 1e-9, 1e-2];
    let before = torch_ext::rng_state(Device::Cpu).unwrap();
    let result = logistic(&train, &test, &config).unwrap();
    assert_eq!(before, torch_ext::rng_state(Device::Cpu).unwrap(), "the generator is left alone");
    assert_eq!(result.held_out_top1.len(), 3);
    assert!(result.held_out_top1[1] < result.held_out_top1[0], "{result:?}");
    assert_ne!(result.c, 1e-9);
    assert_eq!(result, logistic(&train, &test, &config).unwrap());
}

#[test]
fn a_fit_that_is_stopped_says_so() {
    let file = fixture();
    let of = |name: &str| &file.tensors[name];
    let (train, test) = (set(of("train"), of("train_labels")), set(of("test"), of("test_labels")));
    let mut config = one(1.0);
    config.max_iterations = 2;
    let result = logistic(&train, &test, &config).unwrap();
    assert!(result.notes.iter().any(|note| note.contains("in 2 iterations")), "{result:?}");
}

#[test]
fn classes_that_are_missing_cost_only_their_images() {
    // Two distant classes. The test set has a third one, about which nothing is known.
    let train = Tensor::from_slice(&[-1f32, -1.1, 1.0, 1.1, -0.9, 0.9]).view([6, 1]);
    let labels = Tensor::from_slice(&[0i64, 0, 1, 1, 0, 1]);
    let test = Tensor::from_slice(&[-1f32, 1.0, 5.0, -2.0]).view([4, 1]);
    let test_labels = Tensor::from_slice(&[0i64, 1, 2, 0]);
    let result = logistic(&set(&train, &labels), &set(&test, &test_labels), &one(10.0)).unwrap();
    assert_eq!((result.top1, result.top5), (0.75, 0.75));
    assert!((result.mean_class_accuracy - 2.0 / 3.0).abs() < 1e-12);
    assert!(result.notes[0].contains("without training images"), "{:?}", result.notes);
}

#[test]
fn what_cannot_be_fitted_is_refused() {
    let features = Tensor::from_slice(&[0f32, 1.0, 2.0]).view([3, 1]);
    let labels = Tensor::from_slice(&[0i64, 1, 1]);
    let train = set(&features, &labels);
    let error = |config: &LogisticConfig| logistic(&train, &train, config).unwrap_err().to_string();
    assert!(error(&one(0.0)).contains("greater than 0"));
    assert!(error(&one(f64::NAN)).contains("greater than 0"));
    let mut none_held_out = LogisticConfig::default();
    none_held_out.held_out = 0.0;
    assert!(error(&none_held_out).contains("held_out"));
    let few = logistic(&train, &train, &LogisticConfig::default()).unwrap_err();
    assert!(matches!(few, Error::TooFewToChoose { images: 3 }), "{few}");
}
