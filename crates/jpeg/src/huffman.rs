//! Builds Huffman tables, which decode most symbols with one lookup, from the code lengths in a
//! file.

use crate::error::{Error, Result};

/// Number of bits per lookup.
pub(crate) const LOOKUP_BITS: u32 = 10;
const LOOKUP: usize = 1 << LOOKUP_BITS;
/// Length of the longest code, in bits.
const LONGEST: u32 = 16;

/// A table as it is stored in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Codes<'a> {
    /// Number of codes of each length from 1 to 16.
    pub(crate) counts: &'a [u8; 16],
    /// The symbols, from the shortest code to the longest.
    pub(crate) symbols: &'a [u8],
}

/// A symbol, with what is needed to read the number after its code.
///
/// From the lowest byte: the number of bits to drop (of the code and of the number); the length of
/// the code; 63 minus the length of the number; the step from the previous coefficient to this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Symbol(u32);

impl Symbol {
    /// The bits are the beginning of a longer code, or not a code.
    pub(crate) const UNKNOWN: Self = Self(0);

    fn new(length: u32, (step, size): (u32, u32)) -> Self {
        Self((length + size) | length << 8 | (63 - size) << 16 | step << 24)
    }

    /// Returns the number of bits to drop.
    #[inline(always)]
    pub(crate) fn length(self) -> u8 {
        self.0 as u8
    }

    /// Returns the step from the previous coefficient to this one; 0 if the block ends instead.
    #[inline(always)]
    pub(crate) fn step(self) -> usize {
        (self.0 >> 24) as usize
    }

    /// Returns the length in bits of the number after the code.
    #[inline(always)]
    pub(crate) fn size(self) -> u32 {
        63 - (self.0 >> 16 & 63)
    }

    /// Returns the number without interpreting its sign. `bits` start with the code.
    #[inline(always)]
    pub(crate) fn bits(self, bits: u64) -> u32 {
        (bits << (self.0 >> 8 & 63) >> 1 >> (self.0 >> 16 & 63)) as u32
    }

    /// Returns the number (T.81, F.2.2.1). `bits` start with the code. A number that begins with 0
    /// is negative: the negated value of the inverted bits.
    #[inline(always)]
    pub(crate) fn number(self, bits: u64) -> i16 {
        let bits = bits << (self.0 >> 8 & 63);
        let negative = !((bits as i64) >> 63);
        // The shift is done in two steps, because a number may have no bits at all.
        let positive = ((bits ^ negative as u64) >> 1 >> (self.0 >> 16 & 63)) as i64;
        ((positive ^ negative) - negative) as i16
    }
}

/// The meaning of a table's symbols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Sizes of the differences between DC coefficients.
    Dc,
    /// Runs of zeros, and sizes of the AC coefficients after them.
    Ac,
    /// Like [`Class::Ac`], but for a progressive scan, in which blocks end in runs. The symbols for
    /// runs have step 0, and their number, which is unsigned ([`Symbol::bits`]), is part of the
    /// length of the run.
    Progressive,
}

impl Class {
    /// Returns the step to the coefficient and its size, or `None` if a table of this class may not
    /// contain the symbol.
    fn step_and_size(self, symbol: u8) -> Option<(u32, u32)> {
        let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        match (self, run, size) {
            (Class::Dc, 0, ..=11) => Some((1, size)),
            (Class::Dc, ..) => None,
            (Class::Ac | Class::Progressive, 15, 0) => Some((16, 0)),
            // The end of the block. Other runs without a coefficient are treated the same.
            (Class::Ac, _, 0) => Some((0, 0)),
            (Class::Progressive, _, 0) => Some((0, run)),
            (Class::Ac | Class::Progressive, ..) => Some((run + 1, size)),
        }
    }
}

/// A table for decoding.
#[derive(Debug)]
pub(crate) struct Table {
    lookup: [Symbol; LOOKUP],
    /// For each length, the lowest 16-bit value that does not begin with a code of at most this
    /// length.
    limits: [u32; LONGEST as usize + 1],
    /// For each length, what to add to a code to get the index of its symbol.
    offsets: [i32; LONGEST as usize + 1],
    /// All symbols, from the shortest code to the longest.
    symbols: [Symbol; 256],
}

impl Table {
    #[inline(always)]
    pub(crate) fn new(codes: &Codes<'_>, class: Class) -> Result<Self> {
        let mut table = Self {
            lookup: [Symbol::UNKNOWN; LOOKUP],
            limits: [0; LONGEST as usize + 1],
            offsets: [0; LONGEST as usize + 1],
            symbols: [Symbol::UNKNOWN; 256],
        };
        let (mut code, mut place) = (0_u32, 0_usize);
        for length in 1..=LONGEST {
            table.offsets[length as usize] = place as i32 - code as i32;
            for _ in 0..codes.counts[length as usize - 1] {
                let &symbol = codes.symbols.get(place).ok_or(Error::Oversubscribed)?;
                if code >> length != 0 {
                    return Err(Error::Oversubscribed);
                }
                let meaning = class.step_and_size(symbol).ok_or(Error::Corrupt)?;
                table.add(code, length, place, meaning);
                (code, place) = (code + 1, place + 1);
            }
            table.limits[length as usize] = code << (LONGEST - length);
            code <<= 1;
        }
        Ok(table)
    }

