//! Compares the decoder with Pillow, and tests it on formats that the image crate writes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Cursor;
use std::path::Path;

use decode::{PixelFormat, decode, decode_as};
use image::{DynamicImage, ImageBuffer, ImageFormat, RgbImage};

fn largest_and_mean_difference(a: &RgbImage, b: &RgbImage) -> (u8, f64) {
    let differences: Vec<u8> =
        a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| a.abs_diff(*b)).collect();
    let sum: f64 = differences.iter().map(|&d| f64::from(d)).sum();
    (differences.iter().copied().max().unwrap(), sum / differences.len() as f64)
}

/// File, largest allowed difference, and mean allowed difference, on 0-255. At present, no pixel
/// differs.
const FIXTURES: [(&str, u8, f64); 30] = [
    ("gray.jpg", 0, 0.0),
    ("subsampled.jpg", 0, 0.0),
    ("progressive.jpg", 0, 0.0),
    ("cmyk.jpg", 0, 0.0),
    ("ycck.jpg", 0, 0.0),
    ("orientation3.jpg", 0, 0.0),
    ("orientation6.jpg", 0, 0.0),
    ("orientation2.jpg", 0, 0.0),
    ("orientation4.jpg", 0, 0.0),
    ("orientation5.jpg", 0, 0.0),
    ("orientation7.jpg", 0, 0.0),
    ("orientation8.jpg", 0, 0.0),
    ("palette.png", 0, 0.0),
    ("palette_transparent.png", 0, 0.0),
    ("bilevel.png", 0, 0.0),
    ("rgba.png", 0, 0.0),
    ("gray_alpha.png", 0, 0.0),
    ("alpha.webp", 0, 0.0),
    ("lossy.webp", 0, 0.0),
    ("lzw.tiff", 0, 0.0),
    ("palette.bmp", 0, 0.0),
    ("orientation3.png", 0, 0.0),
    ("orientation5.png", 0, 0.0),
    ("orientation6.png", 0, 0.0),
    ("orientation3.webp", 0, 0.0),
    ("orientation5.webp", 0, 0.0),
    ("orientation6.webp", 0, 0.0),
    ("orientation3.tiff", 0, 0.0),
    ("orientation5.tiff", 0, 0.0),
    ("orientation6.tiff", 0, 0.0),
];

#[test]
fn pillow_reads_the_same_pixels() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images");
    let mut wrong = Vec::new();
    for (name, most, mean) in FIXTURES {
        let got = decode(&std::fs::read(folder.join(name)).unwrap()).unwrap();
        let expected = image::open(folder.join(format!("{name}.expected.png"))).unwrap();
        assert_eq!(got.dimensions(), (expected.width(), expected.height()), "{name}");
        let found = largest_and_mean_difference(&got, &expected.into_rgb8());
        println!("{name}: largest and mean difference {found:?}");
        if found.0 > most || found.1 > mean {
            wrong.push((name, found));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Bytes that do not affect the pixels are skipped.
#[test]
fn odd_bytes_between_segments_are_passed_over() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images/subsampled.jpg");
    let bytes = std::fs::read(file).unwrap();
    let expected = decode(&bytes).unwrap();
    let place = |kind: u8| bytes.windows(2).position(|pair| pair == [0xFF, kind]).unwrap();
    let with = |at: usize, more: &[u8]| [&bytes[..at], more, &bytes[at..]].concat();
    for (what, changed) in [
        ("bytes between segments", with(place(0xC4), &[1, 2, 3])),
        ("a comment behind the data", with(bytes.len() - 2, &[0xFF, 0xFE, 0, 4, 1, 2])),
    ] {
        assert_eq!(decode(&changed).unwrap(), expected, "{what}");
    }
}

fn round_trip(image: DynamicImage, format: ImageFormat) -> RgbImage {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    decode(bytes.get_ref()).unwrap()
}

#[test]
fn sixteen_bits_are_scaled_to_eight() {
    // 257 * v is the 16-bit equivalent of the 8-bit value v; the decoder rounds to the nearest.
    let values: Vec<u16> = (0..=255).map(|v| v * 257).collect();
    let expected: Vec<u8> = (0..=255).flat_map(|v| [v; 3]).collect();
    let gray = ImageBuffer::from_raw(16, 16, values.clone()).unwrap();
    let color: Vec<u16> = values.iter().flat_map(|&v| [v; 3]).collect();
    let color = ImageBuffer::from_raw(16, 16, color).unwrap();
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        let gray = round_trip(DynamicImage::ImageLuma16(gray.clone()), format);
        assert_eq!(gray.as_raw(), &expected, "{format:?}");
        let color = round_trip(DynamicImage::ImageRgb16(color.clone()), format);
        assert_eq!(color.as_raw(), &expected, "{format:?}");
    }
}

#[test]
fn alpha_is_dropped_and_gray_replicated() {
    let rgba = ImageBuffer::from_fn(5, 4, |x, y| image::Rgba([10, x as u8, y as u8, 0]));
    let rgb = round_trip(DynamicImage::ImageRgba8(rgba), ImageFormat::Png);
    assert_eq!(rgb.get_pixel(3, 2).0, [10, 3, 2]);
    let gray = ImageBuffer::from_fn(5, 4, |x, _| image::Luma([40 * x as u8]));
    let rgb = round_trip(DynamicImage::ImageLuma8(gray), ImageFormat::Bmp);
    assert_eq!(rgb.get_pixel(3, 2).0, [120, 120, 120]);
}

#[test]
fn a_float_picture_is_scaled_and_clamped() {
    let values = vec![-1.0, 0.0, 0.5, 1.0, 2.0, 0.25];
    let float = ImageBuffer::from_raw(2, 1, values).unwrap();
    let rgb = round_trip(DynamicImage::ImageRgb32F(float), ImageFormat::Tiff);
    assert_eq!(rgb.as_raw(), &[0, 0, 128, 255, 255, 64]);
}

#[test]
fn the_format_is_told_by_content() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images");
    for (file, expected) in
        [("gray.jpg", "jpeg"), ("rgba.png", "png"), ("lossy.webp", "webp"), ("lzw.tiff", "tiff")]
    {
        let bytes = std::fs::read(folder.join(file)).unwrap();
        assert_eq!(decode_as(&bytes, &PixelFormat::RGB).unwrap().format, expected);
    }
}
