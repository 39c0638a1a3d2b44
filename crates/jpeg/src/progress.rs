//! Tracks which bits of the coefficients the scans have provided so far.

use crate::error::{Error, Result};
use crate::frame::{Frame, ScanHeader};

/// Number of coefficients of the lowest frequencies that must be known to their last bit. If one is
/// not, libjpeg estimates it from the surrounding blocks.
const LOWEST: usize = 10;

/// Marks a coefficient of which no scan has provided any bits.
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

    /// Records a scan.
    ///
    /// # Errors
    /// Returns [`Error::Corrupt`] if the scan repeats what is already known, or refines what is
    /// not.
    pub(crate) fn note(&mut self, scan: &ScanHeader) -> Result<()> {
        let ([first, last], [high, low]) = match self.progressive {
            true => (scan.spectrum, scan.bits),
            false => ([0, 63], [0, 0]),
        };
        let before = if high == 0 { UNKNOWN } else { high };
        for selected in &scan.components {
            let bits = &mut self.bits[selected.component];
            // The DC coefficient must come first.
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

    /// Checks that all bits that an image needs are known.
    ///
    /// # Errors
    /// Returns [`Error::Truncated`] if some are missing.
    pub(crate) fn expect_all(&self) -> Result<()> {
        let lowest = self.bits.iter().flat_map(|bits| &bits[..LOWEST]);
        if lowest.copied().all(|known| known == 0) { Ok(()) } else { Err(Error::Truncated) }
    }
}
