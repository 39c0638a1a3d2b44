//! Registers of two or four 128-bit lanes: AVX2 and AVX-512 behind one interface.
//!
//! No operation crosses lanes, so code that is written for one width works the same with another.

use std::arch::x86_64::{__m256i, __m512i};

use simd::pulp::bytemuck::cast;
use simd::pulp::x86::{V3, V4};

use crate::idct::{FIRST_SHIFT, Pair, SECOND_SHIFT};

/// Operations on registers of 16-bit values, or of 32-bit values if the name ends in 32. Halves are
/// those of each lane.
pub(crate) trait Lanes: Copy {
    type V: Copy;
    fn splat(self, value: i16) -> Self::V;
    fn splat32(self, value: i32) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// Returns the high halves of the products.
    fn mul_high(self, a: Self::V, b: Self::V) -> Self::V;
    fn halve(self, a: Self::V) -> Self::V;
    fn add32(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub32(self, a: Self::V, b: Self::V) -> Self::V;
    /// Shifts right by [`FIRST_SHIFT`], [`SECOND_SHIFT`], or 16.
    fn shift32<const BITS: u32>(self, a: Self::V) -> Self::V;
    /// Returns sums of two products, in 32 bits.
    fn dot(self, a: Self::V, factors: Pair) -> Self::V;
    /// Interleaves the first halves, and the second halves, by values of as many bits as the name
    /// states.
    fn zip8(self, a: Self::V, b: Self::V) -> [Self::V; 2];
    fn zip16(self, a: Self::V, b: Self::V) -> [Self::V; 2];
    fn zip32(self, a: Self::V, b: Self::V) -> [Self::V; 2];
    fn zip64(self, a: Self::V, b: Self::V) -> [Self::V; 2];
    /// Converts 32 bits to 16 with saturation; the values of `a` are in the first half.
    fn pack32(self, a: Self::V, b: Self::V) -> Self::V;
    /// Converts 16 bits to 8 with saturation, and adds 128.
    fn pack(self, a: Self::V, b: Self::V) -> Self::V;
}

impl Lanes for V4 {
    type V = __m512i;

    #[inline(always)]
    fn splat(self, value: i16) -> __m512i {
        self.avx512f._mm512_set1_epi16(value)
    }

    #[inline(always)]
    fn splat32(self, value: i32) -> __m512i {
        self.avx512f._mm512_set1_epi32(value)
    }

    #[inline(always)]
    fn add(self, a: __m512i, b: __m512i) -> __m512i {
        self.avx512bw._mm512_add_epi16(a, b)
    }

    #[inline(always)]
    fn sub(self, a: __m512i, b: __m512i) -> __m512i {
        self.avx512bw._mm512_sub_epi16(a, b)
    }

    #[inline(always)]
    fn mul(self, a: __m512i, b: __m512i) -> __m512i {
        self.avx512bw._mm512_mullo_epi16(a, b)
    }

    #[inline(always)]
    fn mul_high(self, a: __m512i, b: __m512i) -> __m512i {
        self.avx512bw._mm512_mulhi_epi16(a, b)
    }

    #[inline(always)]
    fn halve(self, a: __m512i) -> __m512i {
        self.avx512bw._mm512_srai_epi16::<1>(a)
    }

    #[inline(always)]
    fn add32(self, a: __m512i, b: __m512i) -> __m512i {
        self.avx512f._mm512_add_epi32(a, b)
    }

    #[inline(always)]
    fn sub32(self, a: __m512i, b: __m512i) -> __m512i {
        self.avx512f._mm512_sub_epi32(a, b)
    }

    #[inline(always)]
    fn shift32<const BITS: u32>(self, a: __m512i) -> __m512i {
        self.avx512f._mm512_srai_epi32::<BITS>(a)
    }

    #[inline(always)]
    fn dot(self, a: __m512i, factors: Pair) -> __m512i {
        self.avx512bw._mm512_madd_epi16(a, self.splat32(cast(factors)))
    }

    #[inline(always)]
    fn zip8(self, a: __m512i, b: __m512i) -> [__m512i; 2] {
        let isa = self.avx512bw;
        [isa._mm512_unpacklo_epi8(a, b), isa._mm512_unpackhi_epi8(a, b)]
    }

    #[inline(always)]
    fn zip16(self, a: __m512i, b: __m512i) -> [__m512i; 2] {
        let isa = self.avx512bw;
        [isa._mm512_unpacklo_epi16(a, b), isa._mm512_unpackhi_epi16(a, b)]
    }

    #[inline(always)]
    fn zip32(self, a: __m512i, b: __m512i) -> [__m512i; 2] {
        let isa = self.avx512f;
        [isa._mm512_unpacklo_epi32(a, b), isa._mm512_unpackhi_epi32(a, b)]
    }

