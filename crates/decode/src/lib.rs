#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations, unreachable_pub)]

mod bmp;
mod error;
mod generic;
mod ifd;
mod jpeg;
mod labels;
mod orientation;
mod parts;
mod pixels;
mod png;
mod raw;
mod tiff;
mod webp;

use std::panic::{AssertUnwindSafe, catch_unwind};

use image::error::DecodingError;
use image::metadata::Orientation;
use image::{ImageError, ImageFormat, RgbImage};

pub use error::{Error, Result};
pub use labels::{LabelImage, LabelPixels, read_labels};
pub use parts::{MAX_IMAGE_BYTES, MAX_PIXELS};
pub use pixels::{Image, PixelFormat};
pub use raw::Raw;

use generic::read_dynamic;
use parts::{Failure, Parts};

/// Decodes one image file to RGB; see the [crate](self) documentation for the conversions.
///
/// # Errors
/// Same as [`decode_as`].
pub fn decode(bytes: &[u8]) -> Result<RgbImage> {
    let image = decode_as(bytes, &PixelFormat::RGB)?.image;
    let (width, height) = image.dimensions();
    // The number of bytes always matches.
    Ok(RgbImage::from_raw(width, height, image.into_data()).unwrap_or_default())
}

/// A decoded image and the format of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// The pixels.
    pub image: Image,
    /// Name of the format: "jpeg", "png", "webp", "tiff", or "bmp".
    pub format: &'static str,
}

/// Decodes one image file to the format that `pixels` requests.
///
/// # Errors
/// Returns the errors of [`read`], and [`Error::Channels`] if the file has a different number of
/// channels.
pub fn decode_as(bytes: &[u8], pixels: &PixelFormat) -> Result<Decoded> {
    let raw = read(bytes)?;
    let format = raw.format();
    Ok(Decoded { image: raw.into_image(pixels)?, format })
}

/// Decodes one image file without converting its values.
///
/// # Errors
/// Returns [`Error::Empty`], [`Error::UnknownFormat`], [`Error::Truncated`], [`Error::TooLarge`],
/// [`Error::Decode`] (also for an image of more than [`MAX_IMAGE_BYTES`]), or
/// [`Error::DecoderPanic`].
pub fn read(bytes: &[u8]) -> Result<Raw> {
    let (kind, format) = guess_format(bytes)?;
    // The decoders have no state that outlives this call, so a panic leaves nothing half-modified
    // behind.
    let decoded = catch_unwind(AssertUnwindSafe(|| read_as(bytes, kind)));
    match decoded {
        Ok(Ok((values, layout, orientation))) => Ok(Raw { values, layout, orientation, format }),
        Ok(Err(failure)) => Err(failure.into_error(format)),
        Err(payload) => {
            let message = base::panic_message(payload.as_ref()).unwrap_or("no message").to_owned();
            Err(Error::DecoderPanic { format, message })
        }
    }
}

fn guess_format(bytes: &[u8]) -> Result<(ImageFormat, &'static str)> {
    if bytes.is_empty() {
        return Err(Error::Empty);
    }
    let format = match bytes {
        // TIFF with 64-bit offsets, which `image` does not know.
        [b'I', b'I', 43, 0, ..] | [b'M', b'M', 0, 43, ..] => ImageFormat::Tiff,
        _ => image::guess_format(bytes).map_err(|_| Error::UnknownFormat)?,
    };
    let name = match format {
        ImageFormat::Jpeg => "jpeg",
        ImageFormat::Png => "png",
        ImageFormat::WebP => "webp",
        ImageFormat::Tiff => "tiff",
        ImageFormat::Bmp => "bmp",
        _ => return Err(Error::UnknownFormat),
    };
    Ok((format, name))
}

