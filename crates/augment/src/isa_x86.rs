//! [`Isa`] for AVX2 and AVX-512.

use std::arch::x86_64::{__m256i, __m512i};

use simd::pulp::bytemuck::{cast, cast_ref, pod_read_unaligned};
use simd::pulp::x86::{V3, V4};

use super::isa::{Isa, RgbLine, SQUARE, SUM_BITS, Samples, WIDE, Weight};

/// `[channel][third]`: where the bytes of a channel are in a third of [`RgbLine`], for both halves
/// of a register. The highest bit is set for bytes that are in another third.
const SPLIT: [[[u8; WIDE]; 3]; 3] = {
    let mut places = [[[0x80; WIDE]; 3]; 3];
    let mut i = 0;
    while i < 3 * WIDE {
        let (c, lane, pixel) = (i % 3, i / 3 / SQUARE, i / 3 % SQUARE);
        let byte = 3 * pixel + c;
        places[c][byte / 16][lane * SQUARE + pixel] = (byte % 16) as u8;
        i += 1;
    }
    places
};

/// AVX-512.
impl Isa for V4 {
    type Sums = __m512i;
    type Bytes = __m256i;

    #[inline(always)]
    fn start(self, value: i16) -> __m512i {
        self.avx512f._mm512_set1_epi16(value)
    }

    #[inline(always)]
    fn add(self, sums: __m512i, samples: &Samples, weight: Weight) -> __m512i {
        let weight = self.avx512f._mm512_set1_epi32(cast(weight.0));
        let products = self.avx512bw._mm512_mulhi_epi16(*cast_ref(&samples.0), weight);
        self.avx512bw._mm512_add_epi16(sums, products)
    }

    #[inline(always)]
    fn levels(self, sums: __m512i) -> __m256i {
        self.avx512bw._mm512_cvtsepi16_epi8(self.avx512bw._mm512_srai_epi16::<SUM_BITS>(sums))
    }

    #[inline(always)]
    fn load(self, bytes: [u8; WIDE]) -> __m256i {
        (*self).load(bytes)
    }

    #[inline(always)]
    fn store(self, bytes: __m256i) -> [u8; WIDE] {
        (*self).store(bytes)
    }

    #[inline(always)]
    fn samples(self, bytes: __m256i) -> [[i16; SQUARE]; 2] {
        (*self).samples(bytes)
    }

    #[inline(always)]
    fn split(self, one: &RgbLine, other: &RgbLine) -> [__m256i; 3] {
        (*self).split(one, other)
    }

    #[inline(always)]
    fn transpose(self, lines: [__m256i; SQUARE]) -> [__m256i; SQUARE] {
        (*self).transpose(lines)
    }
}

/// AVX2.
impl Isa for V3 {
    type Sums = [__m256i; 2];
    type Bytes = __m256i;

    #[inline(always)]
    fn start(self, value: i16) -> Self::Sums {
        [self.avx._mm256_set1_epi16(value); 2]
    }

    #[inline(always)]
    fn add(self, [low, high]: Self::Sums, samples: &Samples, weight: Weight) -> Self::Sums {
        let weight = self.avx._mm256_set1_epi32(cast(weight.0));
        let &[first, second]: &[__m256i; 2] = cast_ref(&samples.0);
        let (first, second) = (
            self.avx2._mm256_mulhi_epi16(first, weight),
            self.avx2._mm256_mulhi_epi16(second, weight),
        );
        [self.avx2._mm256_add_epi16(low, first), self.avx2._mm256_add_epi16(high, second)]
    }

    #[inline(always)]
    fn levels(self, [low, high]: Self::Sums) -> __m256i {
        let low = self.avx2._mm256_srai_epi16::<{ SUM_BITS as i32 }>(low);
        let high = self.avx2._mm256_srai_epi16::<{ SUM_BITS as i32 }>(high);
        // Packing interleaves the halves of its two registers; the permutation undoes that.
        let packed = self.avx2._mm256_packs_epi16(low, high);
        self.avx2._mm256_permute4x64_epi64::<0b11_01_10_00>(packed)
    }

    #[inline(always)]
    fn load(self, bytes: [u8; WIDE]) -> __m256i {
        self.avx2._mm256_xor_si256(cast(bytes), self.avx._mm256_set1_epi8(i8::MIN))
    }

    #[inline(always)]
    fn store(self, bytes: __m256i) -> [u8; WIDE] {
        cast(self.avx2._mm256_xor_si256(bytes, self.avx._mm256_set1_epi8(i8::MIN)))
    }

    #[inline(always)]
    fn samples(self, bytes: __m256i) -> [[i16; SQUARE]; 2] {
        let low = self.avx._mm256_castsi256_si128(bytes);
        let low = self.avx2._mm256_cvtepi8_epi16(low);
        let high = self.avx2._mm256_extracti128_si256::<1>(bytes);
        let high = self.avx2._mm256_cvtepi8_epi16(high);
        [cast(self.avx2._mm256_slli_epi16::<8>(low)), cast(self.avx2._mm256_slli_epi16::<8>(high))]
    }

    #[inline(always)]
    fn split(self, one: &RgbLine, other: &RgbLine) -> [__m256i; 3] {
        let (one, other) = (one.as_chunks::<16>().0, other.as_chunks::<16>().0);
        let mut channels = [self.avx._mm256_set1_epi8(i8::MIN); 3];
        for third in 0..3 {
            // These are read as registers, because a cast would go through the stack.
            let [one, other] = [one, other].map(|line| pod_read_unaligned(&line[third]));
            let bytes = self.avx._mm256_setr_m128i(one, other);
            for c in 0..3 {
                let places = cast(SPLIT[c][third]);
                let here = self.avx2._mm256_shuffle_epi8(bytes, places);
                channels[c] = self.avx2._mm256_xor_si256(channels[c], here);
            }
        }
        channels
    }

    /// In each of four rounds, the lines of one half are interleaved with those of the other.
    #[inline(always)]
    fn transpose(self, mut lines: [__m256i; SQUARE]) -> [__m256i; SQUARE] {
        for _ in 0..SQUARE.ilog2() {
            let from = lines;
            for i in 0..SQUARE / 2 {
                let (one, other) = (from[i], from[i + SQUARE / 2]);
                lines[2 * i] = self.avx2._mm256_unpacklo_epi8(one, other);
                lines[2 * i + 1] = self.avx2._mm256_unpackhi_epi8(one, other);
            }
        }
        lines
    }
}
