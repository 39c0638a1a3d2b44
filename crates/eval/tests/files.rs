//! Tests of writing and reading feature files.
#![allow(clippy::unwrap_used)] // test helpers

use std::fs;
use std::path::{Path, PathBuf};

use eval::{Error, FeatureSet, read_feature_set, read_features, write_features};
use tch::{Device, Kind, Tensor};

fn set() -> FeatureSet {
    let features = Tensor::from_slice(&[0.5f32, -1.0, 2.0, 0.25]).view([2, 2]);
    let mut set = FeatureSet::new(features, vec![Some(1), None]);
    set.names = vec!["a,b.jpg".into(), "c.jpg".into()];
    set.class_names = vec!["cat".into(), "dog".into()];
    set
}

fn words(path: &Path) -> String {
    base::error_chain(&read_features(path).unwrap_err())
}

#[test]
fn every_format_gives_back_the_features() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["deep/x.npy", "x.safetensors", "x.csv"] {
        let path = dir.path().join(name);
        write_features(&path, &set()).unwrap();
        assert_eq!(read_features(&path).unwrap(), set().features.to_kind(Kind::Double), "{name}");
    }
    let npy = Tensor::read_npy(dir.path().join("deep/x.npy")).unwrap();
    assert_eq!(npy, set().features);
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(read("x.csv"), "name,label,class,f0,f1\n\"a,b.jpg\",1,dog,0.5,-1\nc.jpg,,,2,0.25\n");
    let names = "name,label,class\n\"a,b.jpg\",1,dog\nc.jpg,,\n";
    assert_eq!(read("x.names.csv"), names);
    assert_eq!(read("deep/x.names.csv"), names);
}

#[test]
fn features_of_others_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let table = Tensor::from_slice(&[1.0f64, 2.0, 3.0, 4.5, 5.0, 6.0]).reshape([3, 2]);
    let file = |name: &str| dir.path().join(name);
    table.write_npy(file("a.npy")).unwrap();
    let named = [("anything".to_owned(), table.shallow_clone())];
    model::weights::write_safetensors(&file("a.safetensors"), &named, &[].into()).unwrap();
    fs::write(file("a.csv"), "f0,x,f1\n1,a,2\n3,b,4.5\n5,c,6\n").unwrap();
    fs::write(file("b.csv"), "f1,f0\n2,1\n4.5,3\n6,5\n").unwrap();
    for name in ["a.npy", "a.safetensors", "a.csv", "b.csv"] {
        assert_eq!(read_features(&file(name)).unwrap(), table, "{name}");
    }
}

#[test]
fn another_name_is_an_error_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("features.parquet");
    let error = write_features(&path, &set()).unwrap_err();
    assert!(matches!(error, Error::FeatureFormat { .. }), "{error}");
    assert!(!path.exists());
    fs::write(&path, b"").unwrap();
    assert!(words(&path).contains(".npy, .safetensors or .csv"));
}

#[test]
fn what_is_no_table_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    assert!(words(&dir.path().join("none.npy")).contains("none.npy: no such file"));
    assert!(words(&file("a.npy", b"not numpy")).contains("a.npy: cannot read it"));
    let whole = dir.path().join("whole.npy");
    Tensor::ones([9, 9], (Kind::Float, Device::Cpu)).write_npy(&whole).unwrap();
    let bytes = fs::read(&whole).unwrap();
    for end in [20, 100, bytes.len() - 1] {
        assert!(words(&file("cut.npy", &bytes[..end])).contains("cut.npy: cannot read it"));
    }
    let huge = "{'descr': '<f4', 'fortran_order': False, 'shape': (3000000000, 4000000000), }\n";
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((huge.len() as u16).to_le_bytes());
    bytes.extend(huge.as_bytes());
    assert!(words(&file("huge.npy", &bytes)).contains("huge.npy: cannot read it"));
    assert!(words(&file("a.csv", b"x,y\n1,2\n")).contains("no feature columns (f0"));
    assert!(words(&file("a.csv", b"f0,f2\n1,2\n")).contains("has a column f2 but no f1"));
    assert!(words(&file("a.csv", b"f0,f0,f1\n1,2,3\n")).contains("several columns f0"));
    assert!(words(&file("b.csv", b"f0,f1\n1,x\n")).contains("row 1 contains 'x'"));
    assert!(words(&file("c.csv", b"f0,f1\n")).contains("shape [n, d] (got [0, 2])"));
    assert!(words(&file("d.csv", b"f0,f1\n1,nan\n")).contains("not finite"));
}

#[test]
fn labels_come_back_with_the_features() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["x.npy", "x.safetensors", "y.csv"] {
        let path = dir.path().join(name);
        write_features(&path, &set()).unwrap();
        let read = read_feature_set(&path).unwrap();
        assert_eq!(read.features, set().features, "{name}");
        assert_eq!(read.names, set().names, "{name}");
        // No row has label 0, so the file does not contain its class name.
        assert_eq!(read.labels, [Some(0), None], "{name}");
        assert_eq!(read.class_names, ["dog"], "{name}");
    }
    // Classes without names keep their numbers.
    let path = dir.path().join("z.csv");
    fs::write(&path, "label,f0\n7,1\n,2\n3,0.5\n").unwrap();
    let read = read_feature_set(&path).unwrap();
    assert_eq!((read.labels, read.names), (vec![Some(7), None, Some(3)], Vec::new()));
}

#[test]
fn labels_of_numpy_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.npy");
    set().features.write_npy(&path).unwrap();
    assert_eq!(read_feature_set(&path).unwrap().labels, [None, None], "no labels beside it");
    let save = |numbers: &[i64]| {
        Tensor::from_slice(numbers).write_npy(dir.path().join("a.labels.npy")).unwrap();
    };
    save(&[-1, 4]);
    let read = read_feature_set(&path).unwrap();
    assert_eq!((read.labels, read.class_names), (vec![None, Some(4)], Vec::new()));
    let problem = || base::error_chain(&read_feature_set(&path).unwrap_err());
    save(&[0, -2]);
    assert!(problem().contains("a.labels.npy: contains the label -2: labels"), "{}", problem());
    save(&[0, 1, 2]);
    assert!(problem().ends_with("has 2 rows, but there are labels for 3"), "{}", problem());
    fs::write(dir.path().join("a.names.csv"), "name,label,class\n").unwrap();
    assert!(problem().contains("a.names.csv: there is also"), "{}", problem());
}

#[test]
fn labels_that_contradict_each_other_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text, expected) in [
        ("a.csv", "label,f0\ncat,1\n", "row 1 contains 'cat' instead of an integer label"),
        ("b.csv", "label,class,f0\n1,cat,1\n1,dog,2\n", "label 1 is both 'cat' and 'dog'"),
        ("c.csv", "label,class,f0\n1,cat,1\n2,cat,2\n", "class 'cat' has two labels"),
        (
            "d.csv",
            "label,class,f0\n1,cat,1\n2,,2\n",
            "label 2 has no class name, but other labels have one",
        ),
        ("e.csv", "f0\n1e300\n", "contains numbers that are too large for float32"),
    ] {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        let error = base::error_chain(&read_feature_set(&path).unwrap_err());
        assert!(error.ends_with(&format!("{name}: {expected}")), "{error}");
    }
}
