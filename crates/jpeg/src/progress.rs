//! What the scans so far have brought.

use crate::error::{Error, Result};
use crate::frame::{Frame, ScanHeader};

/// Coefficients of the lowest frequencies, which must be known to their last bit: if one is not,
/// libjpeg estimates it from the surrounding blocks.
const LOWEST: usize = 10;

/// A coefficient that no scan has brought anything of.
const UNKNOWN: u8 = u8::MAX;

/// For each component and coefficient, the lowest bit that is known.
pub(crate) struct Progress {
    progressive: bool,
    bits: Vec<[u8; 64]>,
}

impl Progress {
    pub(crate) fn new(frame: &Frame) -> Self {
        let bits = vec![[UNKNOWN; 64]; frame.components.len()];
        Self { progressive: frame.progressive, bits }
    }

    /// Takes note of a scan.
    ///
    /// # Errors
    /// [`Error::Corrupt`]: it brings what was there, or refines what was not.
    pub(crate) fn note(&mut self, scan: &ScanHeader) -> Result<()> {
        let ([first, last], [high, low]) = match self.progressive {
            true => (scan.spectrum, scan.bits),
            false => ([0, 63], [0, 0]),
        };
        let before = if high == 0 { UNKNOWN } else { high };
        for selected in &scan.components {
            let bits = &mut self.bits[selected.component];
            // The mean comes first.
            if first > 0 && bits[0] == UNKNOWN {
                return Err(Error::Corrupt);
            }
            for known in &mut bits[first..=last] {
                if *known != before {
                    return Err(Error::Corrupt);
                }
                *known = low;
            }
        }
        Ok(())
    }

    /// Whether what makes up a picture is there.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    pub(crate) fn expect_all(&self) -> Result<()> {
        let lowest = self.bits.iter().flat_map(|bits| &bits[..LOWEST]);
        if lowest.copied().all(|known| known == 0) { Ok(()) } else { Err(Error::Truncated) }
    }
}
