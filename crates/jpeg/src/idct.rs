//! The inverse discrete cosine transform, as plain loops.
//!
//! This is the accurate integer transform of libjpeg ("islow"), after Loeffler, Ligtenberg, and
//! Moschytz: 13 fractional bits in the constants, and two in the values between the two passes.
//! Other implementations use several steps with fewer products; this one combines them into one
//! factor per input, which gives the same integers. Values between the passes that do not fit 16
//! bits are clamped, but not always at the same point as in libjpeg-turbo's SIMD code, which adds
//! in 16 bits. In damaged data, where coefficients are several times too large, samples may
//! therefore differ from those of libjpeg-turbo. This does not happen for images that come from an
//! encoder.
//!
//! These loops are used on machines that [`crate::x86`] does not support, and by its tests.

use crate::tables::Quantization;

/// Number of blocks that are transformed together.
pub(crate) const BLOCKS: usize = 4;
/// Number of samples in a row of [`BLOCKS`] blocks.
pub(crate) const WIDE: usize = 8 * BLOCKS;

/// Coefficients of four blocks: the first row of each, the second row of each, and so on.
#[derive(Debug, Clone, PartialEq)]
#[repr(align(64))]
pub(crate) struct Group(pub(crate) [i16; 64 * BLOCKS]);

impl Group {
    pub(crate) const ZERO: Self = Self([0; 64 * BLOCKS]);
}

/// Samples of four blocks side by side.
#[derive(Debug, Clone, PartialEq)]
#[repr(align(64))]
pub(crate) struct Tile(pub(crate) [[u8; WIDE]; 8]);

impl Tile {
    pub(crate) const ZERO: Self = Self([[0; WIDE]; 8]);
}

/// Factors of a pair of inputs.
pub(crate) type Pair = [i16; 2];

/// Factors of inputs 0 and 4, for the even sum and difference.
pub(crate) const EVEN_04: [Pair; 2] = [[8192, 8192], [8192, -8192]];
/// Factors of inputs 2 and 6, for the outer and the inner outputs.
pub(crate) const EVEN_26: [Pair; 2] = [[10703, 4433], [4433, -10704]];
/// Factors of inputs 1 and 3, for outputs 0 to 3.
pub(crate) const ODD_13: [Pair; 4] = [[11363, 9633], [9633, -2259], [6437, -11362], [2260, -6436]];
/// Factors of inputs 5 and 7, for outputs 0 to 3.
pub(crate) const ODD_57: [Pair; 4] = [[6437, 2260], [-11362, -6436], [2261, 9633], [9633, -11363]];
/// Number of bits that the first pass drops.
pub(crate) const FIRST_SHIFT: u32 = 11;
/// Number of bits that the second pass drops: the remaining ones, and those of the factor of 8 in
/// the definition of the transform.
pub(crate) const SECOND_SHIFT: u32 = 18;

/// Computes samples from coefficients.
#[inline(always)]
pub(crate) fn transform(group: &Group, quantization: &Quantization) -> Tile {
    let mut tile = Tile::ZERO;
    for block in 0..BLOCKS {
        let mut values = [[0; 8]; 8];
        for (row, values) in values.iter_mut().enumerate() {
            for (column, value) in values.iter_mut().enumerate() {
                let coefficient = group.0[WIDE * row + 8 * block + column];
                *value = coefficient.wrapping_mul(quantization[8 * row + column]);
            }
        }
        let columns = transpose(pass::<FIRST_SHIFT>(values));
        let rows = transpose(pass::<SECOND_SHIFT>(columns));
        for (line, row) in tile.0.iter_mut().zip(rows) {
            for (sample, value) in line[8 * block..].iter_mut().zip(row) {
                *sample = (value.clamp(-128, 127) as u8) ^ 0x80;
            }
        }
    }
    tile
}