    #[inline(always)]
    fn add(&mut self, code: u32, length: u32, place: usize, meaning: (u32, u32)) {
        let symbol = Symbol::new(length, meaning);
        self.symbols[place] = symbol;
        if length <= LOOKUP_BITS {
            let free = LOOKUP_BITS - length;
            let first = (code << free) as usize;
            self.lookup[first..first + (1 << free)].fill(symbol);
        }
    }

    /// Returns the symbol at the start of the next [`LOOKUP_BITS`] bits, or [`Symbol::UNKNOWN`] if
    /// these do not determine it.
    #[inline(always)]
    pub(crate) fn look_up(&self, bits: usize) -> Symbol {
        self.lookup[bits & (LOOKUP - 1)]
    }

    /// Returns the symbol at the start of the next 16 bits, if [`Table::look_up`] does not know it;
    /// [`Symbol::UNKNOWN`] if there is none.
    #[cold]
    #[inline(never)]
    pub(crate) fn search(&self, bits: usize) -> Symbol {
        for length in LOOKUP_BITS + 1..=LONGEST {
            if (bits as u32) < self.limits[length as usize] {
                let code = bits as i32 >> (LONGEST - length);
                let place = (code + self.offsets[length as usize]) as usize;
                return self.symbols[place & 255];
            }
        }
        Symbol::UNKNOWN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two codes of 2 bits, and one each of 3, 12, and 16 bits.
    const COUNTS: [u8; 16] = [0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1];
    const SYMBOLS: [u8; 5] = [0x00, 0x12, 0xF0, 0x0A, 0x25];

    #[test]
    fn codes_are_found_with_their_numbers() {
        let table = Table::new(&Codes { counts: &COUNTS, symbols: &SYMBOLS }, Class::Ac).unwrap();
        let at = |text: &str| {
            let bits = u32::from_str_radix(&format!("{text:0<16}"), 2).unwrap() as usize;
            let found = table.look_up(bits >> (16 - LOOKUP_BITS));
            if found == Symbol::UNKNOWN { table.search(bits) } else { found }
        };
        assert_eq!(at("00"), Symbol::new(2, (0, 0)));
        assert_eq!(at("01"), Symbol::new(2, (2, 2)));
        assert_eq!(at("100"), Symbol::new(3, (16, 0)));
        assert_eq!(at("101000000000"), Symbol::new(12, (1, 10)));
        assert_eq!(at("1010000000010000"), Symbol::new(16, (3, 5)));
        assert_eq!(at("1010000000010001"), Symbol::UNKNOWN);
        assert_eq!(at("11"), Symbol::UNKNOWN);
    }

    #[test]
    fn numbers_are_those_of_the_standard() {
        let number = |size: u32, bits: u64| {
            let symbol = Symbol::new(3, (1, size));
            assert_eq!((u32::from(symbol.length()), symbol.size()), (3 + size, size));
            assert_eq!(u64::from(symbol.bits(0b101 << 61 | bits << (61 - size))), bits);
            symbol.number(0b101 << 61 | bits << (61 - size))
        };
        assert_eq!(number(0, 0), 0);
        assert_eq!([0, 1].map(|bits| number(1, bits)), [-1, 1]);
        assert_eq!([0, 1, 2, 3].map(|bits| number(2, bits)), [-3, -2, 2, 3]);
        assert_eq!([0, 1023, 1024, 2047].map(|bits| number(11, bits)), [-2047, -1024, 1024, 2047]);
    }

    #[test]
    fn impossible_tables_are_refused() {
        let table = |counts: [u8; 16], symbols: &[u8]| {
            Table::new(&Codes { counts: &counts, symbols }, Class::Dc).map(|_| ())
        };
        let mut counts = [0; 16];
        counts[0] = 3;
        assert_eq!(table(counts, &[0, 1, 2]), Err(Error::Oversubscribed));
        counts[0] = 2;
        assert_eq!(table(counts, &[0, 1]), Ok(()));
        assert_eq!(table(counts, &[0]), Err(Error::Oversubscribed));
        counts[15] = 1;
        assert_eq!(table(counts, &[0, 1, 2]), Err(Error::Oversubscribed));
        assert_eq!(table([16; 16], &[0; 256]), Err(Error::Oversubscribed));
    }

    #[test]
    fn sizes_that_no_mean_has_are_refused() {
        let mut counts = [0; 16];
        counts[1] = 2;
        let codes = Codes { counts: &counts, symbols: &[12, 3] };
        assert_eq!(Table::new(&codes, Class::Dc).err(), Some(Error::Corrupt));
    }
}
