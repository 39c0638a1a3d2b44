//! Files of torch.save, valid and hostile (tools/parity/pth.py).
#![allow(clippy::unwrap_used)] // helpers of tests

use std::fs;
use std::path::{Path, PathBuf};

use model::weights::{FileFormat, TensorFile};
use tch::{Device, Kind, Tensor};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pth")
}

fn open(name: &str) -> TensorFile {
    TensorFile::open(&folder().join(name)).unwrap()
}

/// Returns the same values as `values` in pth.py.
fn values(shape: &[i64]) -> Tensor {
    let count: i64 = shape.iter().product();
    Tensor::arange(count, (Kind::Double, Device::Cpu)).view(shape) / 8.0 - 1.0
}

fn check_kinds(name: &str, format: FileFormat) {
    let file = open(name);
    assert_eq!(file.format(), format);
    let base = values(&[3, 4]);
    let shared = values(&[40]).to_kind(Kind::Float);
    let float = base.to_kind(Kind::Float);
    let expected = [
        ("f32", float.shallow_clone()),
        ("f64", base.shallow_clone()),
        ("f16", base.to_kind(Kind::Half)),
        ("bf16", base.to_kind(Kind::BFloat16)),
        ("i64", (&base * 8).to_kind(Kind::Int64)),
        ("i32", (&base * 8).to_kind(Kind::Int)),
        ("i16", (&base * 8).to_kind(Kind::Int16)),
        ("i8", (&base * 8).to_kind(Kind::Int8)),
        ("u8", (&base + 1).to_kind(Kind::Uint8)),
        ("flag", base.gt(0)),
        ("scalar", Tensor::from(1.5f32)),
        ("empty", Tensor::zeros([0, 3], (Kind::Float, Device::Cpu))),
        ("turned", float.tr().contiguous()),
        ("slice", shared.narrow(0, 4, 12).view([3, 4])),
        ("strided", shared.slice(0, 1, 37, 3).contiguous()),
        ("parameter", float),
    ];
    assert_eq!(file.tensors().count(), expected.len());
    for (key, expected) in expected {
        let got = file.read(key).unwrap();
        assert_eq!(got.kind(), expected.kind(), "{key}");
        assert_eq!(got, expected, "{key}");
        assert_eq!(file.info(key).unwrap().shape, expected.size(), "{key}");
    }
}

#[test]
fn every_kind_stride_and_packing_is_read() {
    check_kinds("kinds.pth", FileFormat::Pth);
    check_kinds("kinds_protocol4.pth", FileFormat::Pth);
    check_kinds("kinds_legacy.pth", FileFormat::PthLegacy);
}

#[test]
fn training_checkpoints_are_read_with_what_they_carry() {
    for name in ["training.pth", "training_legacy.pth"] {
        let file = open(name);
        for key in ["student.module.0.weight", "teacher.0.weight"] {
            assert_eq!(file.info(key).unwrap().shape, [3, 4], "{name} {key}");
        }
        assert!(file.info("optimizer.state.0.exp_avg").is_some(), "{name}");
        let entry = |key: &str| file.entries().get(key).map(String::as_str);
        assert_eq!(entry("epoch"), Some("7"));
        assert_eq!(entry("args.arch"), Some("vit_small"));
        assert_eq!(entry("args.lr"), Some("0.0005"));
        assert_eq!(entry("cfg"), Some("<omegaconf.dictconfig.DictConfig>"));
        assert_eq!(entry("optimizer.param_groups.0.lr"), Some("0.001"));
    }
}

#[test]
fn a_whole_module_becomes_its_state() {
    let file = open("module.pth");
    let names: Vec<_> = file.tensors().map(|(name, _)| name.to_owned()).collect();
    let expected = ["0.bias", "0.weight", "1.bias", "1.num_batches_tracked", "1.running_mean"];
    assert_eq!(names[..5], expected);
    assert_eq!(names.len(), 7);
}

#[test]
fn calls_are_noted_and_not_made() {
    let file = open("runs.pth");
    assert_eq!(file.read("weight").unwrap().size(), [2, 2]);
    assert_eq!(file.entries()["hook"], "<posix.system>");
    assert!(!Path::new("simdino-was-here").exists());
}

#[test]
fn hostile_files_are_errors_in_a_sentence() {
    let mut seen = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with("hostile_") {
            continue;
        }
        seen += 1;
        let error =
            TensorFile::open(&path).err().unwrap_or_else(|| unreachable!("{name} was read"));
        let text = error.to_string();
        assert!(text.contains(&name) && !text.contains('\n'), "{text}");
        println!("{text}");
    }
    assert_eq!(seen, 18);
}

/// The storage of such a tensor contains its values with the opposite sign.
#[test]
fn a_negative_bit_is_refused_by_name() {
    for name in ["negative_bit.pth", "negative_bit_legacy.pth"] {
        let error = TensorFile::open(&folder().join(name)).unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        let text = format!("{error}: {cause}");
        assert!(text.contains("tensor weight") && text.contains("resolve_neg"), "{text}");
    }
}

#[test]
fn every_truncation_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut.pth");
    for name in ["kinds.pth", "kinds_legacy.pth"] {
        let whole = fs::read(folder().join(name)).unwrap();
        for len in (0..whole.len()).step_by(7) {
            fs::write(&path, &whole[..len]).unwrap();
            assert!(TensorFile::open(&path).is_err(), "{name} cut to {len}");
        }
    }
}

/// No network has as many as 100,000 tensors.
#[test]
fn too_many_keys_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("many.safetensors");
    let entries: Vec<_> = (0..100_000)
        .map(|i| format!(r#""{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#))
        .collect();
    let header = format!("{{{}}}", entries.join(","));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    fs::write(&path, bytes).unwrap();
    let error = TensorFile::open(&path).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("more than 65536 tensors"), "{cause}");

    // The same as a pickle: a dictionary with one value under that many keys.
    let path = dir.path().join("many.pth");
    let mut pickle = b"\x80\x02}(".to_vec();
    for i in 0..100_000u32 {
        let key = i.to_string();
        pickle.extend([b'X']);
        pickle.extend((key.len() as u32).to_le_bytes());
        pickle.extend(key.as_bytes());
        pickle.push(b'N');
    }
    pickle.extend(b"u.");
    fs::write(&path, stored(&pickle)).unwrap();
    let error = TensorFile::open(&path).unwrap_err().to_string();
    assert!(error.contains("expands beyond the size"), "{error}");
}

/// Returns a zip archive that contains only a pickle.
fn stored(pickle: &[u8]) -> Vec<u8> {
    let name = b"a/data.pkl";
    let len = (pickle.len() as u32).to_le_bytes();
    let sizes = [[0; 4], len, len].concat(); // no checksum
    let names = [(name.len() as u16).to_le_bytes(), [0; 2]].concat();
    let start = [&[20, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &sizes, &names].concat();
    let local = [b"PK\x03\x04", &start[..], name, pickle].concat();
    let rest = [0; 14]; // comment, disk, attributes, and the header at byte 0
    let central = [b"PK\x01\x02", &[20, 0][..], &start, &rest, name].concat();
    let end = [
        b"PK\x05\x06",
        &[0, 0, 0, 0, 1, 0, 1, 0][..],
        &(central.len() as u32).to_le_bytes(),
        &(local.len() as u32).to_le_bytes(),
        &[0, 0],
    ]
    .concat();
    [local, central, end].concat()
}
