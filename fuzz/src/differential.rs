//! The JPEG decoder beside zune-jpeg, the one of the crate `image`.
//!
//! Compared are files in which every component has full resolution, gray or YCbCr, since the decoders
//! enlarge colors differently by design (ours as libjpeg-turbo does). Of these, whole blocks of 8x8 in which
//! no value was clamped: transforms of integers agree to a level or so wherever the true value is a level
//! at all, and beyond that each standard decoder overflows in its own way, which only damaged files show.
//! (A clamped color shows in RGB only once it is turned back, so blocks are judged in both.)
//!
//! Not compared is what one of them refuses. Ours refuses files that end early and data with code words that
//! no table has. Theirs is strict here: as `image` uses it, it ends a progressive file at the first scan that it
//! does not understand, and what it has is a picture all the same (where ours goes on, as libjpeg-turbo does,
//! and has its pixels).

use jpeg::Jpeg;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

/// Most levels between the two. Each transform rounds by up to one level; turning YCbCr into RGB multiplies
/// the difference of a color by up to 1.8, and rounds again.
const TOLERANCE: u8 = 4;
/// Larger pictures are for time, not for truth.
const MAX_PIXELS: u32 = 1 << 20;
/// Side of a block.
const SIDE: usize = 8;

/// A JPEG file through both decoders. Accepted means accepted by ours.
pub fn jpeg(bytes: &[u8]) -> bool {
    let Ok(photo) = Jpeg::open(bytes) else { return false };
    if photo.width().saturating_mul(photo.height()) > MAX_PIXELS {
        return false;
    }
    let Ok(ours) = photo.decode() else { return false };
    if !full_resolution(bytes) {
        return true;
    }
    let colors = if photo.channels() == 1 { ColorSpace::Luma } else { ColorSpace::RGB };
    let strict = DecoderOptions::default().set_strict_mode(true).jpeg_set_out_colorspace(colors);
    let Ok(theirs) = JpegDecoder::new_with_options(ZCursor::new(bytes), strict).decode() else {
        return true;
    };
    assert_eq!(ours.len(), theirs.len(), "the decoders see pictures of different sizes");
    let row = photo.width() as usize * photo.channels();
    if let Some((x, y, worst)) = disagreement(&ours, &theirs, row, photo.channels()) {
        panic!("the decoders differ by {worst} levels in the block at {x}, {y}");
    }
    true
}

/// The first block that neither decoder clamped and in which they are not of one mind.
fn disagreement(
    ours: &[u8],
    theirs: &[u8],
    row: usize,
    channels: usize,
) -> Option<(usize, usize, u8)> {
    // What lies beyond an edge is not seen, so nobody knows whether it was clamped: whole blocks only.
    let [across, down] = [row / channels / SIDE, ours.len() / row / SIDE];
    let blocks = (0..down).flat_map(|y| (0..across).map(move |x| (x * SIDE, y * SIDE)));
    blocks.into_iter().find_map(|(x, y)| {
        let pixels = (y..y + SIDE).flat_map(|y| (x..x + SIDE).map(move |x| y * row + x * channels));
        let mut worst = 0;
        for at in pixels {
            let [a, b] = [ours, theirs].map(|picture| &picture[at..at + channels]);
            if clamped(a) || clamped(b) {
                return None;
            }
            worst = a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).fold(worst, u8::max);
        }
        (worst > TOLERANCE).then_some((x, y, worst))
    })
}

/// Whether a value of the pixel, or the luminance or color that it was made of, lies at an end of its range.
fn clamped(pixel: &[u8]) -> bool {
    const MARGIN: f32 = 4.0;
    let inside = |value: f32| (MARGIN..=255.0 - MARGIN).contains(&value);
    let values: Vec<f32> = pixel.iter().copied().map(f32::from).collect();
    let made_of = match values[..] {
        [r, g, b] => {
            let y = 0.299 * r + 0.587 * g + 0.114 * b;
            vec![y, 128.0 + 0.564 * (b - y), 128.0 + 0.713 * (r - y)]
        }
        _ => Vec::new(),
    };
    !values.into_iter().chain(made_of).all(inside)
}

/// Whether the frame header names one component, or three of factors 1x1 called 1, 2, and 3, which every
/// decoder takes for YCbCr unless an Adobe segment says otherwise.
fn full_resolution(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(2..).unwrap_or_default();
    loop {
        let Some(start) = rest.windows(2).position(|pair| pair[0] == 0xFF && pair[1] > 0xBF) else {
            return false;
        };
        let (marker, segment) = (rest[start + 1], &rest[start + 2..]);
        match (marker, segment) {
            (0xC0..=0xC2, [_, _, _, _, _, _, _, 1, ..]) => return true,
            (0xC0..=0xC2, [_, _, _, _, _, _, _, 3, 1, 0x11, _, 2, 0x11, _, 3, 0x11, ..]) => {
                return true;
            }
            (0xC0..=0xC2 | 0xDA | 0xEE, _) => return false,
            (0xD0..=0xD9, _) | (_, [] | [_]) => rest = segment,
            (_, [high, low, ..]) => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                rest = segment.get(length..).unwrap_or_default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(
        ours: &[u8],
        theirs: &[u8],
        row: usize,
        channels: usize,
    ) -> Option<(usize, usize, u8)> {
        disagreement(ours, theirs, row, channels)
    }

    #[test]
    fn what_rounding_explains_is_no_disagreement() {
        let gray = [100; 16 * 17];
        let mut other = gray;
        other[16 * 8 + 9] += TOLERANCE;
        assert_eq!(found(&gray, &other, 16, 1), None);
        other[16 * 8 + 9] += 1;
        assert_eq!(found(&gray, &other, 16, 1), Some((8, 8, TOLERANCE + 1)));
        other[16 * 8 + 10] = 255; // in the same block
        assert_eq!(found(&gray, &other, 16, 1), None);
        other[16 * 16] = 90; // in no whole block
        assert_eq!(found(&gray, &other, 16, 1), None);
        other[0] = 90;
        assert_eq!(found(&gray, &other, 16, 1), Some((0, 0, 10)));
    }

    #[test]
    fn a_clamped_color_is_seen_in_rgb() {
        assert!(!clamped(&[120, 130, 140]));
        assert!(!clamped(&[9]) && clamped(&[255]) && clamped(&[0]));
        assert!(!clamped(&[5, 5, 240]) && clamped(&[4, 4, 251])); // Cb is 245, and 251.4
    }

    #[test]
    fn the_frame_header_is_found() {
        let all: Vec<bool> =
            crate::seeds::jpeg().iter().map(|seed| full_resolution(seed)).collect();
        assert!(all.contains(&true) && all.contains(&false));
    }
}
