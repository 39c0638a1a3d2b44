//! Reads the bits of one entropy-coded segment, starting with the highest bit of each byte.
//!
//! Stuffed bytes have been removed from the segment ([`crate::segment`]), so many bits can be
//! loaded at once without searching for markers. Reads are not checked one by one either: the
//! segment is followed by zeros, and [`Bits::overrun`] detects reads beyond its end afterwards.

/// Number of zero bytes that must follow a segment.
pub(crate) const PADDING: usize = 8;

/// A bit reader with a buffer of 64 bits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bits<'a> {
    /// What has not been loaded yet: the rest of the segment and its padding.
    rest: &'a [u8],
    /// The next bits, starting with the highest bit.
    buffer: u64,
    /// Number of bits in the buffer, in the lowest six bits. Further bits may already be in the
    /// buffer, but are loaded again.
    count: u8,
    /// Number of zero bytes that were supplied after the end of the padding.
    added: usize,
}

impl<'a> Bits<'a> {
    /// Creates a reader of `data`, whose last [`PADDING`] bytes are zeros that do not belong to the
    /// segment.
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

    /// Returns the next `N` bits, which must be available, without dropping them.
    #[inline(always)]
    pub(crate) fn peek<const N: u32>(&self) -> usize {
        (self.buffer >> (64 - N)) as usize
    }

    /// Returns the next bits, starting with the highest bit; at least 56 are valid after a refill.
    #[inline(always)]
    pub(crate) fn all(&self) -> u64 {
        self.buffer
    }

    /// Drops up to 63 available bits. Only the lowest six bits of `count` matter.
    #[inline(always)]
    pub(crate) fn skip(&mut self, count: u8) {
        self.buffer <<= count & 63;
        self.count = self.count.wrapping_sub(count);
    }

    /// Returns whether more bits were dropped than the segment has.
    #[inline(always)]
    pub(crate) fn overrun(&self) -> bool {
        // `count` of the loaded bits are left. If the padding has been touched, the segment was too
        // short.
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