    #[inline(always)]
    fn zip64(self, a: __m512i, b: __m512i) -> [__m512i; 2] {
        let isa = self.avx512f;
        [isa._mm512_unpacklo_epi64(a, b), isa._mm512_unpackhi_epi64(a, b)]
    }

    #[inline(always)]
    fn pack32(self, a: __m512i, b: __m512i) -> __m512i {
        self.avx512bw._mm512_packs_epi32(a, b)
    }

    #[inline(always)]
    fn pack(self, a: __m512i, b: __m512i) -> __m512i {
        let packed = self.avx512bw._mm512_packs_epi16(a, b);
        self.avx512f._mm512_xor_si512(packed, self.avx512f._mm512_set1_epi8(i8::MIN))
    }
}

impl Lanes for V3 {
    type V = __m256i;

    #[inline(always)]
    fn splat(self, value: i16) -> __m256i {
        self.avx._mm256_set1_epi16(value)
    }

    #[inline(always)]
    fn splat32(self, value: i32) -> __m256i {
        self.avx._mm256_set1_epi32(value)
    }

    #[inline(always)]
    fn add(self, a: __m256i, b: __m256i) -> __m256i {
        self.avx2._mm256_add_epi16(a, b)
    }

    #[inline(always)]
    fn sub(self, a: __m256i, b: __m256i) -> __m256i {
        self.avx2._mm256_sub_epi16(a, b)
    }

    #[inline(always)]
    fn mul(self, a: __m256i, b: __m256i) -> __m256i {
        self.avx2._mm256_mullo_epi16(a, b)
    }

    #[inline(always)]
    fn mul_high(self, a: __m256i, b: __m256i) -> __m256i {
        self.avx2._mm256_mulhi_epi16(a, b)
    }

    #[inline(always)]
    fn halve(self, a: __m256i) -> __m256i {
        self.avx2._mm256_srai_epi16::<1>(a)
    }

    #[inline(always)]
    fn add32(self, a: __m256i, b: __m256i) -> __m256i {
        self.avx2._mm256_add_epi32(a, b)
    }

    #[inline(always)]
    fn sub32(self, a: __m256i, b: __m256i) -> __m256i {
        self.avx2._mm256_sub_epi32(a, b)
    }

    #[inline(always)]
    fn shift32<const BITS: u32>(self, a: __m256i) -> __m256i {
        // The intrinsic takes an `i32` constant, to which a const generic `u32` cannot be
        // converted.
        match BITS {
            FIRST_SHIFT => self.avx2._mm256_srai_epi32::<{ FIRST_SHIFT as i32 }>(a),
            SECOND_SHIFT => self.avx2._mm256_srai_epi32::<{ SECOND_SHIFT as i32 }>(a),
            _ => self.avx2._mm256_srai_epi32::<16>(a),
        }
    }

    #[inline(always)]
    fn dot(self, a: __m256i, factors: Pair) -> __m256i {
        self.avx2._mm256_madd_epi16(a, self.splat32(cast(factors)))
    }

    #[inline(always)]
    fn zip8(self, a: __m256i, b: __m256i) -> [__m256i; 2] {
        let isa = self.avx2;
        [isa._mm256_unpacklo_epi8(a, b), isa._mm256_unpackhi_epi8(a, b)]
    }

    #[inline(always)]
    fn zip16(self, a: __m256i, b: __m256i) -> [__m256i; 2] {
        let isa = self.avx2;
        [isa._mm256_unpacklo_epi16(a, b), isa._mm256_unpackhi_epi16(a, b)]
    }

    #[inline(always)]
    fn zip32(self, a: __m256i, b: __m256i) -> [__m256i; 2] {
        let isa = self.avx2;
        [isa._mm256_unpacklo_epi32(a, b), isa._mm256_unpackhi_epi32(a, b)]
    }

    #[inline(always)]
    fn zip64(self, a: __m256i, b: __m256i) -> [__m256i; 2] {
        let isa = self.avx2;
        [isa._mm256_unpacklo_epi64(a, b), isa._mm256_unpackhi_epi64(a, b)]
    }

    #[inline(always)]
    fn pack32(self, a: __m256i, b: __m256i) -> __m256i {
        self.avx2._mm256_packs_epi32(a, b)
    }

    #[inline(always)]
    fn pack(self, a: __m256i, b: __m256i) -> __m256i {
        let packed = self.avx2._mm256_packs_epi16(a, b);
        self.avx2._mm256_xor_si256(packed, self.avx._mm256_set1_epi8(i8::MIN))
    }
}
