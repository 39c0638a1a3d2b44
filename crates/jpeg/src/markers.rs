//! Markers and their segments (T.81, B.1.1).

use memchr::memchr;

use crate::error::{Error, Result};

/// The second bytes of markers.
pub(crate) mod marker {
    pub(crate) const PROGRESSIVE_FRAME: u8 = 0xC2;
    pub(crate) const HUFFMAN_TABLES: u8 = 0xC4;
    pub(crate) const ARITHMETIC_CONDITIONING: u8 = 0xCC;
    pub(crate) const FIRST_RESTART: u8 = 0xD0;
    pub(crate) const LAST_RESTART: u8 = 0xD7;
    pub(crate) const START_OF_IMAGE: u8 = 0xD8;
    pub(crate) const END_OF_IMAGE: u8 = 0xD9;
    pub(crate) const START_OF_SCAN: u8 = 0xDA;
    pub(crate) const QUANTIZATION_TABLES: u8 = 0xDB;
    pub(crate) const NUMBER_OF_LINES: u8 = 0xDC;
    pub(crate) const RESTART_INTERVAL: u8 = 0xDD;
    pub(crate) const JFIF: u8 = 0xE0;
    pub(crate) const EXIF_OR_XMP: u8 = 0xE1;
    pub(crate) const ADOBE: u8 = 0xEE;
    pub(crate) const LAST_APPLICATION: u8 = 0xEF;
    pub(crate) const COMMENT: u8 = 0xFE;
}

/// A marker and the contents of its segment, which are empty for the end marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment<'a> {
    pub(crate) marker: u8,
    pub(crate) content: &'a [u8],
}

/// Returns the next segment and the data after it. Bytes that are not a marker are skipped, as in
/// libjpeg, and so are restart markers, because some encoders write one after the last interval.
///
/// # Errors
/// Returns [`Error::Truncated`], or [`Error::Segment`] for a marker that may not occur at this
/// position.
pub(crate) fn next_segment(mut bytes: &[u8]) -> Result<(Segment<'_>, &[u8])> {
    loop {
        let at = memchr(0xFF, bytes).ok_or(Error::Truncated)?;
        let [_, marker, rest @ ..] = &bytes[at..] else { return Err(Error::Truncated) };
        let marker = *marker;
        match marker {
            // A fill byte, or one that does not begin a marker.
            0xFF => bytes = &bytes[at + 1..],
            0x00 | 0x01 | marker::FIRST_RESTART..=marker::LAST_RESTART => bytes = rest,
            marker::END_OF_IMAGE => return Ok((Segment { marker, content: &[] }, rest)),
            0x02..=0xBF | marker::START_OF_IMAGE => return Err(Error::Segment { marker }),
            _ => {
                let (length, rest) = rest.split_first_chunk().ok_or(Error::Truncated)?;
                let length = usize::from(u16::from_be_bytes(*length));
                let length = length.checked_sub(2).ok_or(Error::Segment { marker })?;
                let parts = rest.split_at_checked(length).ok_or(Error::Truncated)?;
                return Ok((Segment { marker, content: parts.0 }, parts.1));
            }
        }
    }
}

/// Checks that an end marker follows, after any number of complete segments.
///
/// # Errors
/// Same as [`next_segment`].
pub(crate) fn expect_end(mut bytes: &[u8]) -> Result<()> {
    loop {
        let (segment, rest) = next_segment(bytes)?;
        if segment.marker == marker::END_OF_IMAGE {
            return Ok(());
        }
        bytes = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_come_one_after_the_other() {
        let bytes = [7, 0xFF, 0xFF, 0xE1, 0, 4, 0xFF, 0xD9, 0xFF, 0, 0xFF, 0xD3, 0xFF, 0xD9, 8];
        let (first, rest) = next_segment(&bytes).unwrap();
        assert_eq!(first, Segment { marker: 0xE1, content: &[0xFF, 0xD9] });
        let (second, rest) = next_segment(rest).unwrap();
        assert_eq!((second, rest), (Segment { marker: 0xD9, content: &[] }, &[8][..]));
        assert_eq!(expect_end(&bytes), Ok(()));
        for end in 0..bytes.len() - 1 {
            assert_eq!(expect_end(&bytes[..end]), Err(Error::Truncated), "{end}");
        }
        for (marker, length) in [(0xE0, 1), (0xD8, 2), (0x02, 2)] {
            let broken = next_segment(&[0xFF, marker, 0, length]).err();
            assert_eq!(broken, Some(Error::Segment { marker }));
        }
    }
}
