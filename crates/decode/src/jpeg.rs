//! JPEG: the usual kinds by our own decoder, and for the others, which `image` reads, whether the
//! file is whole.
//!
//! Our decoder has the last word on one thing only: that the data ends before the last pixel. Other
//! decoders fill what is missing with grey and say nothing. What it refuses for other reasons goes
//! to `image`, which knows more kinds and forgives more; since that fills, too, the file's structure
//! is walked before: every segment must lie inside the file and the last one must be the end marker.
//! The format is that of ITU-T T.81, annex B.

use ::jpeg::{Jpeg, MAX_PIXELS_PER_BYTE};
use image::metadata::Orientation;

use crate::raw::{Layout, Values};
use crate::{Failure, Parts, check_size};

const END_OF_IMAGE: u8 = 0xD9;
const START_OF_SCAN: u8 = 0xDA;

/// Reads a file of the kinds that the crate `jpeg` is made for; none for all others, and for what
/// is broken in other ways than by its end, or too large.
///
/// # Errors
/// [`Failure::Truncated`].
pub(super) fn read(bytes: &[u8]) -> Result<Option<Parts>, Failure> {
    let Ok(Some(jpeg)) = Jpeg::open(bytes) else { return Ok(None) };
    let (width, height, channels) = (jpeg.width(), jpeg.height(), jpeg.channels());
    let size = u64::from(width) * u64::from(height) * channels as u64;
    if check_size(width, height, size).is_err() {
        return Ok(None); // and said by `image`
    }
    let values = match jpeg.decode() {
        Ok(values) => Values::U8(values),
        Err(::jpeg::Error::Truncated) => return Err(Failure::Truncated),
        Err(_) => return Ok(None),
    };
    let orientation = jpeg.exif().and_then(Orientation::from_exif_chunk);
    let layout = Layout { width, height, channels, plane: None, alpha: false };
    Ok(Some((values, layout, orientation.unwrap_or(Orientation::NoTransforms))))
}

/// Whether the file reaches its end-of-image marker, with at least one scan before it, and is long
/// enough for the pixels that it announces.
///
/// The last keeps a few bytes from taking seconds: the decoder would fill in what is missing.
///
/// Bytes after that marker are ignored, as in viewers. Damage inside the pixel data that keeps
/// this structure cannot be seen here.
pub(super) fn is_complete(bytes: &[u8]) -> bool {
    let mut scans = 0;
    let mut position = 2; // behind the start-of-image marker
    loop {
        let Some((marker, after)) = next_marker(bytes, position) else { return false };
        match marker {
            END_OF_IMAGE => return scans > 0,
            0x01 | 0xD0..=0xD8 => position = after, // markers without a segment
            _ => {
                let Some(length) = bytes.get(after..after + 2) else { return false };
                let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                if is_frame(marker) && pixels(bytes, after) > bytes.len() * MAX_PIXELS_PER_BYTE {
                    return false;
                }
                position = after + length.max(2);
                scans += usize::from(marker == START_OF_SCAN);
            }
        }
    }
}

/// Whether the marker begins a frame: all of 0xC0 to 0xCF but three that stand for tables.
fn is_frame(marker: u8) -> bool {
    matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC)
}

/// Height times width of the frame whose segment begins at `start`; 0 where it is cut off.
fn pixels(bytes: &[u8], start: usize) -> usize {
    let Some(&[height, h, width, w]) = bytes.get(start + 3..).and_then(<[u8]>::first_chunk) else {
        return 0;
    };
    usize::from(u16::from_be_bytes([height, h])) * usize::from(u16::from_be_bytes([width, w]))
}

/// The next marker at or behind `position` and the place behind it. Entropy-coded data is passed
/// over: in it, 0xFF is followed by 0 (a stuffed byte) or by a restart marker.
fn next_marker(bytes: &[u8], mut position: usize) -> Option<(u8, usize)> {
    loop {
        let rest = bytes.get(position..)?;
        position += memchr::memchr(0xFF, rest)? + 1;
        match *bytes.get(position)? {
            0xFF => {} // fill bytes before a marker
            0x00 | 0xD0..=0xD7 => position += 1,
            marker => return Some((marker, position + 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_complete;

    #[test]
    fn the_end_marker_counts_only_outside_of_segments() {
        let whole = [
            &[0xFF, 0xD8][..],
            &[0xFF, 0xE1, 0, 6, 0xFF, 0xD9, 1, 2], // a thumbnail's end inside a segment
            &[0xFF, 0xDA, 0, 2, 7, 0xFF, 0x00, 0xFF, 0xD0, 9], // a scan with stuffing and restart
            &[0xFF, 0xFF, 0xD9],
        ]
        .concat();
        assert!(is_complete(&whole));
        assert!(is_complete(&[&whole[..], b"trailing"].concat()));
        for end in 0..whole.len() {
            assert!(!is_complete(&whole[..end]), "cut at {end}");
        }
        assert!(!is_complete(&[0xFF, 0xD8, 0xFF, 0xD9]), "no scan");
    }

    #[test]
    fn more_pixels_than_the_bytes_can_hold_are_missing() {
        let file = |height: u16, width: u16| {
            let [h, w] = [height, width].map(u16::to_be_bytes);
            let frame = [0xFF, 0xC2, 0, 11, 8, h[0], h[1], w[0], w[1], 1, 1, 0x11, 0];
            [&[0xFF, 0xD8][..], &frame, &[0xFF, 0xDA, 0, 2, 7, 7], &[0xFF, 0xD9]].concat()
        };
        let bytes = file(1, 1).len();
        assert!(is_complete(&file(8, 64 * bytes as u16)));
        assert!(!is_complete(&file(8, 64 * bytes as u16 + 1)));
        assert!(!is_complete(&file(65500, 65500)));
    }
}
