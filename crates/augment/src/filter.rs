//! The weights of an antialiased bicubic resize along one axis (Catmull-Rom, a = -0.5).
//!
//! # Source
//! Pillow's `precompute_coeffs` and `bicubic_filter`. When the image shrinks, the kernel is widened
//! by the same factor, so every source pixel contributes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use super::isa::Weight;

/// Number of fractional bits of a weight.
pub(super) const WEIGHT_BITS: u32 = 14;
/// Reach of the kernel on each side: in source pixels, or in target pixels when shrinking.
const SUPPORT: f64 = 2.0;
/// Maximum size of the filters that a thread caches, in bytes. This is enough for all crops of
/// photographs with sides of 500 pixels, whose filters take 3 to 10 KB each. The limit is not on
/// their number, because filters of large images take up to several hundred KB.
const MAX_KEPT_BYTES: usize = 12 << 20;

/// For each target pixel along an axis, the source pixels that contribute to it, and their weights.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Filter {
    targets: Vec<Target>,
    /// Weights of all target pixels, the same number for each, with [`WEIGHT_BITS`] fractional
    /// bits. The weights of a target pixel sum to exactly one; where fewer are needed, zeros are
    /// added at either end. They are stored in pairs, by which loops over them are unrolled.
    weights: Vec<[Weight; 2]>,
    /// Number of pairs of weights per target pixel.
    pairs: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Target {
    /// Source pixel of the first weight.
    start: u32,
    /// Number of weights that are not padding.
    taps: u16,
}

/// The source pixels and weights of one target pixel.
pub(super) struct Taps<'a> {
    /// Source pixel of the first weight.
    pub(super) start: usize,
    /// Weights. The last one may be a zero for a source pixel that does not exist.
    pub(super) weights: &'a [[Weight; 2]],
    /// Number of weights that are not padding.
    pub(super) count: u16,
}

impl Filter {
    /// Creates the filter that resizes `from` pixels to `to` pixels, both at least 1.
    pub(super) fn new(from: u32, to: u32) -> Self {
        Self::of_targets(from, to, 0..to)
    }

    /// Creates the part of the filter for the `targets` among the `to` pixels of [`Filter::new`].
    fn of_targets(from: u32, to: u32, targets: Range<u32>) -> Self {
        let scale = f64::from(from) / f64::from(to.max(1));
        let stretch = scale.max(1.0);
        let reach = SUPPORT * stretch;
        let mut exact = Vec::new();
        // Weights of all target pixels, one pixel after the other.
        let mut weights = Vec::with_capacity(targets.len() * (2.0 * reach + 2.0) as usize);
        let target = |target: u32| {
            let center = (f64::from(target) + 0.5) * scale;
            let start = (center - reach + 0.5).max(0.0) as u32;
            let end = ((center + reach + 0.5) as u32).min(from);
            exact.clear();
            exact.extend((start..end).map(|x| cubic((f64::from(x) - center + 0.5) / stretch)));
            let before = weights.len();
            let skipped = push_rounded(&exact, &mut weights);
            Target { start: start + skipped, taps: (weights.len() - before) as u16 }
        };
        let targets = targets.map(target).collect();
        Self::filled(from, targets, &weights)
    }

    /// Pads the weights, so that all target pixels have the same number of them.
    fn filled(from: u32, mut targets: Vec<Target>, mut weights: &[i16]) -> Self {
        let most = targets.iter().map(|target| target.taps).max().unwrap_or(0);
        let pairs = usize::from(most).div_ceil(2);
        let mut all = vec![[Weight::new(0); 2]; targets.len() * pairs];
        for (target, filled) in targets.iter_mut().zip(all.chunks_exact_mut(pairs.max(1))) {
            let (own, others) = weights.split_at(usize::from(target.taps));
            weights = others;
            let start = target.start.min(from.saturating_sub(2 * pairs as u32));
            let places = &mut filled.as_flattened_mut()[(target.start - start) as usize..];
            places.iter_mut().zip(own).for_each(|(to, &weight)| *to = Weight::new(weight));
            target.start = start;
        }
        Self { targets, weights: all, pairs }
    }

