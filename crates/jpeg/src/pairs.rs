//! Two coefficients in one look-up.
//!
//! Decoding waits for look-ups: where the next one is to be made is known only after the last. As most
//! codes are short, the next bits often tell of two coefficients, or of the last one of a block and its
//! end.

use crate::huffman::{LOOKUP_BITS, Symbol, Table};

/// Bits that are looked up at once. More of them find more pairs, but the tables must leave room in
/// the nearest cache.
pub(crate) const PAIR_BITS: u32 = 11;
const PAIRS: usize = 1 << PAIR_BITS;

/// Up to two coefficients.
///
/// From the lowest bit: 8 bits for the bits to be dropped, 8 for the step from the last coefficient to the
/// first one, 8 for that to the second one, 8 of which the highest says that the block ends, 16 for each
/// coefficient. Where there is only one, it stands there twice, with the same step; where there is
/// none, there is the zero that follows in any block. The bits to be dropped are the lowest, where a shift
/// takes its count from without further ado: this is the path that decoding waits on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pair(u64);

impl Pair {
    const END: u64 = 1 << 31;
    /// The bits do not tell: steps that lead out of any block.
    pub(crate) const UNKNOWN: Self = Self(64 << 16);

    fn one(length: u32, step: u32, value: i16) -> Self {
        let value = u64::from(value as u16);
        Self(u64::from(length | step << 8 | step << 16) | value << 32 | value << 48)
    }

    /// This coefficient, and what `next` tells.
    fn and(self, next: Self) -> Self {
        let length = (self.0 & 0xFF) + (next.0 & 0xFF);
        let first = self.0 & 0xFFFF_0000_FF00;
        if next.0 & 0xFFFF_FFFF_FF00 == Self::end(0).0 {
            return Self(self.0 & !0xFF | length | Self::END);
        }
        let steps = (self.0 & 0xFF_0000) + (next.0 & 0xFF_0000);
        Self(length | first | steps | next.0 & 0xFFFF << 48)
    }

    fn end(length: u32) -> Self {
        Self(Self::one(length, 1, 0).0 | Self::END)
    }

    /// Bits to be dropped.
    #[inline(always)]
    pub(crate) fn length(self) -> u8 {
        self.0 as u8
    }

    /// Places from the last coefficient to the first one.
    #[inline(always)]
    pub(crate) fn step(self) -> usize {
        (self.0 >> 8 & 0xFF) as usize
    }

    /// Places from the last coefficient to the second one.
    #[inline(always)]
    pub(crate) fn steps(self) -> usize {
        (self.0 >> 16 & 0x7F) as usize
    }

    #[inline(always)]
    pub(crate) fn first(self) -> i16 {
        (self.0 >> 32) as i16
    }

    #[inline(always)]
    pub(crate) fn second(self) -> i16 {
        (self.0 >> 48) as i16
    }

    /// Whether the block ends behind the second one.
    #[inline(always)]
    pub(crate) fn is_end(self) -> bool {
        (self.0 as i32) < 0
    }
}

/// A table to decode coefficients with.
#[derive(Debug)]
pub(crate) struct Pairs([Pair; PAIRS]);

impl Pairs {
    pub(crate) fn new(table: &Table) -> Self {
        let mut ones = [Pair::UNKNOWN; PAIRS];
        for (bits, one) in ones.iter_mut().enumerate() {
            let symbol = table.look_up(bits >> (PAIR_BITS - LOOKUP_BITS));
            let length = u32::from(symbol.length());
            if symbol == Symbol::UNKNOWN || length > PAIR_BITS {
                continue;
            }
            *one = match symbol.step() {
                0 => Pair::end(length),
                step => {
                    Pair::one(length, step as u32, symbol.number((bits as u64) << (64 - PAIR_BITS)))
                }
            };
        }
        let mut pairs = ones;
        for (bits, pair) in pairs.iter_mut().enumerate() {
            let length = u32::from(pair.length());
            if *pair == Pair::UNKNOWN || pair.is_end() {
                continue;
            }
            let next = ones[(bits << length) % PAIRS];
            if next != Pair::UNKNOWN && length + u32::from(next.length()) <= PAIR_BITS {
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
