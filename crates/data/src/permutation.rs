//! A random permutation that can be evaluated at any position on its own.

use augment::rng::Rng;

/// Number of rounds. The total variation distance between the position of one number and the
/// uniform distribution is below `sqrt(n) 2^(-ROUNDS / 2)`, which is less than 10^-9 for n = 2^32.
const ROUNDS: usize = 96;

/// A pseudorandom permutation of `0..n`, for any `n`, in about a kilobyte of memory.
///
/// Source: Hoang, Morris, and Rogaway, "An Enciphering Scheme Based on a Card Shuffle" (2012),
/// swap-or-not: each round pairs `x` with `sum - x` modulo `n`, and a pseudorandom bit of the pair
/// decides whether the two are swapped. Each round is its own inverse, hence a permutation.
#[derive(Debug, Clone)]
pub(crate) struct Permutation {
    n: u32,
    rounds: [Round; ROUNDS],
}

#[derive(Debug, Clone, Copy, Default)]
struct Round {
    sum: u32,
    keys: [u32; 2],
}

impl Permutation {
    /// Draws a permutation of `0..n`.
    pub(crate) fn new(n: u32, rng: &mut Rng) -> Self {
        let mut rounds = [Round::default(); ROUNDS];
        for round in &mut rounds {
            let (sum, keys) = (rng.index(n as usize) as u32, rng.bits());
            *round = Round { sum, keys: [keys as u32, (keys >> 32) as u32] };
        }
        Self { n, rounds }
    }

    /// Replaces each position, which must be below `n`, with the number at that position.
    pub(crate) fn look_up(&self, places: &mut [u32]) {
        for &Round { sum, keys } in &self.rounds {
            for x in places.iter_mut() {
                // `sum - x` modulo n. Both are below n, so one conditional addition is enough.
                let other = sum.wrapping_sub(*x);
                let other = if *x > sum { other.wrapping_add(self.n) } else { other };
                // The maximum is the same for both members of the pair, and so is the decision.
                *x = if is_swapped((*x).max(other), keys) { other } else { *x };
            }
        }
    }
}

/// Returns one bit of a hash of `x`: the finalizer of MurmurHash3 with a key mixed in before each
/// multiplication.
fn is_swapped(x: u32, keys: [u32; 2]) -> bool {
    let mut hash = x ^ keys[0];
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85EB_CA6B) ^ keys[1];
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xC2B2_AE35);
    (hash as i32) < 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use augment::rng::Purpose;

    fn drawn(seed: u64, n: u32) -> Permutation {
        Permutation::new(n, &mut Rng::new(seed, 0, 0, Purpose::Shuffle))
    }

    fn whole(seed: u64, n: u32) -> Vec<u32> {
        let mut all: Vec<u32> = (0..n).collect();
        drawn(seed, n).look_up(&mut all);
        all
    }

    #[test]
    fn every_number_has_one_place() {
        for n in [1, 2, 3, 4, 5, 64, 65, 1000, 65_537, 100_000] {
            let mut all = whole(u64::from(n), n);
            all.sort_unstable();
            assert!(all.into_iter().eq(0..n), "{n}");
        }
    }

    #[test]
    fn the_largest_sizes_do_not_overflow() {
        let n = u32::MAX;
        let places = [0, 1, n / 2, n - 2, n - 1];
        let mut found = places;
        drawn(0, n).look_up(&mut found);
        assert!(found.iter().all(|&number| number < n));
        for (place, number) in places.into_iter().zip(found) {
            let mut alone = [place];
            drawn(0, n).look_up(&mut alone);
            assert_eq!(alone, [number]);
        }
    }

    /// All orders of a few numbers are equally frequent, for odd and even permutations alike.
    #[test]
    fn every_order_is_as_likely() {
        let mut counts = std::collections::BTreeMap::new();
        for seed in 0..24_000 {
            *counts.entry(whole(seed, 4)).or_insert(0_u32) += 1;
        }
        assert_eq!(counts.len(), 24);
        // Chi-square with 23 degrees of freedom exceeds 49.7 with probability 0.001.
        let chi: f64 = counts.values().map(|&c| (f64::from(c) - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi < 49.7, "{chi}: {counts:?}");
    }

    /// For many numbers, neither the positions nor the distances between neighbors show a pattern.
    #[test]
    fn neighbors_are_independent() {
        const N: u32 = 200_000;
        const CELLS: usize = 16;
        let all = whole(7, N);
        let cell = |number: u32| (u64::from(number) * CELLS as u64 / u64::from(N)) as usize;
        for distance in [1, 2, 16, 1024, 65_536] {
            let mut counts = [0.0; CELLS * CELLS];
            let pairs = all.len() - distance;
            for (&a, &b) in all.iter().zip(&all[distance..]) {
                counts[cell(a) * CELLS + cell(b)] += 1.0;
            }
            let expected = pairs as f64 / counts.len() as f64;
            let chi: f64 = counts.iter().map(|c| (c - expected).powi(2) / expected).sum();
            // With about 255 degrees of freedom, 330 is exceeded with probability 0.001.
            assert!(chi < 330.0, "{chi} at distance {distance}");
        }
        let places = (0..).zip(&all).filter(|(place, number)| place == *number).count();
        assert!(places < 8, "{places} numbers are at their own place, where one is expected");
    }
}
