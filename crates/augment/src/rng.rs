//! The crate's only source of randomness: a counter-based generator whose key identifies what is
//! drawn.
//!
//! Every draw is a pure function of (seed, epoch, sample, [`Purpose`]). No generator state is
//! shared or stored anywhere, so neither the number of threads, nor the order of work, nor resuming
//! a run can change a value. The stream is ChaCha with 8 rounds, whose 256-bit key consists of
//! these inputs, so different streams are independent. The values are a compatibility promise: a
//! checkpoint that is resumed by a later version must produce the same crops (see the golden values
//! in the tests below).

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// The purpose of a stream of draws. Streams of different purposes are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The permutation of an epoch (sample = 0).
    Shuffle,
    /// All parameters of one crop; contains the number of the view, counting global crops first,
    /// then local ones.
    Crop(u32),
    /// Which crops of a step are masked, and how much (sample = step).
    Mask,
    /// The blocks of one mask (sample = step); contains the index of the crop in the step.
    MaskBlocks(u32),
    /// One image of the synthetic set (epoch = 0, sample = index).
    Synthetic,
    /// The replacement of a broken image; contains the number of the attempt.
    Replacement(u32),
    /// The permutation of one pass through a source that is mixed with others (epoch = number of
    /// the pass, sample = index of the source).
    Mix,
    /// The choice of items for an evaluation or a picture; contains the caller's number.
    Choice(u32),
}

impl Purpose {
    /// Returns (tag, detail). Tags must never be reused, because they are part of the stream's key.
    fn parts(self) -> (u32, u32) {
        match self {
            Self::Shuffle => (1, 0),
            Self::Crop(view) => (2, view),
            Self::Mask => (3, 0),
            Self::MaskBlocks(crop) => (7, crop),
            Self::Synthetic => (4, 0),
            Self::Replacement(attempt) => (5, attempt),
            Self::Choice(number) => (6, number),
            Self::Mix => (8, 0),
        }
    }
}

/// A stream of random values for one purpose of one sample.
#[derive(Debug, Clone)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// Creates the stream of `purpose` for `sample` in `epoch`, always from its beginning.
    pub fn new(seed: u64, epoch: u64, sample: u64, purpose: Purpose) -> Self {
        let (tag, detail) = purpose.parts();
        let mut key = [0_u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&epoch.to_le_bytes());
        key[16..24].copy_from_slice(&sample.to_le_bytes());
        key[24..28].copy_from_slice(&tag.to_le_bytes());
        key[28..].copy_from_slice(&detail.to_le_bytes());
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Draws 64 uniform bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Draws a uniform number from [0, 1), a multiple of 2^-53.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// Draws a uniform number from [low, high]; `low` if the two are equal. Always takes one draw.
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Returns `true` with probability `p`. Always takes one draw.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// Draws a uniform index from `0..n` without bias; 0 if `n` is 0.
    ///
    /// Source: Lemire, "Fast random integer generation in an interval" (2019): the high half of the
    /// product of 64 bits and n, redrawn in the few cases that would favor some values.
    pub fn index(&mut self, n: usize) -> usize {
        let n = n as u64;
        if n == 0 {
            return 0;
        }
        let mut wide = u128::from(self.bits()) * u128::from(n);
        if (wide as u64) < n {
            let threshold = n.wrapping_neg() % n;
            while (wide as u64) < threshold {
                wide = u128::from(self.bits()) * u128::from(n);
            }
        }
        (wide >> 64) as usize
    }

    /// Draws a standard normal number (Box-Muller, the cosine half). Always takes two draws.
    pub fn normal(&mut self) -> f64 {
        // 1 - u is in (0, 1], so the logarithm is finite.
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Shuffles `items` uniformly (Fisher-Yates).
    pub fn shuffle<T: Copy>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.index(i + 1));
        }
    }

    /// Draws a uniformly random permutation of `0..n`.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        self.shuffle(&mut order);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values come from a separate implementation of ChaCha with 8 rounds and must never
    /// change.
    #[test]
    fn values_are_those_of_every_other_version() {
        let mut rng = Rng::new(1, 2, 3, Purpose::Crop(4));
        let bits = [rng.bits(), rng.bits(), rng.bits()];
        assert_eq!(bits, [0xD5ED_23ED_C3FE_AF24, 0x081D_FF5F_63B4_8935, 0x132A_2E63_48B0_5AAB]);
        let indices = [rng.index(1000), rng.index(1000), rng.index(1000)];
        assert_eq!(indices, [638, 144, 75]);
        assert!((rng.unit() - 0.16068767928468797).abs() < 1e-15);
    }

    #[test]
    fn index_is_uniform_and_in_range() {
        let mut rng = Rng::new(5, 0, 0, Purpose::Choice(0));
        let mut counts = [0_usize; 7];
        for _ in 0..70_000 {
            counts[rng.index(7)] += 1;
        }
        // Chi-square with 6 degrees of freedom exceeds 22.5 with probability 0.001.
        let chi: f64 = counts.iter().map(|&c| (c as f64 - 10_000.0).powi(2) / 10_000.0).sum();
        assert!(chi < 22.5, "{counts:?}");
        assert_eq!((rng.index(1), rng.index(0)), (0, 0));
    }

    #[test]
    fn uniform_and_normal_have_their_moments() {
        let mut rng = Rng::new(6, 0, 0, Purpose::Choice(0));
        let n = 50_000;
        let (mut mean, mut square) = (0.0, 0.0);
        for _ in 0..n {
            let u = rng.uniform(2.0, 4.0);
            assert!((2.0..4.0).contains(&u));
            let z = rng.normal();
            mean += (u - 3.0) / n as f64;
            square += z * z / n as f64;
        }
        assert!(mean.abs() < 0.01, "{mean}");
        assert!((square - 1.0).abs() < 0.03, "{square}");
        assert!((0..1000).all(|_| !rng.chance(0.0)) && (0..1000).all(|_| rng.chance(1.0)));
    }

    #[test]
    fn a_permutation_has_every_index_once() {
        let mut order = Rng::new(1, 2, 0, Purpose::Shuffle).permutation(1000);
        assert_ne!(order[..5], [0, 1, 2, 3, 4]);
        order.sort_unstable();
        assert!(order.iter().copied().eq(0..1000));
    }

    #[test]
    fn each_part_of_the_key_changes_the_stream() {
        let first = |seed, epoch, sample, purpose| Rng::new(seed, epoch, sample, purpose).bits();
        let all = [
            first(0, 0, 0, Purpose::Crop(0)),
            first(1, 0, 0, Purpose::Crop(0)),
            first(0, 1, 0, Purpose::Crop(0)),
            first(0, 0, 1, Purpose::Crop(0)),
            first(0, 0, 0, Purpose::Crop(1)),
            first(0, 0, 0, Purpose::Mask),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|b| a != b));
        }
        assert_eq!(all[0], first(0, 0, 0, Purpose::Crop(0)));
    }
}