fn read_as(bytes: &[u8], format: ImageFormat) -> std::result::Result<Parts, Failure> {
    let orientation = match format {
        ImageFormat::Jpeg => return jpeg::read(bytes),
        ImageFormat::Tiff => return tiff::read(bytes),
        ImageFormat::WebP if !webp::has_whole_chunks(bytes) => return Err(Failure::Truncated),
        ImageFormat::Png if !png::has_whole_palette(bytes) => {
            let reason = "the palette ends inside a color";
            return Err(ImageError::Decoding(DecodingError::new(format.into(), reason)).into());
        }
        ImageFormat::WebP => orientation::of(&webp::metadata(bytes)),
        ImageFormat::Png => png::orientation(bytes),
        _ => Orientation::NoTransforms,
    };
    let image = match format {
        ImageFormat::Bmp => bmp::read(bytes)?,
        ImageFormat::WebP => read_dynamic(&webp::with_first_frame_as_it_is(bytes), format)?,
        _ => read_dynamic(bytes, format)?,
    };
    let (values, layout) = raw::of_dynamic(image);
    Ok((values, layout, orientation))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::io::Cursor;

    use image::DynamicImage;

    use super::*;

    fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn gradient(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            image::Rgb([(x * 7 % 256) as u8, (y * 5 % 256) as u8, ((x + y) * 3 % 256) as u8])
        })
    }

    const ALL: [ImageFormat; 5] = [
        ImageFormat::Jpeg,
        ImageFormat::Png,
        ImageFormat::WebP,
        ImageFormat::Tiff,
        ImageFormat::Bmp,
    ];

    #[test]
    fn a_palette_of_parts_of_colors_is_an_error() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/images/palette.png");
        let bytes = std::fs::read(path).unwrap();
        let place = bytes.windows(4).position(|name| name == b"PLTE").unwrap();
        let mut length = [0; 4];
        length.copy_from_slice(&bytes[place - 4..place]);
        // Adds one byte, and updates the checksum of the whole chunk, which the decoder verifies
        // first.
        let old = u32::from_be_bytes(length) as usize;
        let mut chunk = bytes[place..place + 4 + old].to_vec();
        chunk.push(7);
        let mut longer = bytes[..place - 4].to_vec();
        longer.extend((old as u32 + 1).to_be_bytes());
        longer.extend(&chunk);
        longer.extend(crc32(&chunk).to_be_bytes());
        longer.extend(&bytes[place + 8 + old..]);
        let error = decode(&longer).unwrap_err();
        assert!(matches!(error, Error::Decode { format: "png", .. }), "{error:?}");
    }

    #[test]
    fn a_jpeg_whose_data_ends_early_is_cut_off_whatever_its_end_says() {
        let picture = gradient(90, 70);
        let bytes = encoded(&picture.into(), ImageFormat::Jpeg);
        assert!(decode(&bytes).is_ok());
        for lost in [12, 100, 1000] {
            let end = &bytes[bytes.len() - 2..];
            let short = [&bytes[..bytes.len() - 2 - lost], end].concat();
            let error = decode(&short).unwrap_err();
            assert!(matches!(error, Error::Truncated { format: "jpeg" }), "{lost}: {error:?}");
        }
    }

    #[test]
    fn lossless_formats_keep_every_pixel() {
        let picture = gradient(37, 23);
        for format in &ALL[1..] {
            let bytes = encoded(&picture.clone().into(), *format);
            assert_eq!(decode(&bytes).unwrap(), picture, "{format:?}");
        }
    }

    #[test]
    fn every_cut_of_a_file_is_an_error_or_the_whole_picture() {
        let picture = gradient(40, 30);
        for format in ALL {
            let bytes = encoded(&picture.clone().into(), format);
            let whole = decode(&bytes).unwrap();
            for end in (0..bytes.len()).step_by(7) {
                // A file that lacks only trailing metadata may pass (but the directory of a TIFF is
                // not metadata).
                if let Ok(image) = decode(&bytes[..end]) {
                    assert!(image == whole, "{format:?} cut at {end} of {}", bytes.len());
                }
            }
            let half = decode(&bytes[..bytes.len() / 2]);
            assert!(half.is_err(), "{format:?}: {half:?}");
        }
        let bytes = encoded(&picture.into(), ImageFormat::Jpeg);
        let cut = decode(&bytes[..bytes.len() - 40]);
        assert!(matches!(cut, Err(Error::Truncated { format: "jpeg" })), "{cut:?}");
    }

    #[test]
    fn what_is_no_image_is_named() {
        assert!(matches!(decode(b""), Err(Error::Empty)));
        assert!(matches!(decode(b"hello, this is text"), Err(Error::UnknownFormat)));
        assert!(matches!(decode(b"GIF89a\x01\x00\x01\x00"), Err(Error::UnknownFormat)));
    }

    #[test]
    fn a_bomb_is_refused_before_memory_is_taken() {
        // Writes the header of a 65500 x 65500 JPEG (12.9 GB as RGB) over the data of a small one.
        let mut bytes = encoded(&gradient(16, 16).into(), ImageFormat::Jpeg);
        let frame = bytes.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
        bytes[frame + 5..frame + 9].copy_from_slice(&[0xFF, 0xDC, 0xFF, 0xDC]);
        assert!(matches!(decode(&bytes), Err(Error::TooLarge { width: 65500, .. })));
        // The same with enough bytes for that many pixels, if they were valid data.
        bytes.resize(9 << 20, 0);
        assert!(matches!(decode(&bytes), Err(Error::TooLarge { width: 65500, .. })));
    }

    /// Encodes a small picture, with a header that announces 14000 x 14000 pixels.
    fn forged(format: ImageFormat) -> Vec<u8> {
        let mut bytes = encoded(&gradient(16, 16).into(), format);
        let side = 14000_u32;
        match format {
            ImageFormat::Bmp => {
                bytes[18..22].copy_from_slice(&side.to_le_bytes());
                bytes[22..26].copy_from_slice(&side.to_le_bytes());
            }
            ImageFormat::Png => {
                // IHDR consists of its length, its name, width, height, five more bytes, and the
                // checksum of all but the length.
                bytes[16..20].copy_from_slice(&side.to_be_bytes());
                bytes[20..24].copy_from_slice(&side.to_be_bytes());
                let sum = crc32(&bytes[12..29]);
                bytes[29..33].copy_from_slice(&sum.to_be_bytes());
            }
            ImageFormat::WebP => {
                // The lossless stream begins with 0x2F, and 14 bits each for the width and height
                // minus 1.
                let start = bytes.windows(4).position(|name| name == b"VP8L").unwrap() + 9;
                let flags = u32::from_le_bytes(*bytes[start..].first_chunk().unwrap()) >> 28 << 28;
                let sides = (side - 1) | (side - 1) << 14 | flags;
                bytes[start..start + 4].copy_from_slice(&sides.to_le_bytes());
            }
            ImageFormat::Tiff => {
                // A directory entry has twelve bytes: tag, type, count, and value.
                for tag in [256_u16, 257] {
                    let mut entry = tag.to_le_bytes().to_vec();
                    entry.extend([4, 0, 1, 0, 0, 0, 16, 0, 0, 0]);
                    let place = bytes.windows(12).position(|window| window == entry);
                    let value = place.unwrap() + 8;
                    bytes[value..value + 4].copy_from_slice(&side.to_le_bytes());
                }
            }
            other => panic!("{other:?}"),
        }
        bytes
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
            })
        })
    }

    #[test]
    fn more_pixels_than_the_limit_are_refused_by_name() {
        for (format, name) in [
            (ImageFormat::Bmp, "bmp"),
            (ImageFormat::Png, "png"),
            (ImageFormat::WebP, "webp"),
            (ImageFormat::Tiff, "tiff"),
        ] {
            let error = decode(&forged(format)).unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, Error::TooLarge { width: 14000, .. }), "{name}: {error:?}");
            assert!(text.starts_with(name) && text.contains("14000x14000"), "{text}");
        }
    }

    /// 13000 x 13000 pixels are below the limit, but in a file of a few hundred bytes, the decoder
    /// would have to make up almost all of them, which takes long.
    #[test]
    fn a_jpeg_too_short_for_its_pixels_is_cut_off() {
        let mut bytes = encoded(&gradient(16, 16).into(), ImageFormat::Jpeg);
        let frame = bytes.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
        bytes[frame + 5..frame + 9].copy_from_slice(&[0x32, 0xC8, 0x32, 0xC8]);
        assert!(matches!(decode(&bytes), Err(Error::Truncated { format: "jpeg" })));
        // A picture of a single color, which takes the smallest possible file, passes.
        let flat = RgbImage::from_pixel(2000, 2000, image::Rgb([90; 3]));
        let bytes = encoded(&flat.into(), ImageFormat::Jpeg);
        assert_eq!(decode(&bytes).unwrap().dimensions(), (2000, 2000), "{} bytes", bytes.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn damaged_bytes_never_panic(
            which in 0_usize..5,
            hits in proptest::collection::vec((0.0_f64..1.0, any::<u8>()), 1..8),
        ) {
            let mut bytes = encoded(&gradient(24, 24).into(), ALL[which]);
            for (place, value) in hits {
                let index = (place * bytes.len() as f64) as usize;
                bytes[index] = value;
            }
            // Any result is fine, as long as the call returns.
            let answer = decode(&bytes);
            prop_assert!(!matches!(answer, Err(Error::Empty)));
        }
    }
}
