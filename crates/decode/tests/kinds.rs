//! Whole kinds of files against Pillow: colors and orders of bits of TIFF (tools/parity/tiff_kinds.py),
//! and orientations in all formats (tools/parity/orientation.py). Every pixel must be equal.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use decode::{Error, PixelFormat, decode, decode_as};
use proptest::prelude::*;

/// Path and bytes of each file in a folder of fixtures.
fn files(folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(folder);
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let tested = paths.filter(|path| !path.to_str().unwrap().ends_with(".expected.png"));
    let mut files: Vec<_> =
        tested.map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect();
    files.sort();
    files
}

fn expect_equal(path: &Path, bytes: &[u8], expected: &Path) {
    let expected = image::open(expected).unwrap().into_rgb8();
    let got = decode(bytes).unwrap_or_else(|error| panic!("{path:?}: {error:?}"));
    assert_eq!(got.dimensions(), expected.dimensions(), "{path:?}");
    let different = got.as_raw().iter().zip(expected.as_raw()).filter(|(a, b)| a != b).count();
    assert_eq!(different, 0, "{path:?}: values that differ, of {}", got.as_raw().len());
}

#[test]
fn colors_and_orders_of_bits_of_tiff_are_those_of_pillow() {
    let files = files("tiff");
    assert_eq!(files.len(), TIFF_FILES);
    for (path, bytes) in files {
        expect_equal(&path, &bytes, &path.with_extension("expected.png"));
    }
}

#[test]
fn orientation_is_that_of_pillow_in_all_formats() {
    let files = files("orientation");
    assert_eq!(files.len(), ORIENTATION_FILES);
    for (path, bytes) in files {
        let expected = format!("{}.expected.png", path.to_str().unwrap());
        expect_equal(&path, &bytes, Path::new(&expected));
    }
}

/// As plain channels, too, a picture has those that it has for the eye.
#[test]
fn palettes_and_ink_are_three_channels() {
    for (path, bytes) in files("tiff") {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let gray = ["gray", "white", "bilevel", "group4"].iter().any(|what| name.starts_with(what));
        let (found, other) = if gray { (1, 2) } else { (3, 4) };
        let pixels = |channels| PixelFormat { channels, value_range: Vec::new() };
        assert_eq!(decode_as(&bytes, &pixels(found)).unwrap().image.channels(), found, "{name}");
        let error = decode_as(&bytes, &pixels(other)).unwrap_err();
        assert!(matches!(error, Error::Channels { .. }), "{name}: {error:?}");
    }
}

#[test]
fn cuts_of_tiff_files_are_errors() {
    for (path, bytes) in files("tiff") {
        for end in (0..bytes.len() - 16).step_by(13) {
            // The directory stands behind the pixels, and the last of its values may be cut off.
            assert!(decode(&bytes[..end]).is_err(), "{path:?} at {end} of {}", bytes.len());
        }
    }
}

/// What is not read is named.
#[test]
fn other_colors_are_refused_by_name() {
    let bytes = std::fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiff/ycbcr_444_lzw.tif"),
    )
    .unwrap();
    // The entry of the photometric interpretation: tag, type, count, value.
    let entry = [6, 1, 3, 0, 1, 0, 0, 0, 6, 0];
    let place = bytes.windows(entry.len()).position(|window| window == entry).unwrap();
    for (value, name) in [(8, "CIELab"), (4, "TransparencyMask"), (77, "nterpretation")] {
        let mut bytes = bytes.clone();
        bytes[place + 8] = value;
        let error = decode(&bytes).unwrap_err();
        let reason = std::error::Error::source(&error).unwrap().to_string();
        assert!(reason.contains(name), "{value}: {reason}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn damaged_bytes_never_panic(
        which in 0_usize..TIFF_FILES + ORIENTATION_FILES,
        hits in proptest::collection::vec((0.0_f64..1.0, any::<u8>()), 1..6),
        cut in 0.6_f64..1.5,
    ) {
        let mut all = [files("tiff"), files("orientation")].concat();
        let (_, mut bytes) = all.swap_remove(which);
        bytes.truncate((cut * bytes.len() as f64) as usize);
        for (place, value) in hits {
            let index = (place * bytes.len() as f64) as usize;
            bytes[index] = value;
        }
        let answer = decode(&bytes);
        prop_assert!(!matches!(answer, Err(Error::DecoderPanic { .. })), "{answer:?}");
    }
}

const TIFF_FILES: usize = 59;
const ORIENTATION_FILES: usize = 34;
