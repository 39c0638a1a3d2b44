//! Decodes the coefficients of one block from its bits (T.81, F.2.2).

use crate::bits::Bits;
use crate::huffman::{LOOKUP_BITS, Symbol, Table};
use crate::idct::{BLOCKS, Group, WIDE};
use crate::pairs::{PAIR_BITS, Pairs};
use crate::tables::ZIGZAG;

/// Number of the last coefficient.
const LAST: usize = 63;

/// For each block of a [`Group`] and each number of a coefficient in the order of the file, its
/// place in the group. Numbers beyond the last coefficient also have a place, because such numbers
/// in damaged data are only detected afterwards.
pub(crate) const PLACES: [[u8; 128]; BLOCKS] = {
    let mut places = [[0; 128]; BLOCKS];
    let mut i = 0;
    while i < 128 * BLOCKS {
        let (block, number) = (i / 128, i % 128);
        let place = ZIGZAG[if number <= LAST { number } else { LAST }];
        places[block][number] = place / 8 * WIDE as u8 + 8 * block as u8 + place % 8;
        i += 1;
    }
    places
};

/// Number of lookups for which the bits of one refill are certain to suffice.
const AT_ONCE: usize = (56 / PAIR_BITS) as usize;

/// The tables of a component, and the DC coefficient of its previous block (`prediction`).
#[derive(Debug)]
pub(crate) struct Coder<'a> {
    pub(crate) dc: &'a Table,
    pub(crate) ac: &'a Table,
    pub(crate) pairs: &'a Pairs,
    pub(crate) prediction: i16,
}

/// Decodes a block into block `place` of `group`, which must be all zeros. Returns the number of
/// the last coefficient, or more than 63 if the data is not a valid block.
#[inline(always)]
pub(crate) fn decode(
    bits: &mut Bits<'_>,
    coder: &mut Coder<'_>,
    group: &mut Group,
    place: usize,
) -> usize {
    bits.refill();
    let symbol = look_up(bits, coder.dc);
    if symbol == Symbol::UNKNOWN {
        return LAST + 1;
    }
    coder.prediction = coder.prediction.wrapping_add(symbol.number(bits.all()));
    bits.skip(symbol.length());
    let places = &PLACES[place % BLOCKS];
    put(group, places, 0, coder.prediction);

    let (table, pairs) = (coder.ac, coder.pairs);
    let mut last = 0;
    'refill: while last < LAST {
        bits.refill();
        for _ in 0..AT_ONCE {
            let pair = pairs.look_up(bits.peek::<PAIR_BITS>());
            let first = last + pair.step();
            let second = first + pair.second_step();
            if pair.is_unknown() || second >= LAST {
                // The second symbol may belong to the next block.
                bits.refill();
                let symbol = look_up(bits, table);
                if symbol.step() == 0 {
                    bits.skip(symbol.length());
                    return if symbol == Symbol::UNKNOWN { LAST + 1 } else { last };
                }
                last += symbol.step();
                put(group, places, last, symbol.number(bits.all()));
                bits.skip(symbol.length());
                continue 'refill;
            }
            bits.skip(pair.length());
            // The order matters: if there is no second coefficient, the first one overwrites it.
            put(group, places, second, pair.second());
            put(group, places, first, pair.first());
            if pair.is_end() {
                return second;
            }
            last = second;
        }
    }
    last
}

/// Returns the next symbol, or [`Symbol::UNKNOWN`] if the bits are not a valid code.
#[inline(always)]
pub(crate) fn look_up(bits: &Bits<'_>, table: &Table) -> Symbol {
    let symbol = table.look_up(bits.peek::<LOOKUP_BITS>());
    if symbol == Symbol::UNKNOWN { table.search(bits.peek::<16>()) } else { symbol }
}

#[inline(always)]
fn put(group: &mut Group, places: &[u8; 128], number: usize, value: i16) {
    group.0[usize::from(places[number & 127])] = value;
}
