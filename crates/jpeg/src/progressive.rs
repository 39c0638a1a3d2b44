//! Decodes the coefficients of one block from the scans of a progressive image (T.81, G.1.2).
//!
//! Each function reads what one scan contains of a block, into block `place` of `group`. Those that
//! can fail return whether the data is valid.

use crate::bits::Bits;
use crate::block::{PLACES, look_up};
use crate::huffman::{Symbol, Table};
use crate::idct::{BLOCKS, Group};

/// The parameters of a scan of AC coefficients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spectrum<'a> {
    pub(crate) table: &'a Table,
    /// The numbers of the first and the last coefficient.
    pub(crate) first: usize,
    pub(crate) last: usize,
    /// The lowest bit that the scan contains.
    pub(crate) low: u8,
}

/// Reads the DC coefficient, down to the bit `low`. `prediction` is that of the previous block of this
/// component.
#[inline(always)]
pub(crate) fn first_dc(
    bits: &mut Bits<'_>,
    table: &Table,
    prediction: &mut i16,
    low: u8,
    (group, place): (&mut Group, usize),
) -> bool {
    bits.refill();
    let symbol = look_up(bits, table);
    if symbol == Symbol::UNKNOWN {
        return false;
    }
    *prediction = prediction.wrapping_add(symbol.number(bits.all()));
    bits.skip(symbol.length());
    *coefficient(group, place, 0) = *prediction << low;
    true
}

/// Reads the bit `low` of the DC coefficient.
#[inline(always)]
pub(crate) fn next_dc(bits: &mut Bits<'_>, low: u8, (group, place): (&mut Group, usize)) {
    bits.refill();
    if bits.peek::<1>() == 1 {
        *coefficient(group, place, 0) |= 1 << low;
    }
    bits.skip(1);
}

/// Reads AC coefficients, down to the bit `low`. `run` is the number of blocks, including this one,
/// whose remaining coefficients are zero.
#[inline(always)]
pub(crate) fn first_coefficients(
    bits: &mut Bits<'_>,
    scan: &Spectrum<'_>,
    run: &mut u32,
    (group, place): (&mut Group, usize),
) -> bool {
    let mut next = scan.first;
    while *run == 0 && next <= scan.last {
        bits.refill();
        let symbol = look_up(bits, scan.table);
        if symbol == Symbol::UNKNOWN {
            return false;
        }
        let number = next + symbol.step();
        if symbol.step() == 0 {
            *run = (1 << symbol.size()) + symbol.bits(bits.all());
        } else if symbol.size() > 0 {
            if number > scan.last + 1 {
                return false;
            }
            *coefficient(group, place, number - 1) = symbol.number(bits.all()) << scan.low;
        }
        next = number;
        bits.skip(symbol.length());
    }
    *run = run.saturating_sub(1);
    true
}

/// Reads the bit `low` of the AC coefficients that are not zero yet, and new ones between them.
/// `run` is the same as in [`first_coefficients`].
#[inline(always)]
pub(crate) fn next_coefficients(
    bits: &mut Bits<'_>,
    scan: &Spectrum<'_>,
    run: &mut u32,
    (group, place): (&mut Group, usize),
) -> bool {
    let mut next = scan.first;
    while *run == 0 && next <= scan.last {
        bits.refill();
        let symbol = look_up(bits, scan.table);
        let (step, size, number) = (symbol.step(), symbol.size(), symbol.bits(bits.all()));
        if symbol == Symbol::UNKNOWN || step > 0 && size > 1 {
            return false;
        }
        bits.skip(symbol.length());
        if step == 0 {
            *run = (1 << size) + number;
            break;
        }
        // Zeros that stay zero are skipped, and the other coefficients get their bit.
        next = refine(bits, scan, next, step - 1, (group, place));
        if size > 0 {
            if next > scan.last {
                return false;
            }
            let value = 1 << scan.low;
            *coefficient(group, place, next) = if number == 1 { value } else { -value };
        }
        next += 1;
    }
    if *run > 0 {
        refine(bits, scan, next, usize::MAX, (group, place));
        *run -= 1;
    }
    true
}

/// Reads a bit for each nonzero coefficient from `next` on, skips `zeros` zero coefficients, and
/// stops at the zero coefficient after these. Returns the number of that coefficient.
#[inline(always)]
fn refine(
    bits: &mut Bits<'_>,
    scan: &Spectrum<'_>,
    mut next: usize,
    mut zeros: usize,
    (group, place): (&mut Group, usize),
) -> usize {
    let bit = 1_i16 << scan.low;
    while next <= scan.last {
        let value = coefficient(group, place, next);
        if *value != 0 {
            bits.refill();
            if bits.peek::<1>() == 1 && *value & bit == 0 {
                *value = value.wrapping_add(if *value > 0 { bit } else { -bit });
            }
            bits.skip(1);
        } else if zeros == 0 {
            break;
        } else {
            zeros -= 1;
        }
        next += 1;
    }
    next
}

#[inline(always)]
fn coefficient(group: &mut Group, place: usize, number: usize) -> &mut i16 {
    &mut group.0[usize::from(PLACES[place % BLOCKS][number & 127])]
}
