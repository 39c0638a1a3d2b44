//! [`Isa`] for AVX2 and AVX-512.
//!
//! The transform is written for registers of any number of 128-bit lanes. Each lane holds a row of
//! one block, and only the last operation crosses lanes.

use std::arch::x86_64::{__m256i, __m512i};

use simd::pulp::bytemuck::{cast, cast_ref};
use simd::pulp::x86::{V3, V4};

use crate::color::{CB_BLUE, CR_RED, GREEN, Line, RgbLine};
use crate::idct::{EVEN_04, EVEN_26, FIRST_SHIFT, Group, ODD_13, ODD_57, SECOND_SHIFT, Tile, WIDE};
use crate::isa::Isa;
use crate::lanes::Lanes;
use crate::tables::Quantization;

/// Runs both passes of the transform. `rows` holds coefficients times quantization; each register
/// of the result holds two rows of samples.
#[inline(always)]
fn transform<L: Lanes>(l: L, rows: [L::V; 8]) -> [L::V; 4] {
    let columns = transpose(l, pass::<L, FIRST_SHIFT>(l, rows));
    let columns = pass::<L, SECOND_SHIFT>(l, columns);
    // The values are packed to bytes first, because the transpose of bytes needs fewer steps.
    let [c02, c13, c46, c57] = [
        l.pack(columns[0], columns[2]),
        l.pack(columns[1], columns[3]),
        l.pack(columns[4], columns[6]),
        l.pack(columns[5], columns[7]),
    ];
    let [c01, c23] = l.zip8(c02, c13);
    let [c45, c67] = l.zip8(c46, c57);
    let [upper_left, lower_left] = l.zip16(c01, c23);
    let [upper_right, lower_right] = l.zip16(c45, c67);
    let [r01, r23] = l.zip32(upper_left, upper_right);
    let [r45, r67] = l.zip32(lower_left, lower_right);
    [r01, r23, r45, r67]
}

/// Runs the transform in one direction, like `pass` in [`crate::idct`].
#[inline(always)]
fn pass<L: Lanes, const SHIFT: u32>(l: L, rows: [L::V; 8]) -> [L::V; 8] {
    let half = l.splat32(1 << (SHIFT - 1));
    let (x04, x26) = (l.zip16(rows[0], rows[4]), l.zip16(rows[2], rows[6]));
    let (x13, x57) = (l.zip16(rows[1], rows[3]), l.zip16(rows[5], rows[7]));
    let mut out = [[half; 2]; 8];
    for h in 0..2 {
        let sum = l.add32(l.dot(x04[h], EVEN_04[0]), half);
        let difference = l.add32(l.dot(x04[h], EVEN_04[1]), half);
        let outer = l.dot(x26[h], EVEN_26[0]);
        let inner = l.dot(x26[h], EVEN_26[1]);
        let even = [
            l.add32(sum, outer),
            l.add32(difference, inner),
            l.sub32(difference, inner),
            l.sub32(sum, outer),
        ];
        for k in 0..4 {
            let odd = l.add32(l.dot(x13[h], ODD_13[k]), l.dot(x57[h], ODD_57[k]));
            out[k][h] = l.shift32::<SHIFT>(l.add32(even[k], odd));
            out[7 - k][h] = l.shift32::<SHIFT>(l.sub32(even[k], odd));
        }
    }
    let mut packed = rows;
    for k in 0..8 {
        packed[k] = l.pack32(out[k][0], out[k][1]);
    }
    packed
}

#[inline(always)]
fn transpose<L: Lanes>(l: L, r: [L::V; 8]) -> [L::V; 8] {
    let [a0, a1] = l.zip16(r[0], r[1]);
    let [b0, b1] = l.zip16(r[2], r[3]);
    let [c0, c1] = l.zip16(r[4], r[5]);
    let [d0, d1] = l.zip16(r[6], r[7]);
    let ([ab0, ab1], [ab2, ab3]) = (l.zip32(a0, b0), l.zip32(a1, b1));
    let ([cd0, cd1], [cd2, cd3]) = (l.zip32(c0, d0), l.zip32(c1, d1));
    let ([o0, o1], [o2, o3]) = (l.zip64(ab0, cd0), l.zip64(ab1, cd1));
    let ([o4, o5], [o6, o7]) = (l.zip64(ab2, cd2), l.zip64(ab3, cd3));
    [o0, o1, o2, o3, o4, o5, o6, o7]
}

/// Computes red, green, and blue, not yet clipped to bytes.
#[inline(always)]
fn to_rgb<L: Lanes>(l: L, y: L::V, cb: L::V, cr: L::V) -> [L::V; 3] {
    let (cb, cr) = (l.sub(cb, l.splat(128)), l.sub(cr, l.splat(128)));
    let (cb2, cr2) = (l.add(cb, cb), l.add(cr, cr));
    // The product has one more bit than is needed, which is used for rounding.
    let red = l.halve(l.add(l.mul_high(cr2, l.splat(CR_RED)), l.splat(1)));
    let blue = l.halve(l.add(l.mul_high(cb2, l.splat(CB_BLUE)), l.splat(1)));
    let [first, second] = l.zip16(cb, cr);
    let half = l.splat32(1 << 15);
    let green = l.pack32(
        l.shift32::<16>(l.add32(l.dot(first, GREEN), half)),
        l.shift32::<16>(l.add32(l.dot(second, GREEN), half)),
    );
    [l.add(l.add(y, cr), red), l.add(l.sub(y, cr), green), l.add(l.add(y, cb2), blue)]
}

