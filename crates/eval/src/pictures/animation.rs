//! Animated WebP files. The `image` crate encodes single lossless WebP images; this module puts
//! them into an animation container, which, unlike GIF, needs no palette.

use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, RgbImage};

use crate::error::{Error, Result};

/// Longest side that the format allows, in pixels.
const MOST: u32 = 1 << 14;
/// Number of low bits of each channel that are rounded away, which is hardly visible and makes
/// files much smaller.
const ROUNDED: u32 = 2;

/// Encodes frames of equal size as a WebP animation that loops forever and shows each frame for
/// `milliseconds`.
///
/// # Errors
/// Returns an error if there is no frame, or if frames differ in size, are empty, or are too large
/// for the format.
///
/// # Source
/// WebP Container Specification (RFC 9649), sections 2.5 to 2.7.
pub fn animated_webp(frames: &[RgbImage], milliseconds: u32) -> Result<Vec<u8>> {
    let problem = |problem: String| Error::Setting { key: "frames", problem };
    let first = frames.first().ok_or_else(|| problem("needs at least one".to_owned()))?;
    let (width, height) = first.dimensions();
    if let Some(other) = frames.iter().find(|frame| frame.dimensions() != first.dimensions()) {
        let (w, h) = other.dimensions();
        return Err(problem(format!("differ in size: {width} x {height}, and {w} x {h}")));
    }
    if !(1..=MOST).contains(&width) || !(1..=MOST).contains(&height) {
        return Err(problem(format!("must have sides of 1 to {MOST} (got {width} x {height})")));
    }
    let size = [u24(width - 1), u24(height - 1)].concat();
    let mut body = b"WEBP".to_vec();
    const ANIMATION: u8 = 0b10;
    push(&mut body, *b"VP8X", &[&[ANIMATION, 0, 0, 0], size.as_slice()].concat());
    let (background, forever) = ([255u8; 4], [0u8; 2]);
    push(&mut body, *b"ANIM", &[background.as_slice(), &forever].concat());
    const OPAQUE: u8 = 0b10; // replaces the frame below
    for frame in frames {
        let mut content = [u24(0), u24(0)].concat(); // the position
        content.extend_from_slice(&size);
        content.extend_from_slice(&u24(milliseconds.min((1 << 24) - 1)));
        content.push(OPAQUE);
        content.extend_from_slice(&bitstream(frame)?);
        push(&mut body, *b"ANMF", &content);
    }
    let mut file = Vec::new();
    push(&mut file, *b"RIFF", &body);
    Ok(file)
}

/// Returns the chunks of an encoded image without the file header.
fn bitstream(frame: &RgbImage) -> Result<Vec<u8>> {
    let (width, height) = frame.dimensions();
    let pixels: Vec<u8> = frame.as_raw().iter().map(|&level| rounded(level)).collect();
    let mut file = Vec::new();
    let encoder = WebPEncoder::new_lossless(&mut file);
    let encoded = encoder.encode(&pixels, width, height, ExtendedColorType::Rgb8);
    encoded.map_err(|error| Error::Setting { key: "frames", problem: error.to_string() })?;
    Ok(file.split_off(12)) // without "RIFF", the size, and "WEBP"
}

fn rounded(level: u8) -> u8 {
    let half = 1 << (ROUNDED - 1);
    level.saturating_add(half) >> ROUNDED << ROUNDED
}

fn u24(value: u32) -> [u8; 3] {
    let [a, b, c, _] = value.to_le_bytes();
    [a, b, c]
}

/// Appends a chunk, padding its content to an even number of bytes.
fn push(to: &mut Vec<u8>, name: [u8; 4], content: &[u8]) {
    to.extend_from_slice(&name);
    to.extend_from_slice(&u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes());
    to.extend_from_slice(content);
    to.extend(std::iter::repeat_n(0, content.len() % 2));
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::time::Duration;

    use image::codecs::webp::WebPDecoder;
    use image::{AnimationDecoder, Rgb};

    use super::*;

    #[test]
    fn a_decoder_reads_the_frames_back() {
        for (width, height) in [(31, 17), (1, 1), (64, 40)] {
            let frame = |step: u32| {
                RgbImage::from_fn(width, height, |x, y| {
                    Rgb([(x * 8) as u8, (y * 4) as u8, (step * 40) as u8])
                })
            };
            let frames: Vec<RgbImage> = (0..5).map(frame).collect();
            let file = animated_webp(&frames, 80).unwrap();
            assert_eq!(file.len() % 2, 0);
            let decoder = WebPDecoder::new(Cursor::new(file)).unwrap();
            assert!(decoder.has_animation());
            let decoded = decoder.into_frames().collect_frames().unwrap();
            assert_eq!(decoded.len(), 5);
            for (decoded, frame) in decoded.iter().zip(&frames) {
                assert_eq!(Duration::from(decoded.delay()), Duration::from_millis(80));
                for (found, pixel) in decoded.buffer().pixels().zip(frame.pixels()) {
                    assert_eq!(found.0[..3], pixel.0.map(rounded));
                }
            }
        }
    }

    #[test]
    fn levels_are_rounded_to_the_nearest() {
        assert_eq!([0, 1, 2, 5, 6, 250, 255].map(rounded), [0, 0, 4, 4, 8, 252, 252]);
    }

    #[test]
    fn frames_that_do_not_fit_are_refused() {
        let message = |frames: &[RgbImage]| animated_webp(frames, 1).unwrap_err().to_string();
        assert!(message(&[]).contains("at least one"));
        assert!(message(&[RgbImage::new(3, 2), RgbImage::new(2, 3)]).contains("3 x 2, and 2 x 3"));
        assert!(message(&[RgbImage::new(0, 2)]).contains("0 x 2"));
        assert!(message(&[RgbImage::new(MOST + 1, 1)]).contains("16385"));
    }
}
