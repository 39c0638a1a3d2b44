//! Reads the bits of one entropy-coded segment, from the highest of each byte.
//!
//! Stuffed bytes were removed from the segment before ([`crate::segment`]), so that many bits can
//! be loaded at once without searching for markers. Nothing is checked per bit either: the segment
//! is followed by zeros, and [`Bits::overrun`] detects reads beyond its end afterwards.

/// Zero bytes that a segment must have behind its end.
pub(crate) const PADDING: usize = 8;

/// A reader that holds up to 64 bits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bits<'a> {
    /// What is to be loaded: the rest of the segment and its padding.
    rest: &'a [u8],
    /// The next bits, from the highest.
    buffer: u64,
    /// How many of them are accounted for, in the lowest six bits; those behind them may be there
    /// already, but are loaded again.
    count: u8,
    /// Zero bytes that were added to the padding.
    added: usize,
}

impl<'a> Bits<'a> {
    /// Bits of `data`, the last [`PADDING`] bytes of which are zero and do not belong to it.
    #[inline(always)]
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { rest: data, buffer: 0, count: 0, added: 0 }
    }

    /// Makes at least 56 bits available.
    #[inline(always)]
    pub(crate) fn refill(&mut self) {
        let bytes = usize::from(63_u8.wrapping_sub(self.count) & 63) >> 3;
        match self.rest.first_chunk() {
            Some(next) => {
                self.buffer |= u64::from_be_bytes(*next) >> (self.count & 63);
                self.rest = &self.rest[bytes..];
            }
            None => self.added += bytes,
        }
        self.count |= 56;
    }

    /// The next `N` bits, which must be available; they stay.
    #[inline(always)]
    pub(crate) fn peek<const N: u32>(&self) -> usize {
        (self.buffer >> (64 - N)) as usize
    }

    /// The next bits, from the highest; at least 56 after a refill.
    #[inline(always)]
    pub(crate) fn all(&self) -> u64 {
        self.buffer
    }

    /// Drops available bits, up to 63: only the lowest six bits of `count` matter.
    #[inline(always)]
    pub(crate) fn skip(&mut self, count: u8) {
        self.buffer <<= count & 63;
        self.count = self.count.wrapping_sub(count);
    }

    /// Whether more bits were dropped than there were.
    #[inline(always)]
    pub(crate) fn overrun(&self) -> bool {
        // Of what was loaded, `count` bits are left; the padding may not be touched.
        8 * (PADDING + self.added) > 8 * self.rest.len() + usize::from(self.count & 63)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_in_order_and_the_end_is_noticed() {
        let data: Vec<u8> = (0..40_u8).map(|i| i.wrapping_mul(91)).chain([0; PADDING]).collect();
        let expected = |at: usize| data[at / 8] >> (7 - at % 8) & 1;
        for step in 1..=11 {
            let mut bits = Bits::new(&data);
            let mut at = 0;
            while at + step <= 320 {
                bits.refill();
                let got = bits.peek::<11>() >> (11 - step);
                let want = (at..at + step).fold(0, |sum, i| sum << 1 | usize::from(expected(i)));
                assert_eq!(got, want, "{step} bits at {at}");
                bits.skip(step as u8);
                at += step;
                assert!(!bits.overrun(), "{at}");
            }
            bits.refill();
            bits.skip((321 - at) as u8);
            assert!(bits.overrun());
            for _ in 0..20 {
                bits.refill();
                bits.skip(50);
            }
            assert!(bits.overrun());
        }
    }
}