    /// Returns the number of target pixels.
    pub(super) fn len(&self) -> usize {
        self.targets.len()
    }

    /// Iterates over the target pixels from `first` on.
    #[inline(always)]
    pub(super) fn from(&self, first: usize) -> impl Iterator<Item = Taps<'_>> {
        let weights = self.weights[first * self.pairs..].chunks_exact(self.pairs);
        self.targets[first..].iter().zip(weights).map(
            #[inline(always)]
            |(&Target { start, taps }, weights)| Taps {
                start: start as usize,
                weights,
                count: taps,
            },
        )
    }

    /// Returns the filter with its target pixels in reverse order.
    fn mirrored(&self) -> Self {
        let weights = self.weights.chunks_exact(self.pairs).rev().flatten().copied();
        Self {
            targets: self.targets.iter().rev().copied().collect(),
            weights: weights.collect(),
            pairs: self.pairs,
        }
    }

    /// Restricts the filter to the source pixels out of `from` that it needs, and returns it with
    /// their range.
    fn within(mut self, from: u32) -> (Self, Range<u32>) {
        let first = self.targets.iter().map(|target| target.start).min().unwrap_or(0);
        let last = self.targets.iter().map(|target| target.start).max().unwrap_or(0);
        self.targets.iter_mut().for_each(|target| target.start -= first);
        // The last weight may belong to a source pixel that does not exist.
        let end = (last + 2 * self.pairs as u32).min(from);
        (self, first..end)
    }

    /// Returns the number of pairs of weights per target pixel.
    pub(super) fn pairs(&self) -> usize {
        self.pairs
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.targets) + size_of_val(&*self.weights)
    }
}

/// Adds the rounded weights to `all`, without those at either end that round to zero. Returns how
/// many were skipped at the beginning.
fn push_rounded(exact: &[f64], all: &mut Vec<i16>) -> u32 {
    let factor = f64::from(1_u32 << WEIGHT_BITS) / exact.iter().sum::<f64>();
    let first = all.len();
    // Rounds by a cast that drops the fraction, because `round` is a function call on most targets.
    all.extend(exact.iter().map(|w| (w * factor + 0.5_f64.copysign(*w)) as i16));
    let weights = &mut all[first..];
    // The rounding error is added to the largest weight, so that a flat image does not change.
    let lost = (1 << WEIGHT_BITS) - weights.iter().map(|&w| i32::from(w)).sum::<i32>();
    if let Some(largest) = weights.iter_mut().max_by_key(|w| **w) {
        *largest += lost as i16;
    }
    let used = weights.iter().rposition(|w| *w != 0).map_or(1, |last| last + 1);
    let skipped = weights.iter().take_while(|w| **w == 0).count().min(used - 1);
    all.truncate(first + used);
    all.drain(first..first + skipped);
    skipped as u32
}

/// Computes Keys' cubic with a = -0.5.
fn cubic(x: f64) -> f64 {
    let x = x.abs();
    // Both are computed, so that the compiler selects a value without a branch.
    let near = (1.5 * x - 2.5) * x * x + 1.0;
    let far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0;
    let inside = if x < 1.0 { near } else { far };
    if x < 2.0 { inside } else { 0.0 }
}

/// A cache of filters by source size, target size, and whether they are mirrored.
#[derive(Default)]
struct Kept {
    filters: HashMap<(u32, u32, bool), Rc<Filter>>,
    bytes: usize,
}

impl Kept {
    fn get(&mut self, from: u32, to: u32, flip: bool) -> Rc<Filter> {
        if let Some(filter) = self.filters.get(&(from, to, flip)) {
            return filter.clone();
        }
        let filter = Filter::new(from, to);
        let filter = Rc::new(if flip { filter.mirrored() } else { filter });
        self.bytes += filter.bytes();
        if self.bytes > MAX_KEPT_BYTES {
            self.filters.clear();
            self.bytes = filter.bytes();
        }
        self.filters.insert((from, to, flip), filter.clone());
        filter
    }
}

