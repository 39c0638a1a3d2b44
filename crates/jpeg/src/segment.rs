//! Reads entropy-coded segments: the data of a scan from one restart marker to the next, without
//! the zero bytes that are stuffed after each 0xFF (T.81, B.1.1.5).

use memchr::memchr;

use crate::bits::PADDING;
use crate::error::{Error, Result};

/// The bytes of a file after the header of a scan.
#[derive(Debug, Clone)]
pub(crate) struct Segments<'a> {
    rest: &'a [u8],
    /// The bytes from the marker after the last segment on.
    last: &'a [u8],
}

impl<'a> Segments<'a> {
    pub(crate) fn new(rest: &'a [u8]) -> Self {
        Self { rest, last: rest }
    }

    /// Returns the rest of the file, from the marker after the last segment on.
    pub(crate) fn behind(&self) -> &'a [u8] {
        self.last
    }

    /// Writes the next segment to `out`, followed by [`PADDING`] zeros, and returns the marker
    /// after it.
    ///
    /// Segments are read one at a time, so `out` is the only memory that this uses.
    pub(crate) fn next(&mut self, out: &mut Vec<u8>) -> Result<u8> {
        out.clear();
        loop {
            let end = memchr(0xFF, self.rest).ok_or(Error::Truncated)?;
            let (data, behind) = self.rest.split_at(end);
            match *behind.get(1).ok_or(Error::Truncated)? {
                0 => {
                    out.extend_from_slice(&self.rest[..=end]);
                    self.rest = &behind[2..];
                }
                // Fill bytes. A 0 after them makes the last one data, as in libjpeg.
                0xFF => {
                    out.extend_from_slice(data);
                    self.rest = &behind[1..];
                }
                marker => {
                    out.extend_from_slice(data);
                    out.extend_from_slice(&[0; PADDING]);
                    (self.rest, self.last) = (&behind[2..], behind);
                    return Ok(marker);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stuffing_goes_and_markers_end_a_segment() {
        let bytes = [1, 0xFF, 0, 0xFF, 0, 2, 0xFF, 0xD0, 3, 0xFF, 0xFF, 0xFF, 0xD9, 4];
        let mut segments = Segments::new(&bytes);
        let mut out = Vec::new();
        assert_eq!(segments.next(&mut out), Ok(0xD0));
        assert_eq!(out, [&[1, 0xFF, 0xFF, 2][..], &[0; PADDING]].concat());
        assert_eq!(segments.next(&mut out), Ok(0xD9));
        assert_eq!(out, [&[3][..], &[0; PADDING]].concat());
        assert_eq!(segments.next(&mut out), Err(Error::Truncated));
        for end in 9..13 {
            let mut segments = Segments::new(&bytes[8..end]);
            assert_eq!(segments.next(&mut out), Err(Error::Truncated), "{end}");
        }
        let filled = [1, 0xFF, 0xFF, 0, 2, 0xFF, 0xE5, 7];
        let mut segments = Segments::new(&filled);
        assert_eq!((segments.next(&mut out), &out[..3]), (Ok(0xE5), &[1, 0xFF, 2][..]));
        assert_eq!(segments.behind(), &filled[5..]);
    }
}
