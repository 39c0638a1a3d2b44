//! The operations for which compilers do not reliably generate good SIMD code: the weighted sum of
//! rows of samples, and the transpose of squares of bytes. They are written once for each
//! instruction set, behind [`Isa`].
//!
//! Everything else is plain loops; see [`super::lanes`]. Closures are avoided: a closure that is
//! not inlined is compiled without the instruction set, and every operation in it becomes a call.

use super::lanes::{mul_high, transpose};

/// Number of samples that are processed together; see [`super::strip`].
pub(crate) const WIDE: usize = 32;
/// Side of the squares of bytes that are transposed.
pub(crate) const SQUARE: usize = WIDE / 2;
/// Number of fractional bits of a sum: those of a sample plus those of a weight, minus the 16 that
/// are dropped.
pub(super) const SUM_BITS: u32 = 6;

/// [`WIDE`] samples, each a byte minus 128 with eight fractional bits. Aligned to a register.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Samples(pub(super) [i16; WIDE]);

impl Samples {
    pub(super) const ZERO: Self = Self([0; WIDE]);
}

/// A weight, stored twice: broadcasting two 16-bit values at a time over a register is cheaper.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Weight(pub(super) [i16; 2]);

impl Weight {
    pub(super) const fn new(weight: i16) -> Self {
        Self([weight; 2])
    }

    pub(super) const fn get(self) -> i16 {
        self.0[0]
    }
}

/// [`SQUARE`] RGB pixels.
pub(crate) type RgbLine = [u8; 3 * SQUARE];

/// Operations on [`WIDE`] values at a time.
pub(crate) trait Isa: Copy {
    /// [`WIDE`] sums in 16 bits.
    type Sums: Copy;
    /// [`WIDE`] bytes, minus 128.
    type Bytes: Copy;
    /// Returns sums that start at `value`.
    fn start(self, value: i16) -> Self::Sums;
    /// Adds the high halves of the products of `samples` and `weight`.
    fn add(self, sums: Self::Sums, samples: &Samples, weight: Weight) -> Self::Sums;
    /// Drops the lowest [`SUM_BITS`] bits of the sums, and clips the rest to -128..=127.
    fn levels(self, sums: Self::Sums) -> Self::Bytes;
    /// Loads bytes, and subtracts 128.
    fn load(self, bytes: [u8; WIDE]) -> Self::Bytes;
    /// Adds 128, and stores bytes: the inverse of `load`.
    fn store(self, bytes: Self::Bytes) -> [u8; WIDE];
    /// Converts bytes to samples, in two halves.
    fn samples(self, bytes: Self::Bytes) -> [[i16; SQUARE]; 2];
    /// Splits pixels into red, green, and blue, minus 128. The first half of each result comes from
    /// `one`, and the second half from `other`.
    fn split(self, one: &RgbLine, other: &RgbLine) -> [Self::Bytes; 3];
    /// Transposes two squares, that of the first halves and that of the second halves: element `j`
    /// of line `i` becomes element `i` of line `j`.
    fn transpose(self, lines: [Self::Bytes; SQUARE]) -> [Self::Bytes; SQUARE];
}

/// The minimum that the target supports: SSE2 on x86-64, NEON on AArch64.
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

/// Subtracts 128 from bytes, or adds it, which is the same.
#[inline(always)]
fn flipped(mut bytes: [u8; WIDE]) -> [u8; WIDE] {
    for byte in &mut bytes {
        *byte ^= 0x80;
    }
    bytes
}

simd::dispatcher!(Isa, Baseline);

#[cfg(test)]
mod tests {
    use super::*;

    struct Sum<'a>(&'a [Samples], &'a [i16]);

    impl Kernel for Sum<'_> {
        type Output = [u8; WIDE];

        #[inline(always)]
        fn run(self, isa: impl Isa) -> [u8; WIDE] {
            let sums = self.0.iter().zip(self.1);
            let add =
                |sums, (row, &weight): (&Samples, &i16)| isa.add(sums, row, Weight::new(weight));
            isa.store(isa.levels(sums.fold(isa.start(33), add)))
        }
    }

    #[test]
    fn all_instruction_sets_agree() {
        let rows: Vec<Samples> = (0..9_i32)
            .map(|r| {
                let value = |i| ((i as i32 * 7919 + r * 104_729) % 32_768) as i16 * 2;
                Samples(std::array::from_fn(value))
            })
            .collect();
        let weights = [-300, 900, -1200, 4000, 9000, 4000, 700, -600, -116];
        let (baseline, others) = with_all(|| Sum(&rows, &weights));
        assert!(baseline.iter().any(|&v| v > 0) && baseline.iter().any(|&v| v < 255));
        assert!(others.iter().all(|bytes| *bytes == baseline));
    }

    /// Computes sums and transposes them: the lines are the sums of all rows.
    struct Turn<'a>(&'a [Samples; SQUARE]);

    impl Kernel for Turn<'_> {
        type Output = [[[i16; SQUARE]; 2]; SQUARE];

        #[inline(always)]
        fn run(self, isa: impl Isa) -> Self::Output {
            let sums = |row| isa.add(isa.start(0), row, Weight::new(16_384));
            let lines = std::array::from_fn(|i| isa.load(isa.store(isa.levels(sums(&self.0[i])))));
            isa.transpose(lines).map(|line| isa.samples(line))
        }
    }

    #[test]
    fn turned_squares_are_samples_again() {
        let value = |line: usize, place: usize| ((line * 37 + place * 11) % 256) as i16 - 128;
        let rows = std::array::from_fn(|line| {
            Samples(std::array::from_fn(|place| value(line, place) << 8))
        });
        let (baseline, others) = with_all(|| Turn(&rows));
        for (i, line) in baseline.iter().enumerate() {
            for (j, &got) in line.as_flattened().iter().enumerate() {
                let (line, place) = (j % SQUARE, j / SQUARE * SQUARE + i);
                assert_eq!(got, value(line, place) << 8, "{i} {j}");
            }
        }
        assert!(others.iter().all(|turned| *turned == baseline));
    }

    struct Split<'a>([&'a RgbLine; 2]);

    impl Kernel for Split<'_> {
        type Output = [[u8; WIDE]; 3];

        #[inline(always)]
        fn run(self, isa: impl Isa) -> Self::Output {
            isa.split(self.0[0], self.0[1]).map(|channel| isa.store(channel))
        }
    }

    #[test]
    fn pixels_are_split_alike() {
        let one: RgbLine = std::array::from_fn(|i| i as u8);
        let other: RgbLine = std::array::from_fn(|i| 255 - i as u8);
        let (baseline, others) = with_all(|| Split([&one, &other]));
        for (c, channel) in baseline.iter().enumerate() {
            for pixel in 0..SQUARE {
                let got = [channel[pixel], channel[SQUARE + pixel]];
                assert_eq!(got, [one[3 * pixel + c], other[3 * pixel + c]]);
            }
        }
        assert!(others.iter().all(|channels| *channels == baseline));
    }
}
