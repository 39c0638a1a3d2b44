//! Compares files of many kinds with Pillow: colors and bit orders of TIFF
//! (tools/parity/tiff_kinds.py), low bit depths and runs of BMP and animations of WebP
//! (tools/parity/bmp_webp_kinds.py), and orientations in all formats (tools/parity/orientation.py).
//! Every pixel must be equal.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use decode::{Error, PixelFormat, decode, decode_as};
use proptest::prelude::*;

/// Returns the path and the bytes of each file in a folder of fixtures.
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
    expect_all_equal("orientation", ORIENTATION_FILES);
}

#[test]
fn few_bits_runs_and_first_frames_are_those_of_pillow() {
    expect_all_equal("bmp_webp", BMP_WEBP_FILES);
}

fn expect_all_equal(folder: &str, count: usize) {
    let files = files(folder);
    assert_eq!(files.len(), count);
    for (path, bytes) in files {
        let expected = format!("{}.expected.png", path.to_str().unwrap());
        expect_equal(&path, &bytes, Path::new(&expected));
    }
}

/// Returns a run-length encoded BMP of 4 x 2 pixels, with the palette red, green, blue.
fn runs(bits: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"BM\0\0\0\0\0\0\0\0".to_vec();
    for number in [66, 40, 4, 2] {
        bytes.extend(u32::to_le_bytes(number));
    }
    bytes.extend([1, 0, bits, 0, if bits == 8 { 1 } else { 2 }, 0, 0, 0]);
    for number in [0, 0, 0, 3, 0, 0x00FF_0000, 0x0000_FF00, 0x0000_00FF] {
        bytes.extend(u32::to_le_bytes(number));
    }
    [&bytes, data].concat()
}

#[test]
fn what_no_run_sets_has_the_first_color() {
    let (r, g, b) = ([255, 0, 0], [0, 255, 0], [0, 0, 255]);
    // The first row in the file is the lower row of the image.
    for (what, bits, data, expected) in [
        ("ends of rows", 8, &[1, 1, 0, 0, 0, 0, 0, 1][..], [r, r, r, r, g, r, r, r]),
        ("a step", 8, &[0, 2, 1, 1, 2, 2, 1, 1], [r, b, b, g, r, r, r, r]),
        (
            "an index behind the palette",
            8,
            &[4, 1, 0, 0, 4, 7],
            [[0; 3], [0; 3], [0; 3], [0; 3], g, g, g, g],
        ),
        ("too long a run", 8, &[9, 2, 0, 0, 9, 1, 0, 0, 0, 1], [g, g, g, g, b, b, b, b]),
        ("halves", 4, &[3, 0x12, 0, 0, 0, 3, 0x21, 0x20, 0, 0], [b, g, b, r, g, b, g, r]),
        ("a long run of halves", 4, &[9, 0x12, 0, 0, 4, 0x11], [g, g, g, g, g, b, g, b]),
    ] {
        let got = decode(&runs(bits, data)).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert_eq!(got.as_raw(), &expected.concat(), "{what}");
    }
}

#[test]
fn runs_that_lead_nowhere_are_refused() {
    for (data, reason) in [
        (&[4, 1, 0, 0, 2, 1, 0, 1][..], "end before the last pixel"),
        (&[0, 2, 5, 0, 1, 1], "a skip beyond"),
        (&[0, 2, 0, 2, 1, 1], "a skip beyond"),
        (&[2, 1, 0, 3, 1, 1, 1, 0], "colors beyond"),
    ] {
        let error = decode(&runs(8, data)).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(reason), "{data:?}: {source}");
    }
    let whole = [4, 1, 0, 0, 0, 4, 1, 1, 1, 1];
    assert!(decode(&runs(8, &whole)).is_ok());
    for end in 0..whole.len() {
        let error = decode(&runs(8, &whole[..end])).unwrap_err();
        assert!(matches!(error, Error::Truncated { format: "bmp" }), "{end}: {error:?}");
    }
}

/// A picture that is requested as plain channels has those that it displays, not those that it
/// stores.
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
            // The directory follows the pixels, and only its last values may be cut off.
            assert!(decode(&bytes[..end]).is_err(), "{path:?} at {end} of {}", bytes.len());
        }
    }
}

/// Errors name the kind of colors that is not supported.
#[test]
fn other_colors_are_refused_by_name() {
    let bytes = std::fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiff/ycbcr_444_lzw.tif"),
    )
    .unwrap();
    // The entry of the photometric interpretation consists of tag, type, count, and value.
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
        which in 0_usize..TIFF_FILES + ORIENTATION_FILES + BMP_WEBP_FILES,
        hits in proptest::collection::vec((0.0_f64..1.0, any::<u8>()), 1..6),
        cut in 0.6_f64..1.5,
    ) {
        let mut all = [files("tiff"), files("orientation"), files("bmp_webp")].concat();
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
const BMP_WEBP_FILES: usize = 16;
