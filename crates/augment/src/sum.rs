//! The weighted sums of resized samples, with variants for different numbers of weights.

use super::filter::{Taps, WEIGHT_BITS};
use super::isa::{Isa, SUM_BITS, Samples, WIDE, Weight};

const _: () = assert!(SUM_BITS == 8 + WEIGHT_BITS - 16);

/// Maximum number of pairs for sums in 16 bits. With more pairs, the dropped bits could add up to
/// half a level, so such filters (for images that shrink to less than a twelfth) sum in 32 bits.
pub(super) const MAX_SHORT_PAIRS: usize = 24;

/// A variant of the sum of samples times weights.
pub(super) trait WeightedSum {
    /// Computes the sum of samples from `taps.start` on, rounded and clipped to bytes.
    fn of<I: Isa>(isa: I, samples: &[Samples], taps: Taps<'_>) -> I::Bytes;
}

/// A sum over exactly `N` pairs of weights, which the compiler unrolls completely.
pub(super) struct Pairs<const N: usize>;

/// A sum over up to [`MAX_SHORT_PAIRS`] pairs of weights.
pub(super) struct Short;

/// A sum over any number of pairs of weights.
pub(super) struct Long;

/// Runs `$work` with `$sum` as the [`WeightedSum`] that suits the filter. Most crops need 2 to 6
/// pairs: 2 to enlarge, and 6 to shrink to 0.4 of the size.
macro_rules! with_sum {
    ($filter:expr, $sum:ident => $work:expr) => {
        with_sum!($filter, $sum => $work; 2 3 4 5 6)
    };
    ($filter:expr, $sum:ident => $work:expr; $($pairs:literal)*) => {
        match $filter.pairs() {
            $($pairs => {
                type $sum = $crate::sum::Pairs<$pairs>;
                $work
            })*
            0..=$crate::sum::MAX_SHORT_PAIRS => {
                type $sum = $crate::sum::Short;
                $work
            }
            _ => {
                type $sum = $crate::sum::Long;
                $work
            }
        }
    };
}
pub(super) use with_sum;

impl<const N: usize> WeightedSum for Pairs<N> {
    #[inline(always)]
    fn of<I: Isa>(isa: I, samples: &[Samples], taps: Taps<'_>) -> I::Bytes {
        let samples = samples[taps.start..].as_chunks().0.first_chunk::<N>();
        let (Some(samples), Some(weights)) = (samples, taps.weights.first_chunk::<N>()) else {
            return isa.load([0; WIDE]); // unreachable: a filter has `N` pairs
        };
        add(isa, samples, weights, taps.count)
    }
}

impl WeightedSum for Short {
    #[inline(always)]
    fn of<I: Isa>(isa: I, samples: &[Samples], taps: Taps<'_>) -> I::Bytes {
        let samples = &samples[taps.start..][..2 * taps.weights.len()];
        add(isa, samples.as_chunks().0, taps.weights, taps.count)
    }
}

impl WeightedSum for Long {
    #[inline(always)]
    fn of<I: Isa>(isa: I, samples: &[Samples], taps: Taps<'_>) -> I::Bytes {
        const BITS: u32 = 8 + WEIGHT_BITS;
        let mut sums = [1_i32 << (BITS - 1); WIDE];
        for (tap, &weight) in samples[taps.start..].iter().zip(taps.weights.as_flattened()) {
            for i in 0..WIDE {
                let product = i32::from(tap.0[i]) * i32::from(weight.get());
                sums[i] = sums[i].wrapping_add(product);
            }
        }
        let mut bytes = [0; WIDE];
        for i in 0..WIDE {
            bytes[i] = (sums[i] >> BITS).clamp(-128, 127) as u8 ^ 0x80;
        }
        isa.load(bytes)
    }
}

/// Computes a sum in 16 bits. Half a level is added because the fractional bits are cut off, and
/// half a bit for each tap, because the lower bits of its product are cut off.
#[inline(always)]
fn add<I: Isa>(isa: I, samples: &[[Samples; 2]], weights: &[[Weight; 2]], count: u16) -> I::Bytes {
    let mut sums = isa.start((1 << (SUM_BITS - 1)) + (count / 2) as i16);
    for ([a, b], &[first, second]) in samples.iter().zip(weights) {
        sums = isa.add(sums, a, first);
        sums = isa.add(sums, b, second);
    }
    isa.levels(sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Baseline;
    use crate::rng::{Purpose, Rng};

    /// Computes the sum in each way, from the second sample on.
    fn sums<const N: usize>(samples: &[Samples], weights: &[[Weight; 2]]) -> [[u8; WIDE]; 3] {
        let taps = || Taps { start: 1, weights, count: 2 * N as u16 };
        [
            Pairs::<N>::of(Baseline, samples, taps()),
            Short::of(Baseline, samples, taps()),
            Long::of(Baseline, samples, taps()),
        ]
        .map(|bytes| Baseline.store(bytes))
    }

    fn check<const N: usize>() {
        let mut rng = Rng::new(N as u64, 0, 0, Purpose::Choice(0));
        let mut sample = || Samples(std::array::from_fn(|_| (rng.bits() as i16) << 8));
        let samples: Vec<Samples> = (0..2 * N + 3).map(|_| sample()).collect();
        let mut weights = vec![[Weight::new((1 << WEIGHT_BITS) / (2 * N) as i16); 2]; N];
        weights[0] = [Weight::new(-900), Weight::new(2500)];
        let [known, short, long] = sums::<N>(&samples, &weights);
        assert_eq!(known, short);
        assert!(short.iter().zip(&long).all(|(a, b)| a.abs_diff(*b) <= 1), "{short:?} {long:?}");
        let exact = |i: usize| {
            let taps = samples[1..].iter().zip(weights.as_flattened());
            let sum: f64 = taps.map(|(s, w)| f64::from(s.0[i] >> 8) * f64::from(w.get())).sum();
            (sum / f64::from(1 << WEIGHT_BITS) + 128.5).floor().clamp(0.0, 255.0) as u8
        };
        assert!((0..WIDE).all(|i| long[i] == exact(i)));
    }

    #[test]
    fn all_ways_give_the_same_sum() {
        check::<2>();
        check::<3>();
        check::<4>();
        check::<5>();
        check::<6>();
        check::<24>();
    }
}
