//! Tests of weighted k-NN: against NumPy (tools/parity/knn.py), by hand, and its errors.
#![allow(clippy::unwrap_used)] // test helpers

use std::path::PathBuf;

use eval::{Error, FeatureSet, KnnConfig, KnnResult, knn};
use model::weights::read_safetensors;
use tch::Tensor;

fn set(rows: &[[f32; 2]], labels: &[Option<u32>]) -> FeatureSet {
    FeatureSet::new(Tensor::from_slice(rows.as_flattened()).view([-1, 2]), labels.to_vec())
}

/// Returns the vector at an angle in degrees with a length.
fn at(degrees: f32, length: f32) -> [f32; 2] {
    let radians = degrees.to_radians();
    [length * radians.cos(), length * radians.sin()]
}

fn config(k: &[usize], temperature: f64) -> KnnConfig {
    KnnConfig { k: k.to_vec(), temperature, ..KnnConfig::default() }
}

fn close(got: f64, expected: f64) {
    assert!((got - expected).abs() < 1e-9, "{got} instead of {expected}");
}

#[test]
fn agrees_with_the_reference() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/knn.safetensors");
    let file = read_safetensors(&path).unwrap();
    let ints = |name: &str| Vec::<i64>::try_from(file.tensors[name].flatten(0, -1)).unwrap();
    let read = |name: &str| {
        let labels = ints(&format!("{name}_labels")).into_iter();
        let labels = labels.map(|label| Some(label as u32)).collect();
        FeatureSet::new(file.tensors[name].shallow_clone(), labels)
    };
    let (train, test) = (read("train"), read("test"));
    let k: Vec<usize> = ints("k").into_iter().map(|k| k as usize).collect();
    let result = knn(&train, &test, &config(&k, file.metadata["temperature"].parse().unwrap()));
    let result = result.unwrap();
    assert_eq!((result.num_train, result.num_test, result.classes), (320, 400, 8));
    assert!(result.notes.is_empty(), "{:?}", result.notes);
    for (score, correct) in result.scores.iter().zip(ints("correct").chunks(2)) {
        close(score.top1 * 400.0, correct[0] as f64);
        close(score.top5 * 400.0, correct[1] as f64);
    }
}

/// Returns one near neighbor of class 0 and three more distant ones of class 1; their lengths must
/// not matter.
fn two_classes() -> (FeatureSet, FeatureSet) {
    let rows = [at(5.0, 2.0), at(-30.0, 0.1), at(31.0, 9.0), at(-32.0, 1.0), at(180.0, 1.0)];
    let train = set(&rows, &[Some(0), Some(1), Some(1), Some(1), Some(0)]);
    (train, set(&[at(0.0, 3.0)], &[Some(0)]))
}

#[test]
fn the_temperature_decides_between_near_and_many() {
    let (train, test) = two_classes();
    let top1 = |temperature| knn(&train, &test, &config(&[4], temperature)).unwrap().scores[0].top1;
    close(top1(0.07), 1.0); // exp(0.996 / 0.07) > 3 exp(0.857 / 0.07)
    close(top1(10.0), 0.0); // almost a plain majority
    close(top1(1e-4), 1.0); // no overflow
}

#[test]
fn top5_counts_at_most_k_guesses() {
    let (train, test) = two_classes();
    let result = knn(&train, &test, &config(&[1, 4], 10.0)).unwrap();
    close(result.scores[0].top5, 1.0);
    close(result.scores[1].top1, 0.0);
    close(result.scores[1].top5, 1.0);
    let wrong = set(&[at(0.0, 1.0)], &[Some(1)]);
    close(knn(&train, &wrong, &config(&[1], 0.07)).unwrap().scores[0].top5, 0.0);
}

#[test]
fn a_tie_goes_to_the_lower_label() {
    let train = set(&[at(10.0, 1.0), at(-10.0, 1.0)], &[Some(4), Some(2)]);
    let test = set(&[at(0.0, 1.0)], &[Some(2)]);
    close(knn(&train, &test, &config(&[2], 1e6)).unwrap().scores[0].top1, 1.0);
}

#[test]
fn more_neighbors_than_images_are_clamped_and_noted() {
    let (train, test) = two_classes();
    let result = knn(&train, &test, &config(&[5, 200], 0.07)).unwrap();
    let used: Vec<_> = result.scores.iter().map(|s| (s.k, s.k_used)).collect();
    assert_eq!(used, [(5, 5), (200, 5)]);
    assert_eq!(
        result.notes,
        ["k = 200 is more than the 5 training images: all of them are neighbors"]
    );
    close(result.scores[1].top1, result.scores[0].top1);
}

#[test]
fn images_without_a_label_do_not_vote() {
    let (mut train, test) = two_classes();
    train.labels[0] = None;
    let result = knn(&train, &test, &config(&[1], 0.07)).unwrap();
    assert_eq!(result.num_train, 4);
    close(result.scores[0].top1, 0.0);
    assert_eq!(result.notes, ["1 training images have no label and are left out"]);
}

