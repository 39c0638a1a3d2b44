//! The weights of an antialiased bicubic resize along one axis (Catmull-Rom, a = -0.5).
//!
//! # Source
//! Pillow's `precompute_coeffs` and `bicubic_filter`: when the image shrinks, the kernel is
//! widened by the same factor, so every source pixel counts.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Fractional bits of a weight.
pub(super) const WEIGHT_BITS: u32 = 14;
/// Reach of the kernel on both sides, in target pixels when shrinking.
const SUPPORT: f64 = 2.0;
/// Filters that a thread keeps; more than the sizes of the crops of usual photographs.
const MAX_KEPT: usize = 1024;

/// For each target pixel, which source pixels it is made of.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Filter {
    /// First source pixel of each target pixel.
    pub(super) starts: Vec<u32>,
    /// Where the weights of each target pixel begin; one more than there are pixels.
    ends: Vec<u32>,
    /// [`WEIGHT_BITS`] fractional bits; those of one target pixel sum to one exactly.
    weights: Vec<i16>,
    /// Largest number of weights of a target pixel.
    most_taps: usize,
}

impl Filter {
    /// The filter from `from` pixels to `to` pixels, both at least 1.
    pub(super) fn new(from: u32, to: u32) -> Self {
        let scale = f64::from(from) / f64::from(to.max(1));
        let stretch = scale.max(1.0);
        let reach = SUPPORT * stretch;
        let mut filter =
            Self { starts: Vec::new(), ends: vec![0], weights: Vec::new(), most_taps: 0 };
        let mut exact = Vec::new();
        for target in 0..to {
            let center = (f64::from(target) + 0.5) * scale;
            let start = (center - reach + 0.5).max(0.0) as u32;
            let end = ((center + reach + 0.5) as u32).min(from);
            exact.clear();
            exact.extend((start..end).map(|x| cubic((f64::from(x) - center + 0.5) / stretch)));
            filter.push(start, &exact);
        }
        filter
    }

    /// Adds a target pixel; weights that round to nothing at the ends are left out.
    fn push(&mut self, start: u32, exact: &[f64]) {
        let sum: f64 = exact.iter().sum();
        let one = f64::from(1_u32 << WEIGHT_BITS);
        let first = self.weights.len();
        self.weights.extend(exact.iter().map(|w| (w / sum * one).round() as i16));
        let weights = &mut self.weights[first..];
        // What rounding lost goes to the largest weight, so that a flat image stays as it is.
        let lost = (1 << WEIGHT_BITS) - weights.iter().map(|&w| i32::from(w)).sum::<i32>();
        if let Some(largest) = weights.iter_mut().max_by_key(|w| **w) {
            *largest += lost as i16;
        }
        let skipped = weights.iter().take_while(|w| **w == 0).count();
        self.weights.drain(first..first + skipped);
        while self.weights.len() > first + 1 && self.weights.last() == Some(&0) {
            self.weights.pop();
        }
        self.starts.push(start + skipped as u32);
        self.ends.push(self.weights.len() as u32);
        self.most_taps = self.most_taps.max(self.weights.len() - first);
    }

    /// Number of target pixels.
    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// First source pixel of target pixel `target` and the weights from there on.
    #[inline(always)]
    pub(super) fn taps(&self, target: usize) -> (usize, &[i16]) {
        let weights = &self.weights[self.ends[target] as usize..self.ends[target + 1] as usize];
        (self.starts[target] as usize, weights)
    }

    /// Largest number of weights of a target pixel.
    pub(super) fn most_taps(&self) -> usize {
        self.most_taps
    }
}

/// Keys' cubic with a = -0.5.
fn cubic(x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        (1.5 * x - 2.5) * x * x + 1.0
    } else if x < 2.0 {
        ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    } else {
        0.0
    }
}

/// [`Filter::new`], remembered: a training run asks for the same few hundred again and again.
pub(super) fn filter(from: u32, to: u32) -> Rc<Filter> {
    thread_local! {
        static KEPT: RefCell<HashMap<(u32, u32), Rc<Filter>>> = RefCell::default();
    }
    KEPT.with_borrow_mut(|kept| {
        if let Some(filter) = kept.get(&(from, to)) {
            return filter.clone();
        }
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        let filter = Rc::new(Filter::new(from, to));
        kept.insert((from, to), filter.clone());
        filter
    })
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
            for target in 0..to as usize {
                let (start, weights) = filter.taps(target);
                prop_assert!(!weights.is_empty() && start + weights.len() <= from as usize);
                let sum: i32 = weights.iter().map(|&w| i32::from(w)).sum();
                prop_assert_eq!(sum, 1 << WEIGHT_BITS);
            }
        }
    }

    #[test]
    fn the_same_size_is_the_identity() {
        let filter = Filter::new(7, 7);
        assert!((0..7).all(|i| filter.taps(i) == (i, &[1 << WEIGHT_BITS][..])));
        assert_eq!(filter.most_taps(), 1);
    }
}