/// AVX-512: a register is a row of four blocks.
impl Isa for V4 {
    #[inline(always)]
    fn transform(self, group: &Group, quantization: &Quantization) -> Tile {
        let mut rows: [__m512i; 8] = *cast_ref(&group.0);
        let quantization = quantization.as_chunks::<8>().0;
        for i in 0..8 {
            let row = self.avx512f._mm512_broadcast_i32x4(cast(quantization[i]));
            rows[i] = self.mul(rows[i], row);
        }
        let order = self.avx512f._mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
        let mut tile = Tile::ZERO;
        for (i, two) in transform(self, rows).into_iter().enumerate() {
            let two = self.avx512f._mm512_permutexvar_epi64(order, two);
            let [upper, lower]: [[u8; WIDE]; 2] = cast(two);
            (tile.0[2 * i], tile.0[2 * i + 1]) = (upper, lower);
        }
        tile
    }

    #[inline(always)]
    fn to_rgb(self, y: &Line, cb: &Line, cr: &Line) -> RgbLine {
        let (bw, f) = (self.avx512bw, self.avx512f);
        let [y, cb, cr] = [
            bw._mm512_cvtepu8_epi16(cast(*y)),
            bw._mm512_cvtepu8_epi16(cast(*cb)),
            bw._mm512_cvtepu8_epi16(cast(*cr)),
        ];
        let zero = f._mm512_setzero_si512();
        let [r, g, b] = to_rgb(self, y, cb, cr);
        interleave(
            *self,
            bw._mm512_cvtusepi16_epi8(bw._mm512_max_epi16(r, zero)),
            bw._mm512_cvtusepi16_epi8(bw._mm512_max_epi16(g, zero)),
            bw._mm512_cvtusepi16_epi8(bw._mm512_max_epi16(b, zero)),
        )
    }
}

/// AVX2: a register is a row of two blocks.
impl Isa for V3 {
    #[inline(always)]
    fn transform(self, group: &Group, quantization: &Quantization) -> Tile {
        let rows: &[[__m256i; 2]; 8] = cast_ref(&group.0);
        let quantization = quantization.as_chunks::<8>().0;
        let mut tile = Tile::ZERO;
        for part in 0..2 {
            let mut values = [rows[0][part]; 8];
            for i in 0..8 {
                let row = self.avx2._mm256_broadcastsi128_si256(cast(quantization[i]));
                values[i] = self.mul(rows[i][part], row);
            }
            for (i, two) in transform(self, values).into_iter().enumerate() {
                let two = self.avx2._mm256_permute4x64_epi64::<0b11_01_10_00>(two);
                let [upper, lower]: [[u8; 16]; 2] = cast(two);
                tile.0[2 * i].as_chunks_mut::<16>().0[part] = upper;
                tile.0[2 * i + 1].as_chunks_mut::<16>().0[part] = lower;
            }
        }
        tile
    }

    #[inline(always)]
    fn to_rgb(self, y: &Line, cb: &Line, cr: &Line) -> RgbLine {
        let [y, cb, cr]: [[[u8; 16]; 2]; 3] = [cast(*y), cast(*cb), cast(*cr)];
        let mut halves = [[self.splat(0); 3]; 2];
        for h in 0..2 {
            let y = self.avx2._mm256_cvtepu8_epi16(cast(y[h]));
            let cb = self.avx2._mm256_cvtepu8_epi16(cast(cb[h]));
            let cr = self.avx2._mm256_cvtepu8_epi16(cast(cr[h]));
            halves[h] = to_rgb(self, y, cb, cr);
        }
        let mut channels = [self.splat(0); 3];
        for c in 0..3 {
            let packed = self.avx2._mm256_packus_epi16(halves[0][c], halves[1][c]);
            channels[c] = self.avx2._mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
        }
        let [r, g, b] = channels;
        interleave(self, r, g, b)
    }
}

/// `[channel][third]`: which pixel's value goes where in a third of 16 pixels, for both halves of a
/// register. The highest bit is set where another channel goes.
const INTERLEAVE: [[[u8; WIDE]; 3]; 3] = {
    let mut places = [[[0x80; WIDE]; 3]; 3];
    let mut i = 0;
    while i < 48 {
        places[i % 3][i / 16][i % 16] = (i / 3) as u8;
        places[i % 3][i / 16][16 + i % 16] = (i / 3) as u8;
        i += 1;
    }
    places
};

#[inline(always)]
fn interleave(v3: V3, r: __m256i, g: __m256i, b: __m256i) -> RgbLine {
    let isa = v3.avx2;
    let mut thirds = [[[0; 16]; 3]; 2];
    for t in 0..3 {
        let red = isa._mm256_shuffle_epi8(r, cast(INTERLEAVE[0][t]));
        let green = isa._mm256_shuffle_epi8(g, cast(INTERLEAVE[1][t]));
        let blue = isa._mm256_shuffle_epi8(b, cast(INTERLEAVE[2][t]));
        let third = isa._mm256_or_si256(isa._mm256_or_si256(red, green), blue);
        let [first, second]: [[u8; 16]; 2] = cast(third);
        (thirds[0][t], thirds[1][t]) = (first, second);
    }
    cast(thirds)
}