#[test]
fn classes_are_matched_by_name() {
    let (mut train, mut test) = two_classes();
    train.class_names = vec!["cat".into(), "dog".into()];
    test.class_names = vec!["ant".into(), "cat".into()];
    test.labels = vec![Some(1)];
    close(knn(&train, &test, &config(&[1], 0.07)).unwrap().scores[0].top1, 1.0);
    test.labels = vec![Some(0)];
    let error = knn(&train, &test, &config(&[1], 0.07)).unwrap_err();
    assert!(matches!(&error, Error::ClassMismatch { classes } if classes == "ant"), "{error}");
    // A class that the training set names but has no images of.
    let names = ["cat", "dog", "eel"].map(str::to_owned).to_vec();
    (train.class_names, test.class_names) = (names.clone(), names);
    test.labels = vec![Some(2)];
    let error = knn(&train, &test, &config(&[1], 0.07)).unwrap_err();
    assert!(matches!(&error, Error::ClassMismatch { classes } if classes == "eel"), "{error}");
}

#[test]
fn labels_may_be_any_numbers() {
    let (mut train, mut test) = two_classes();
    let expected = knn(&train, &test, &config(&[1, 3], 0.07)).unwrap();
    for set in [&mut train, &mut test] {
        set.labels.iter_mut().flatten().for_each(|label| *label += u32::MAX - 7);
    }
    assert_eq!(knn(&train, &test, &config(&[1, 3], 0.07)).unwrap(), expected);
}

#[test]
fn folders_called_by_numbers_are_those_numbers() {
    // Folders sort as text: 0, 1, 10, 2.
    let names = ["0", "1", "10", "2"].map(str::to_owned).to_vec();
    let rows = [at(0.0, 1.0), at(30.0, 1.0), at(60.0, 1.0), at(90.0, 1.0)];
    let mut folders = set(&rows, &[Some(0), Some(1), Some(2), Some(3)]);
    folders.class_names = names;
    let list = set(&rows, &[Some(0), Some(1), Some(10), Some(2)]);
    for (train, test) in [(&folders, &list), (&list, &folders), (&folders, &folders)] {
        let result = knn(train, test, &config(&[1], 0.07)).unwrap();
        assert_eq!(result.scores[0].top1, 1.0);
    }
}

#[test]
fn names_beside_numbers_are_refused() {
    let (mut train, mut test) = two_classes();
    train.class_names = vec!["ant".into(), "bee".into()];
    let words = error(&train, &test, &config(&[1], 0.07)).to_string();
    assert!(
        words.starts_with("the train set names its classes, but the test set numbers"),
        "{words}"
    );
    std::mem::swap(&mut train.class_names, &mut test.class_names);
    let words = error(&train, &test, &config(&[1], 0.07)).to_string();
    assert!(
        words.starts_with("the test set names its classes, but the train set numbers"),
        "{words}"
    );
}

fn error(train: &FeatureSet, test: &FeatureSet, config: &KnnConfig) -> Error {
    knn(train, test, config).unwrap_err()
}

#[test]
fn what_cannot_be_classified_is_a_typed_error() {
    let (train, test) = two_classes();
    let good = config(&[1], 0.07);
    let unlabeled = set(&[at(0.0, 1.0)], &[None]);
    assert!(matches!(error(&unlabeled, &test, &good), Error::Unlabeled { set: "training" }));
    assert!(matches!(error(&train, &unlabeled, &good), Error::Unlabeled { set: "test" }));
    let single = set(&[at(0.0, 1.0), at(1.0, 1.0)], &[Some(3); 2]);
    assert!(matches!(error(&single, &test, &good), Error::OneClass { count: 2 }));
    let foreign = set(&[at(0.0, 1.0)], &[Some(7)]);
    assert!(matches!(error(&train, &foreign, &good), Error::ClassMismatch { .. }));
    let broken = set(&[[f32::NAN, 1.0]], &[Some(0)]);
    assert!(matches!(
        error(&train, &broken, &good),
        Error::NotFinite { set: "test", count: 1, .. }
    ));
    let wide = FeatureSet::new(Tensor::from_slice(&[1f32; 3]).view([1, 3]), test.labels);
    assert!(matches!(error(&train, &wide, &good), Error::Width { train: 2, test: 3 }));
}

#[test]
fn wrong_settings_are_typed_errors() {
    let (train, test) = two_classes();
    for (k, temperature, key) in [
        (vec![], 0.07, "k"),
        (vec![1, 0], 0.07, "k"),
        (vec![1], 0.0, "temperature"),
        (vec![1], f64::NAN, "temperature"),
    ] {
        let error = error(&train, &test, &config(&k, temperature));
        assert!(matches!(error, Error::Setting { key: got, .. } if got == key), "{error}");
    }
}

#[test]
fn the_scale_of_features_does_not_count() {
    let (mut train, mut test) = two_classes();
    let expected = knn(&train, &test, &config(&[2], 0.07)).unwrap();
    for scale in [1e-9, 1e18] {
        (train.features, test.features) = (&train.features * scale, &test.features * scale);
        assert_eq!(knn(&train, &test, &config(&[2], 0.07)).unwrap(), expected, "{scale}");
    }
    test.features = test.features.zeros_like();
    let zeros = knn(&train, &test, &config(&[2], 0.07)).unwrap();
    assert!(zeros.scores[0].top1.is_finite(), "rows of zeros are as near to all");
}

#[test]
fn a_result_serializes() {
    let (train, test) = two_classes();
    let result: KnnResult = knn(&train, &test, &config(&[2], 0.07)).unwrap();
    let json = serde_json::to_value(&result).unwrap();
    assert_eq!(json["scores"][0]["k"], 2);
    assert_eq!(json["scores"][0]["top1"], 1.0);
    assert_eq!(json["num_train"], 5);
}
