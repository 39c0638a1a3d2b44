//! The operations that compilers do not reliably turn into good SIMD code by themselves, the weighted
//! sum of rows of samples and the turning of squares of bytes, written once for each instruction
//! set, behind [`Isa`].
//!
//! Everything else is plain loops, see [`super::simd`]. Closures are kept out: one that is not inlined
//! is compiled without the instructions, and every operation in it becomes a call.

use super::simd::{mul_high, transpose};

/// Samples that are worked on together, see [`super::strip`].
pub(super) const WIDE: usize = 32;
/// Side of the squares of bytes that are turned.
pub(super) const SQUARE: usize = WIDE / 2;
/// Fractional bits of a sum: those of a sample and of a weight, less the 16 that are dropped.
pub(super) const SUM_BITS: u32 = 6;

/// So many samples: a byte less 128 each, with eight fractional bits. Aligned to a register.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(super) struct Samples(pub(super) [i16; WIDE]);

impl Samples {
    pub(super) const ZERO: Self = Self([0; WIDE]);
}

/// A weight, twice: two 16-bit values at a time are spread over a register for less.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Weight([i16; 2]);

impl Weight {
    pub(super) const fn new(weight: i16) -> Self {
        Self([weight; 2])
    }

    pub(super) const fn get(self) -> i16 {
        self.0[0]
    }
}

/// [`SQUARE`] pixels of red, green and blue.
pub(super) type RgbLine = [u8; 3 * SQUARE];

/// Sums of [`WIDE`] samples times weights, and what becomes of them.
pub(super) trait Isa: Copy {
    /// Sums in 16 bits.
    type Sums: Copy;
    /// Bytes less 128.
    type Bytes: Copy;
    /// Sums that begin at `value`.
    fn start(self, value: i16) -> Self::Sums;
    /// Adds the high halves of `samples` times `weight`.
    fn add(self, sums: Self::Sums, samples: &Samples, weight: Weight) -> Self::Sums;
    /// Drops the lower [`SUM_BITS`] of the sums and clips what is left to -128..=127.
    fn levels(self, sums: Self::Sums) -> Self::Bytes;
    /// Bytes less 128.
    fn load(self, bytes: [u8; WIDE]) -> Self::Bytes;
    /// The opposite of `load`.
    fn store(self, bytes: Self::Bytes) -> [u8; WIDE];
    /// Bytes as samples, in two halves.
    fn samples(self, bytes: Self::Bytes) -> [[i16; SQUARE]; 2];
    /// Red, green and blue, less 128, of some pixels and, in the second half, of others.
    fn split(self, one: &RgbLine, other: &RgbLine) -> [Self::Bytes; 3];
    /// Turns two squares, that of the first halves and that of the second: place `j` of line `i`
    /// becomes place `i` of line `j`.
    fn transpose(self, lines: [Self::Bytes; SQUARE]) -> [Self::Bytes; SQUARE];
}

/// What the target has at least: SSE2 on x86-64, NEON on AArch64.
#[derive(Debug, Clone, Copy)]
pub(super) struct Baseline;

impl Isa for Baseline {
    type Sums = [i16; WIDE];
    type Bytes = [u8; WIDE];

    #[inline(always)]
    fn start(self, value: i16) -> [i16; WIDE] {
        [value; WIDE]
    }

    #[inline(always)]
    fn add(self, mut sums: [i16; WIDE], samples: &Samples, weight: Weight) -> [i16; WIDE] {
        for i in 0..WIDE {
            sums[i] = sums[i].wrapping_add(mul_high(samples.0[i], weight.get()));
        }
        sums
    }

    #[inline(always)]
    fn levels(self, sums: [i16; WIDE]) -> [u8; WIDE] {
        let mut bytes = [0; WIDE];
        for i in 0..WIDE {
            bytes[i] = (sums[i] >> SUM_BITS).clamp(-128, 127) as u8;
        }
        bytes
    }

    #[inline(always)]
    fn load(self, bytes: [u8; WIDE]) -> [u8; WIDE] {
        flipped(bytes)
    }

    #[inline(always)]
    fn store(self, bytes: [u8; WIDE]) -> [u8; WIDE] {
        flipped(bytes)
    }

    #[inline(always)]
    fn samples(self, bytes: [u8; WIDE]) -> [[i16; SQUARE]; 2] {
        let mut samples = [[0; SQUARE]; 2];
        for i in 0..SQUARE {
            samples[0][i] = i16::from(bytes[i]) << 8;
            samples[1][i] = i16::from(bytes[SQUARE + i]) << 8;
        }
        samples
    }

    #[inline(always)]
    fn split(self, one: &RgbLine, other: &RgbLine) -> [[u8; WIDE]; 3] {
        let mut channels = [[0; WIDE]; 3];
        for (c, channel) in channels.iter_mut().enumerate() {
            for i in 0..SQUARE {
                channel[i] = one[3 * i + c] ^ 0x80;
                channel[SQUARE + i] = other[3 * i + c] ^ 0x80;
            }
        }
        channels
    }

