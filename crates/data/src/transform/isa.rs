//! The one operation that compilers do not reliably turn into SIMD code by themselves, the weighted
//! sum of rows of samples, written once for each instruction set, behind [`Isa`].
//!
//! Everything else is plain loops, see [`super::simd`].

use super::simd::mul_high;

/// Samples that are worked on together, see [`super::strip`].
pub(super) const WIDE: usize = 32;
/// So many samples: a byte less 128 each, with eight fractional bits. Aligned to a register.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(super) struct Samples(pub(super) [i16; WIDE]);

impl Samples {
    pub(super) const ZERO: Self = Self([0; WIDE]);
}

/// Sums of [`WIDE`] samples times weights.
pub(super) trait Isa: Copy {
    /// Sums in 16 bits.
    type Sums: Copy;
    /// Sums that begin at `value`.
    fn start(self, value: i16) -> Self::Sums;
    /// Adds the high halves of `samples` times `weight`.
    fn add(self, sums: Self::Sums, samples: &Samples, weight: i16) -> Self::Sums;
    /// Drops the lower `BITS` of the sums, clips what is left to -128..=127, and adds 128.
    fn bytes<const BITS: u32>(self, sums: Self::Sums) -> [u8; WIDE];
}

/// What the target has at least: SSE2 on x86-64, NEON on AArch64.
#[derive(Debug, Clone, Copy)]
pub(super) struct Baseline;

impl Isa for Baseline {
    type Sums = [i16; WIDE];

    #[inline(always)]
    fn start(self, value: i16) -> [i16; WIDE] {
        [value; WIDE]
    }

    #[inline(always)]
    fn add(self, mut sums: [i16; WIDE], samples: &Samples, weight: i16) -> [i16; WIDE] {
        for i in 0..WIDE {
            sums[i] = sums[i].wrapping_add(mul_high(samples.0[i], weight));
        }
        sums
    }

    #[inline(always)]
    fn bytes<const BITS: u32>(self, sums: [i16; WIDE]) -> [u8; WIDE] {
        let mut bytes = [0; WIDE];
        for i in 0..WIDE {
            bytes[i] = (sums[i] >> BITS).clamp(-128, 127) as u8 ^ 0x80;
        }
        bytes
    }
}

/// Work that needs an [`Isa`].
pub(super) trait Kernel {
    /// Does it. The body and all it calls must be `#[inline(always)]`.
    fn run(self, isa: impl Isa);
}

/// Runs `kernel` with the best instruction set of this machine.
#[inline]
pub(super) fn dispatch_kernel(kernel: impl Kernel) {
    #[cfg(target_arch = "x86_64")]
    {
        use pulp::x86::{V3, V4};
        if let Some(v4) = V4::try_new() {
            return pulp::Simd::vectorize(v4, x86::With(v4, kernel));
        }
        if let Some(v3) = V3::try_new() {
            return pulp::Simd::vectorize(v3, x86::With(v3, kernel));
        }
    }
    kernel.run(Baseline);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{__m256i, __m512i};

    use pulp::bytemuck::{cast, cast_ref};
    use pulp::x86::{V3, V4};

    use super::{Isa, Kernel, Samples, WIDE};

    /// A kernel and the instruction set that it was dispatched to.
    pub(super) struct With<I, K>(pub(super) I, pub(super) K);

    impl<I: Isa, K: Kernel> pulp::WithSimd for With<I, K> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) {
            self.1.run(self.0);
        }
    }

    /// AVX-512.
    impl Isa for V4 {
        type Sums = __m512i;

        #[inline(always)]
        fn start(self, value: i16) -> __m512i {
            self.avx512f._mm512_set1_epi16(value)
        }

        #[inline(always)]
        fn add(self, sums: __m512i, samples: &Samples, weight: i16) -> __m512i {
            let weight = self.avx512f._mm512_set1_epi16(weight);
            let products = self.avx512bw._mm512_mulhi_epi16(*cast_ref(&samples.0), weight);
            self.avx512bw._mm512_add_epi16(sums, products)
        }

        #[inline(always)]
        fn bytes<const BITS: u32>(self, sums: __m512i) -> [u8; WIDE] {
            let levels = self.avx512bw._mm512_srai_epi16::<BITS>(sums);
            let bytes = self.avx512bw._mm512_cvtsepi16_epi8(levels);
            cast(self.avx2._mm256_xor_si256(bytes, self.avx._mm256_set1_epi8(i8::MIN)))
        }
    }

    /// AVX2.
    impl Isa for V3 {
        type Sums = [__m256i; 2];

        #[inline(always)]
        fn start(self, value: i16) -> Self::Sums {
            [self.avx._mm256_set1_epi16(value); 2]
        }

        #[inline(always)]
        fn add(self, [low, high]: Self::Sums, samples: &Samples, weight: i16) -> Self::Sums {
            let weight = self.avx._mm256_set1_epi16(weight);
            let &[first, second]: &[__m256i; 2] = cast_ref(&samples.0);
            let product = |half| self.avx2._mm256_mulhi_epi16(half, weight);
            [
                self.avx2._mm256_add_epi16(low, product(first)),
                self.avx2._mm256_add_epi16(high, product(second)),
            ]
        }

        #[inline(always)]
        fn bytes<const BITS: u32>(self, [low, high]: Self::Sums) -> [u8; WIDE] {
            let level = |sums| match BITS {
                6 => self.avx2._mm256_srai_epi16::<6>(sums),
                _ => self.avx2._mm256_sra_epi16(sums, self.sse2._mm_cvtsi32_si128(BITS as i32)),
            };
            // Packing interleaves the halves of its two registers; the permutation undoes that.
            let packed = self.avx2._mm256_packs_epi16(level(low), level(high));
            let ordered = self.avx2._mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
            cast(self.avx2._mm256_xor_si256(ordered, self.avx._mm256_set1_epi8(i8::MIN)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sum<'a>(&'a [Samples], &'a [i16], &'a mut [u8; WIDE]);

    impl Kernel for Sum<'_> {
        #[inline(always)]
        fn run(self, isa: impl Isa) {
            let sums = self.0.iter().zip(self.1);
            let sums = sums.fold(isa.start(33), |sums, (row, &weight)| isa.add(sums, row, weight));
            *self.2 = isa.bytes::<6>(sums);
        }
    }

    /// On the machine that runs this: its best instruction set, AVX2 if it has that, the baseline.
    #[test]
    fn all_instruction_sets_agree() {
        let rows: Vec<Samples> = (0..9_i32)
            .map(|r| {
                let value = |i| ((i as i32 * 7919 + r * 104_729) % 32_768) as i16 * 2;
                Samples(std::array::from_fn(value))
            })
            .collect();
        let weights = [-300, 900, -1200, 4000, 9000, 4000, 700, -600, -116];
        let run = |with: &dyn Fn(Sum<'_>)| {
            let mut bytes = [0; WIDE];
            with(Sum(&rows, &weights, &mut bytes));
            bytes
        };
        let baseline = run(&|sum: Sum<'_>| sum.run(Baseline));
        assert!(baseline.iter().any(|&v| v > 0) && baseline.iter().any(|&v| v < 255));
        assert_eq!(run(&|sum: Sum<'_>| dispatch_kernel(sum)), baseline);
        #[cfg(target_arch = "x86_64")]
        if let Some(v3) = pulp::x86::V3::try_new() {
            let with = |sum: Sum<'_>| pulp::Simd::vectorize(v3, x86::With(v3, sum));
            assert_eq!(run(&with), baseline);
        }
    }
}
