//! Compares files with any number of channels with numpy (tools/parity/tiff_bands.py).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Cursor;
use std::path::{Path, PathBuf};

use decode::{Error, Image, PixelFormat, decode, decode_as};
use image::{DynamicImage, ImageBuffer, ImageFormat};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bands")
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap()
}

fn pixels(channels: usize, value_range: &[[f64; 2]]) -> PixelFormat {
    PixelFormat { channels, value_range: value_range.to_vec() }
}

/// Name, number of channels, and range for the case "range"; empty for 8 bits, which are not
/// scaled.
const CASES: [(&str, usize, &[[f64; 2]]); 11] = [
    ("gray_u16", 1, &[[0.0, 3000.0]]),
    ("gray_i16", 1, &[[-1000.0, 400.0]]),
    ("two_u8", 2, &[]),
    ("rgb_nir_u8", 4, &[]),
    ("four_u8", 4, &[]),
    ("five_u16", 5, &FIVE),
    ("five_planar_u16", 5, &FIVE),
    ("rgb_six_u16", 6, &[[0.0, 3000.0]]),
    ("thirteen_u16", 13, &[[0.0, 3000.0]]),
    ("three_f32", 3, &[[0.05, 0.4]]),
    ("two_u32", 2, &[[4e9, 4.2e9]]),
];
const FIVE: [[f64; 2]; 5] =
    [[0.0, 2000.0], [10.0, 2300.0], [20.0, 2600.0], [30.0, 2900.0], [40.0, 3200.0]];

#[test]
fn channels_are_those_of_numpy() {
    for (name, channels, range) in CASES {
        let bytes = file(&format!("{name}.tif"));
        let mut cases = vec![("full", &[][..])];
        cases.extend((!range.is_empty()).then_some(("range", range)));
        for (case, range) in cases {
            let decoded = decode_as(&bytes, &pixels(channels, range)).unwrap();
            assert_eq!(decoded.format, "tiff");
            let expected = file(&format!("{name}.{case}.bin"));
            let expected = Image::new(expected, 18, 21, channels).unwrap();
            assert_eq!(decoded.image, expected, "{name}, {case}");
        }
    }
}

#[test]
fn eight_bits_are_taken_as_they_are() {
    let bytes = file("four_u8.tif");
    let narrow = decode_as(&bytes, &pixels(4, &[[100.0, 120.0]])).unwrap();
    assert_eq!(narrow.image.data(), file("four_u8.full.bin"));
}

#[test]
fn another_number_of_channels_is_named() {
    for (name, found, wanted) in [
        ("five_u16", 5, 4),
        ("five_planar_u16", 5, 3),
        ("two_u8", 2, 3),
        ("four_u8", 4, 3),
        ("gray_u16", 1, 2),
        ("rgb_six_u16", 6, 3),
    ] {
        let error = decode_as(&file(&format!("{name}.tif")), &pixels(wanted, &[])).unwrap_err();
        assert!(matches!(error, Error::Channels { .. }), "{name}: {error:?}");
        let found = if found == 1 { "1 channel".to_owned() } else { format!("{found} channels") };
        let text = format!("tiff image with {found} (expected {wanted})");
        assert_eq!(error.to_string(), text, "{name}");
    }
}

/// In a file of four channels that are declared to be RGB, the last channel is dropped, and the
/// others are correct even with a predictor over all four.
#[test]
fn colors_of_four_channels_are_rgb() {
    let four = file("rgb_nir_u8.full.bin");
    let three: Vec<u8> = four.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
    assert_eq!(decode(&file("rgb_nir_u8.tif")).unwrap().as_raw(), &three);
}

#[test]
fn png_keeps_its_channels() {
    let encoded = |image: DynamicImage, format| {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    };
    let rgba = ImageBuffer::from_fn(5, 4, |x, y| image::Rgba([10, x as u8, y as u8, 77]));
    let la = ImageBuffer::from_fn(5, 4, |x, y| image::LumaA([x as u16 * 900, y as u16 * 257]));
    let l = ImageBuffer::from_fn(5, 4, |x, _| image::Luma([40 * x as u8]));
    let rgba_bytes = encoded(DynamicImage::ImageRgba8(rgba.clone()), ImageFormat::Png);
    let got = decode_as(&rgba_bytes, &pixels(4, &[])).unwrap();
    assert_eq!((got.image.data(), got.format), (rgba.as_raw().as_slice(), "png"));
    // 16-bit gray with alpha: each of the two pairs applies to its own channel.
    let la_bytes = encoded(DynamicImage::ImageLumaA16(la), ImageFormat::Png);
    let got = decode_as(&la_bytes, &pixels(2, &[[0.0, 1800.0], [0.0, 65535.0]])).unwrap();
    assert_eq!(got.image.data()[..6], [0, 0, 128, 0, 255, 0]);
    // As RGB, the range applies to each requested channel.
    let got = decode_as(&la_bytes, &pixels(3, &[[0.0, 1800.0]])).unwrap();
    assert_eq!(got.image.data()[..6], [0, 0, 0, 128, 128, 128]);
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Bmp] {
        let bytes = encoded(DynamicImage::ImageLuma8(l.clone()), format);
        let got = decode_as(&bytes, &pixels(1, &[]));
        match format {
            // The encoder writes gray as RGB or with a palette.
            ImageFormat::Bmp => assert!(matches!(got, Err(Error::Channels { found: 3, .. }))),
            _ => assert_eq!(got.unwrap().image.channels(), 1),
        }
    }
    let error = decode_as(&rgba_bytes, &pixels(1, &[])).unwrap_err();
    assert!(matches!(error, Error::Channels { found: 4, expected: 1, .. }), "{error:?}");
}

#[test]
fn cuts_of_files_with_many_channels_are_errors() {
    for (name, channels, _) in CASES {
        let bytes = file(&format!("{name}.tif"));
        for end in (0..bytes.len() * 9 / 10).step_by(41) {
            // The directory may come before or after the pixels.
            assert!(decode_as(&bytes[..end], &pixels(channels, &[])).is_err(), "{name} at {end}");
        }
    }
}