/// Returns [`Filter::new`], mirrored if `flip`, from a cache per thread: a training run requests
/// the same sizes over and over.
pub(super) fn filter(from: u32, to: u32, flip: bool) -> Rc<Filter> {
    thread_local! {
        static KEPT: RefCell<Kept> = RefCell::default();
    }
    KEPT.with_borrow_mut(|kept| kept.get(from, to, flip))
}

/// Returns the part of a filter for the `targets` among `to` pixels, and the range of source pixels
/// out of `from` that it needs. Source pixel 0 of the filter is the first one of that range. The
/// weights of a target pixel are those of [`Filter::new`].
pub(super) fn part(from: u32, to: u32, targets: Range<u32>) -> (Filter, Range<u32>) {
    if from <= to {
        // An enlarged side can be far longer than the source, so the other target pixels are not
        // even computed.
        return Filter::of_targets(from, to, targets).within(from);
    }
    // The number of pairs, which is the same for all target pixels, affects how a sum is rounded. A
    // part by itself could need fewer pairs, so it is taken from the whole filter.
    let whole = filter(from, to, false);
    let (first, last) = (targets.start as usize, targets.end as usize);
    let weights = whole.weights[first * whole.pairs..last * whole.pairs].to_vec();
    Filter { targets: whole.targets[first..last].to_vec(), weights, pairs: whole.pairs }
        .within(from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn weights_sum_to_one_inside_the_source(from in 1_u32..900, to in 1_u32..300) {
            let filter = Filter::new(from, to);
            prop_assert_eq!(filter.len(), to as usize);
            let mirrored = filter.mirrored();
            let back: Vec<_> = mirrored.from(0).map(|taps| (taps.start, taps.weights)).collect();
            for (target, taps) in filter.from(0).enumerate() {
                prop_assert_eq!(back[back.len() - 1 - target], (taps.start, taps.weights));
                let weights: Vec<_> = taps.weights.as_flattened().iter().map(|w| w.get()).collect();
                let used = weights.iter().filter(|w| **w != 0).count();
                prop_assert!(used > 0 && used <= usize::from(taps.count));
                let last = weights.iter().rposition(|w| *w != 0).unwrap();
                prop_assert!(taps.start + last < from as usize);
                // At most one weight may lie beyond the end, to complete a pair.
                prop_assert!(taps.start + weights.len() <= from as usize + 1);
                let sum: i32 = weights.iter().map(|&w| i32::from(w)).sum();
                prop_assert_eq!(sum, 1 << WEIGHT_BITS);
            }
        }
    }

    #[test]
    fn what_is_kept_has_a_limit() {
        let mut kept = Kept::default();
        for from in 3000..3300 {
            assert_eq!(*kept.get(from, 224, false), Filter::new(from, 224));
            assert_eq!(*kept.get(from, 224, true), Filter::new(from, 224).mirrored());
            assert!(kept.bytes <= MAX_KEPT_BYTES);
            let bytes: usize = kept.filters.values().map(|filter| filter.bytes()).sum();
            assert_eq!(bytes, kept.bytes);
        }
        let before = kept.filters.len();
        kept.get(3299, 224, true);
        assert!(before > 100 && kept.filters.len() == before, "{before}");
    }

    #[test]
    fn the_same_size_is_the_identity() {
        let filter = Filter::new(7, 7);
        for i in 0..7 {
            let Taps { start, weights, count } = filter.from(i).next().unwrap();
            let place = i - start;
            assert!(place < 2 && weights.len() == 1 && count == 1);
            assert_eq!(weights[0][place].get(), 1 << WEIGHT_BITS);
        }
    }
}