/// Runs the transform in one direction, on each of the eight columns of `rows`.
#[inline(always)]
fn pass<const SHIFT: u32>(rows: [[i16; 8]; 8]) -> [[i16; 8]; 8] {
    let mut out = [[0; 8]; 8];
    for i in 0..8 {
        let product = |a: usize, b: usize, [p, q]: Pair| {
            i32::from(rows[a][i]) * i32::from(p) + i32::from(rows[b][i]) * i32::from(q)
        };
        let half = 1 << (SHIFT - 1);
        let sums = EVEN_04.map(|pair| product(0, 4, pair).wrapping_add(half));
        let turns = EVEN_26.map(|pair| product(2, 6, pair));
        let even = [
            sums[0].wrapping_add(turns[0]),
            sums[1].wrapping_add(turns[1]),
            sums[1].wrapping_sub(turns[1]),
            sums[0].wrapping_sub(turns[0]),
        ];
        for k in 0..4 {
            let odd = product(1, 3, ODD_13[k]).wrapping_add(product(5, 7, ODD_57[k]));
            out[k][i] = saturate(even[k].wrapping_add(odd) >> SHIFT);
            out[7 - k][i] = saturate(even[k].wrapping_sub(odd) >> SHIFT);
        }
    }
    out
}

#[inline(always)]
fn saturate(value: i32) -> i16 {
    value.clamp(i16::MIN.into(), i16::MAX.into()) as i16
}

#[inline(always)]
fn transpose(rows: [[i16; 8]; 8]) -> [[i16; 8]; 8] {
    let mut columns = [[0; 8]; 8];
    for (i, row) in rows.iter().enumerate() {
        for (j, &value) in row.iter().enumerate() {
            columns[j][i] = value;
        }
    }
    columns
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Generates pseudorandom numbers.
    pub(crate) fn numbers(seed: u64) -> impl Iterator<Item = u64> {
        let mut state = seed;
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state >> 33
        })
    }

    /// Runs the algorithm step by step, with the constants of the paper at 13 bits.
    fn steps(x: [i64; 8], shift: u32) -> [i64; 8] {
        let z = (x[2] + x[6]) * 4433;
        let (inner, outer) = (z - x[6] * 15137, z + x[2] * 6270);
        let (sum, difference) = ((x[0] + x[4]) << 13, (x[0] - x[4]) << 13);
        let even = [sum + outer, difference + inner, difference - inner, sum - outer];

        let (z1, z2, z3, z4) = (x[7] + x[1], x[5] + x[3], x[7] + x[3], x[5] + x[1]);
        let z5 = (z3 + z4) * 9633;
        let (z1, z2, z3, z4) = (z1 * -7373, z2 * -20995, z3 * -16069 + z5, z4 * -3196 + z5);
        let odd = [
            x[1] * 12299 + z1 + z4,
            x[3] * 25172 + z2 + z3,
            x[5] * 16819 + z2 + z4,
            x[7] * 2446 + z1 + z3,
        ];
        let mut out = [0; 8];
        for k in 0..4 {
            let half = 1 << (shift - 1);
            out[k] = (even[k] + odd[k] + half) >> shift;
            out[7 - k] = (even[k] - odd[k] + half) >> shift;
        }
        out
    }

    fn reference(block: [[i64; 8]; 8]) -> [[u8; 8]; 8] {
        let mut rows = [[0; 8]; 8];
        for column in 0..8 {
            let values = steps(block.map(|row| row[column]), 11);
            (0..8).for_each(|row| rows[row][column] = values[row]);
        }
        rows.map(|row| steps(row, 18).map(|value| (value + 128).clamp(0, 255) as u8))
    }

    #[test]
    fn fewer_products_give_the_same_integers() {
        let mut numbers = numbers(1);
        let mut next = |most: u64| (numbers.next().unwrap() % (2 * most + 1)) as i16 - most as i16;
        for round in 0..500_u64 {
            // From few small coefficients to all large ones.
            let (most, every) = (1 << (round % 7), 1 + round % 9);
            let quantization: Quantization = std::array::from_fn(|i| 1 + (i as i16 * 3) % 15);
            let mut group = Group::ZERO;
            for (i, value) in group.0.iter_mut().enumerate() {
                *value = if (i as u64).is_multiple_of(every) { next(most) } else { 0 };
            }
            let tile = transform(&group, &quantization);
            for block in 0..BLOCKS {
                let value = |row: usize, column: usize| {
                    let coefficient = i64::from(group.0[WIDE * row + 8 * block + column]);
                    coefficient * i64::from(quantization[8 * row + column])
                };
                let values = std::array::from_fn(|r| std::array::from_fn(|c| value(r, c)));
                for (row, expected) in reference(values).into_iter().enumerate() {
                    assert_eq!(tile.0[row][8 * block..][..8], expected, "{round} {block} {row}");
                }
            }
        }
    }
}
