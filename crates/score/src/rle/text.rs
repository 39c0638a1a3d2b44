//! Run lengths as compressed strings in COCO files.
//!
//! From the fourth run on, a length is stored as its difference from the length two runs before. A
//! number is split into groups of five bits, the lowest first. A sixth bit says that another group
//! follows, and the highest bit of the last group is the sign. Each group plus 48 is a printable
//! character.

use super::{Rle, pixels};
use crate::MaskError;

const FIRST: u8 = b'0';
const MORE: i64 = 0x20;
/// More groups would overflow 64 bits.
const MAX_GROUPS: u32 = 12;

impl Rle {
    /// Reads a mask from a string written by [`Rle::to_text`] or pycocotools.
    ///
    /// # Errors
    /// Returns [`MaskError::Character`], [`MaskError::CutOff`], or [`MaskError::Run`], and fails
    /// like [`Rle::new`].
    pub fn from_text(height: u32, width: u32, text: &str) -> Result<Self, MaskError> {
        pixels(height, width)?;
        let mut counts: Vec<u32> = Vec::new();
        let mut bytes = text.bytes().enumerate();
        while let Some(number) = number(&mut bytes)? {
            let index = counts.len();
            let before = if index > 2 { i64::from(counts[index - 2]) } else { 0 };
            let count = number + before;
            counts.push(u32::try_from(count).map_err(|_| MaskError::Run { index, count })?);
        }
        Self::new(height, width, counts)
    }

    /// Returns the run lengths as a string, byte for byte the same as that of pycocotools.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (index, &count) in self.counts().iter().enumerate() {
            let before = if index > 2 { i64::from(self.counts()[index - 2]) } else { 0 };
            push(&mut text, i64::from(count) - before);
        }
        text
    }
}

fn push(text: &mut String, mut number: i64) {
    loop {
        let group = number & 0x1f;
        number >>= 5;
        let negative = group & 0x10 != 0;
        let last = number == if negative { -1 } else { 0 };
        text.push(char::from(FIRST + (if last { group } else { group | MORE }) as u8));
        if last {
            return;
        }
    }
}

/// Reads the next number; returns `None` at the end of the text.
fn number(bytes: &mut impl Iterator<Item = (usize, u8)>) -> Result<Option<i64>, MaskError> {
    let mut number = 0;
    for group in 0..MAX_GROUPS {
        let Some((place, byte)) = bytes.next() else {
            return if group == 0 { Ok(None) } else { Err(MaskError::CutOff) };
        };
        let bits = i64::from(byte) - i64::from(FIRST);
        if !(0..64).contains(&bits) {
            return Err(MaskError::Character { place, byte });
        }
        number |= (bits & 0x1f) << (5 * group);
        if bits & MORE == 0 {
            if bits & 0x10 != 0 {
                number |= -1 << (5 * (group + 1));
            }
            return Ok(Some(number));
        }
    }
    Err(MaskError::CutOff)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn broken_strings_are_named() {
        let read = |text: &str| Rle::from_text(4, 4, text).unwrap_err();
        assert!(matches!(read("0\u{7f}"), MaskError::Character { place: 1, byte: 0x7f }));
        assert!(matches!(read("0é"), MaskError::Character { place: 1, .. }));
        assert!(matches!(read("0P"), MaskError::CutOff));
        assert!(matches!(read(&"P".repeat(40)), MaskError::CutOff));
        // The first length is -1.
        assert!(matches!(read("O"), MaskError::Run { index: 0, count: -1 }));
        assert!(matches!(read("11"), MaskError::Counts { sum: 2, .. }));
        assert!(matches!(read(""), MaskError::Counts { sum: 0, .. }));
    }

    proptest! {
        #[test]
        fn a_string_gives_back_its_lengths(counts in prop::collection::vec(0_u32..100_000, 1..40)) {
            let height = counts.iter().sum();
            let mask = Rle::new(height, 1, counts).unwrap();
            prop_assert_eq!(Rle::from_text(height, 1, &mask.to_text()).unwrap(), mask);
        }

        #[test]
        fn no_string_panics(text in "[0-~]{0,30}", height in 0_u32..70_000, width in 0_u32..70_000) {
            let _ = Rle::from_text(height, width, &text);
        }
    }
}