    #[inline(always)]
    fn transpose(self, lines: [[u8; WIDE]; SQUARE]) -> [[u8; WIDE]; SQUARE] {
        let mut turned = [[0; WIDE]; SQUARE];
        for start in [0, SQUARE] {
            let mut square = [[0; SQUARE]; SQUARE];
            for i in 0..SQUARE {
                square[i].copy_from_slice(&lines[i][start..start + SQUARE]);
            }
            let square = transpose(square);
            for i in 0..SQUARE {
                turned[i][start..start + SQUARE].copy_from_slice(&square[i]);
            }
        }
        turned
    }
}

/// Bytes less 128, or the opposite.
#[inline(always)]
fn flipped(mut bytes: [u8; WIDE]) -> [u8; WIDE] {
    for byte in &mut bytes {
        *byte ^= 0x80;
    }
    bytes
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

    use pulp::bytemuck::{cast, cast_ref, pod_read_unaligned};
    use pulp::x86::{V3, V4};

    use super::{Isa, Kernel, RgbLine, SQUARE, SUM_BITS, Samples, WIDE, Weight};

    /// `[channel][third]`: where in a third of [`RgbLine`] the bytes of a channel are, for both halves
    /// of a register; with the highest bit set where they are not there.
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
            [
                cast(self.avx2._mm256_slli_epi16::<8>(low)),
                cast(self.avx2._mm256_slli_epi16::<8>(high)),
            ]
        }

        #[inline(always)]
        fn split(self, one: &RgbLine, other: &RgbLine) -> [__m256i; 3] {
            let (one, other) = (one.as_chunks::<16>().0, other.as_chunks::<16>().0);
            let mut channels = [self.avx._mm256_set1_epi8(i8::MIN); 3];
            for third in 0..3 {
                // Read as registers: a cast would take them through the stack.
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

        /// In four rounds the lines of one half are interleaved with those of the other.
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
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sum<'a>(&'a [Samples], &'a [i16], &'a mut [u8; WIDE]);

    /// Sums, turned: the sums of all rows are the lines.
    struct Turn<'a>(&'a [Samples; SQUARE], &'a mut [[[i16; SQUARE]; 2]; SQUARE]);

    impl Kernel for Turn<'_> {
        #[inline(always)]
        fn run(self, isa: impl Isa) {
            let sums = |row| isa.add(isa.start(0), row, Weight::new(16_384));
            let lines = std::array::from_fn(|i| isa.load(isa.store(isa.levels(sums(&self.0[i])))));
            *self.1 = isa.transpose(lines).map(|line| isa.samples(line));
        }
    }

    impl Kernel for Sum<'_> {
        #[inline(always)]
        fn run(self, isa: impl Isa) {
            let sums = self.0.iter().zip(self.1);
            let add =
                |sums, (row, &weight): (&Samples, &i16)| isa.add(sums, row, Weight::new(weight));
            *self.2 = isa.store(isa.levels(sums.fold(isa.start(33), add)));
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

    #[test]
    fn turned_squares_are_samples_again() {
        let value = |line: usize, place: usize| ((line * 37 + place * 11) % 256) as i16 - 128;
        let rows = std::array::from_fn(|line| {
            Samples(std::array::from_fn(|place| value(line, place) << 8))
        });
        let check = |with: &dyn Fn(Turn<'_>)| {
            let mut turned = [[[0; SQUARE]; 2]; SQUARE];
            with(Turn(&rows, &mut turned));
            for (i, line) in turned.iter().enumerate() {
                for (j, &got) in line.as_flattened().iter().enumerate() {
                    let (line, place) = (j % SQUARE, j / SQUARE * SQUARE + i);
                    assert_eq!(got, value(line, place) << 8, "{i} {j}");
                }
            }
        };
        check(&|turn: Turn<'_>| turn.run(Baseline));
        check(&|turn: Turn<'_>| dispatch_kernel(turn));
        #[cfg(target_arch = "x86_64")]
        if let Some(v3) = pulp::x86::V3::try_new() {
            check(&|turn: Turn<'_>| pulp::Simd::vectorize(v3, x86::With(v3, turn)));
        }
    }

    struct Split<'a>([&'a RgbLine; 2], &'a mut [[u8; WIDE]; 3]);

    impl Kernel for Split<'_> {
        #[inline(always)]
        fn run(self, isa: impl Isa) {
            *self.1 = isa.split(self.0[0], self.0[1]).map(|channel| isa.store(channel));
        }
    }

    #[test]
    fn pixels_are_split_alike() {
        let one: RgbLine = std::array::from_fn(|i| i as u8);
        let other: RgbLine = std::array::from_fn(|i| 255 - i as u8);
        let check = |with: &dyn Fn(Split<'_>)| {
            let mut channels = [[0; WIDE]; 3];
            with(Split([&one, &other], &mut channels));
            for (c, channel) in channels.iter().enumerate() {
                for pixel in 0..SQUARE {
                    let got = [channel[pixel], channel[SQUARE + pixel]];
                    assert_eq!(got, [one[3 * pixel + c], other[3 * pixel + c]]);
                }
            }
        };
        check(&|split: Split<'_>| split.run(Baseline));
        check(&|split: Split<'_>| dispatch_kernel(split));
        #[cfg(target_arch = "x86_64")]
        if let Some(v3) = pulp::x86::V3::try_new() {
            check(&|split: Split<'_>| pulp::Simd::vectorize(v3, x86::With(v3, split)));
        }
    }
}
