//! Decodes two coefficients with one lookup.
//!
//! Decoding is limited by the latency of lookups, because the position of each one is known only
//! after the previous one. Most codes are short, so the next bits often determine two coefficients,
//! or the last one of a block and its end.

use crate::huffman::{LOOKUP_BITS, Symbol, Table};

/// Number of bits per lookup. More bits would find more pairs, but the tables must leave room in
/// the nearest cache.
pub(crate) const PAIR_BITS: u32 = 11;
const PAIRS: usize = 1 << PAIR_BITS;

/// Up to two coefficients, packed in 32 bits.
///
/// From the lowest bit: 6 bits for the number of bits to drop, 1 for the end of the block, 1 for
/// [`Pair::UNKNOWN`], 8 for the first coefficient, 4 for the number of skipped positions between
/// the previous coefficient and the first one, 5 for the step from the first one to the second one,
/// and 7 for the second coefficient. If there is only one coefficient, the second step is 0. If
/// there is none, the first one is the zero that follows in any block. The number of bits to drop
/// is lowest because a shift takes its count from there directly, and this is the critical path of
/// decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pair(u32);

impl Pair {
    const END: u32 = 1 << 6;
    /// The bits do not determine a coefficient that fits.
    pub(crate) const UNKNOWN: Self = Self(1 << 7);

    /// Creates a single coefficient, or `None` if the value does not fit.
    fn one(length: u32, step: u32, value: i16) -> Option<Self> {
        let value = i8::try_from(value).ok()?;
        Some(Self(length | u32::from(value as u8) << 8 | (step - 1) << 16))
    }

    fn end(length: u32) -> Self {
        Self(length | Self::END)
    }

    /// Combines this coefficient with what follows it in `next`. If that does not fit, returns only
    /// this one.
    fn and(self, next: Self) -> Self {
        let length = u32::from(next.length() & 63);
        if next.is_end() {
            return Self((self.0 + length) | Self::END);
        }
        match next.first() {
            -64..64 => {
                let second = (next.first() as u32) << 25 | (next.step() as u32) << 20;
                Self((self.0 + length) | second)
            }
            _ => self,
        }
    }

    /// Returns the number of bits to drop, in the lowest six bits; the others are not part of it.
    #[inline(always)]
    pub(crate) fn length(self) -> u8 {
        self.0 as u8
    }

    /// Returns the step from the previous coefficient to the first one.
    #[inline(always)]
    pub(crate) fn step(self) -> usize {
        (self.0 >> 16 & 15) as usize + 1
    }

    /// Returns the step from the first coefficient to the second one.
    #[inline(always)]
    pub(crate) fn second_step(self) -> usize {
        (self.0 >> 20 & 31) as usize
    }

    #[inline(always)]
    pub(crate) fn first(self) -> i16 {
        i16::from((self.0 >> 8) as i8)
    }

    /// Returns the second coefficient, which is valid only if the step to it is not 0.
    #[inline(always)]
    pub(crate) fn second(self) -> i16 {
        ((self.0 as i32) >> 25) as i16
    }

    /// Returns whether the block ends after these coefficients.
    #[inline(always)]
    pub(crate) fn is_end(self) -> bool {
        self.0 & Self::END != 0
    }

    /// Returns whether this is [`Pair::UNKNOWN`].
    #[inline(always)]
    pub(crate) fn is_unknown(self) -> bool {
        (self.0 as i8) < 0
    }
}

/// A table for decoding coefficients in pairs.
#[derive(Debug)]
pub(crate) struct Pairs([Pair; PAIRS]);

impl Pairs {
    #[inline(always)]
    pub(crate) fn new(table: &Table) -> Self {
        let mut ones = [Pair::UNKNOWN; PAIRS];
        for (bits, one) in ones.iter_mut().enumerate() {
            let symbol = table.look_up(bits >> (PAIR_BITS - LOOKUP_BITS));
            let length = u32::from(symbol.length());
            if symbol == Symbol::UNKNOWN || length > PAIR_BITS {
                continue;
            }
            let pair = match symbol.step() {
                0 => Some(Pair::end(length)),
                step => {
                    let number = symbol.number((bits as u64) << (64 - PAIR_BITS));
                    Pair::one(length, step as u32, number)
                }
            };
            *one = pair.unwrap_or(Pair::UNKNOWN);
        }
        let mut pairs = ones;
        for (bits, pair) in pairs.iter_mut().enumerate() {
            let length = u32::from(pair.length());
            if pair.is_unknown() || pair.is_end() {
                continue;
            }
            let next = ones[(bits << length) % PAIRS];
            if !next.is_unknown() && length + u32::from(next.length() & 63) <= PAIR_BITS {
                *pair = pair.and(next);
            }
        }
        Self(pairs)
    }

    #[inline(always)]
    pub(crate) fn look_up(&self, bits: usize) -> Pair {
        self.0[bits % PAIRS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::huffman::{Class, Codes};

    #[test]
    fn pairs_are_what_two_symbols_are() {
        // The codes are 00 (step 1, 1 bit), 01 (step 2, 3 bits), 10 (the end), and 1100 (a number
        // that is too long).
        let counts = [0, 3, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let codes = Codes { counts: &counts, symbols: &[0x01, 0x13, 0x00, 0x09] };
        let pairs = Pairs::new(&Table::new(&codes, Class::Ac).unwrap());
        let at =
            |text: &str| pairs.look_up(usize::from_str_radix(&format!("{text:0<11}"), 2).unwrap());
        let parts = |pair: Pair| {
            let steps = [pair.step(), pair.second_step()];
            (pair.length() & 63, steps, [pair.first(), pair.second()], pair.is_end())
        };
        assert_eq!(parts(at("001000")), (6, [1, 1], [1, -1], false));
        assert_eq!(parts(at("00101000")), (8, [1, 2], [1, -7], false));
        assert_eq!(parts(at("01101001")), (8, [2, 1], [5, 1], false));
        assert_eq!(parts(at("0110110")), (7, [2, 0], [5, 0], true));
        assert_eq!(parts(at("10")), (2, [1, 0], [0, 0], true));
        // The second code is too long, or there is none.
        assert_eq!(parts(at("011011100")), (5, [2, 0], [5, 0], false));
        assert_eq!(parts(at("001111")), (3, [1, 0], [1, 0], false));
        assert!(at("1100").is_unknown() && at("111").is_unknown());
    }
}
