//! Selects the keys that may be among the nearest, based on inexact products.

use super::largest::{CHUNK, descending};

/// Largest relative change by rounding to bf16, with respect to the rounded value.
const ROUNDING: f32 = 1.0 / 256.0;

/// The candidates of several queries, whose products arrive in blocks of columns.
#[derive(Debug)]
pub(super) struct Candidates {
    limits: Limits,
    rows: Vec<Row>,
}

/// The number of neighbors `k`, and the maximum number of candidates per query.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub k: usize,
    pub most: usize,
}

/// Products of queries with some keys in bf16, `[rows, m]`, and an offset to add for each key,
/// `[m]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Products<'a> {
    pub values: &'a [u16],
    pub offsets: &'a [f32],
    /// Column of the first of these keys.
    pub first: usize,
}

#[derive(Debug)]
struct Row {
    found: Vec<Candidate>,
    /// Number of candidates at which those that can no longer be among the nearest are removed.
    full: usize,
    /// The smallest upper bound that a candidate must reach.
    least: f32,
    /// Maximum error of a product with respect to fp32, not counting the final rounding to bf16.
    error: f64,
}

/// Bounds of a product before its final rounding to bf16.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    lower: f32,
    upper: f32,
    column: usize,
}

impl Candidates {
    /// Creates empty candidate lists for queries with these maximum errors.
    pub(super) fn new(errors: &[f64], limits: Limits) -> Self {
        let full = 4 * limits.k + CHUNK;
        let row = |&error| Row { found: Vec::new(), full, least: f32::NEG_INFINITY, error };
        Self { limits, rows: errors.iter().map(row).collect() }
    }

    /// Adds keys; returns `false` if there are too many candidates.
    pub(super) fn add(&mut self, products: Products<'_>) -> bool {
        let Products { values, offsets, first } = products;
        let (limits, rows) = (self.limits, self.rows.iter_mut());
        let mut rows = rows.zip(values.chunks_exact(offsets.len().max(1)));
        simd::dispatch(
            #[inline(always)]
            || rows.all(|(row, values)| row.add(Products { values, offsets, first }, limits)),
        )
    }

    /// Returns the largest `k` fp32 products of each query in descending order, and their columns.
    /// Among equal products, the lowest column comes first. `queries` and `keys` have the same
    /// width. Returns `None` if there are too many candidates.
    pub(super) fn nearest(mut self, queries: &[f32], keys: &[f32]) -> Option<(Vec<f32>, Vec<i64>)> {
        let width = queries.len() / self.rows.len().max(1);
        let (mut products, mut columns) = (Vec::new(), Vec::new());
        for (row, query) in self.rows.iter_mut().zip(queries.chunks_exact(width.max(1))) {
            if !row.prune(self.limits) {
                return None;
            }
            let mut exact = Vec::with_capacity(row.found.len());
            simd::dispatch(
                #[inline(always)]
                || {
                    for &Candidate { column, .. } in &row.found {
                        exact.push((dot(query, &keys[column * width..][..width]), column));
                    }
                },
            );
            exact.sort_unstable_by(descending);
            exact.truncate(self.limits.k);
            products.extend(exact.iter().map(|found| found.0));
            columns.extend(exact.iter().map(|found| found.1 as i64));
        }
        Some((products, columns))
    }
}

impl Row {
    #[inline(always)]
    fn add(&mut self, products: Products<'_>, limits: Limits) -> bool {
        let Products { values, offsets, first } = products;
        let mut start = first;
        for (values, offsets) in values.chunks(CHUNK).zip(offsets.chunks(CHUNK)) {
            let mut any = false;
            for (&value, &offset) in values.iter().zip(offsets) {
                any |= bounds(value, offset)[1] >= self.least;
            }
            if any && !self.take(Products { values, offsets, first: start }, limits) {
                return false;
            }
            start += values.len();
        }
        true
    }

    #[inline(never)]
    fn take(&mut self, products: Products<'_>, limits: Limits) -> bool {
        let pairs = products.values.iter().zip(products.offsets);
        for (column, (&value, &offset)) in (products.first..).zip(pairs) {
            let [lower, upper] = bounds(value, offset);
            if upper >= self.least {
                self.found.push(Candidate { lower, upper, column });
            }
        }
        self.found.len() < self.full || self.prune(limits)
    }

    /// Removes candidates that cannot be among the `k` nearest; returns `false` if too many remain.
    fn prune(&mut self, Limits { k, most }: Limits) -> bool {
        if self.found.len() > k {
            let descending = |a: &Candidate, b: &Candidate| b.lower.total_cmp(&a.lower);
            let (_, kth, _) = self.found.select_nth_unstable_by(k - 1, descending);
            // Rounded down to fp32. The error counts twice: the k-th key and another one may both
            // be off.
            let least = ((f64::from(kth.lower) - 2.0 * self.error) as f32).next_down();
            self.least = self.least.max(least);
            self.found.retain(|found| found.upper >= self.least);
        }
        self.full = 2 * self.found.len().max(2 * k) + CHUNK;
        self.found.len() <= most
    }
}

/// Returns the lower and upper bounds of a product that was rounded to bf16, plus an offset.
#[inline(always)]
fn bounds(value: u16, offset: f32) -> [f32; 2] {
    let value = f32::from_bits(u32::from(value) << 16);
    let rounding = ROUNDING * value.abs();
    [value - rounding + offset, value + rounding + offset]
}

/// Computes the dot product of two rows, always summed in the same order.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 32;
    let mut sums = [0.0_f32; LANES];
    let (parts_a, parts_b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = parts_a.remainder().iter().zip(parts_b.remainder());
    let rest: f32 = rest.map(|(a, b)| a * b).sum();
    for (a, b) in parts_a.zip(parts_b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_what_is_rounded_to_a_value() {
        // The extreme fp32 values that round to 1.0 and -0.375 in bf16 (to nearest, ties to even).
        for (value, ends) in
            [(0x3F80, [0x3F7F_8000, 0x3F80_8000]), (0xBEC0, [0xBEBF_8000, 0xBEC0_8000])]
        {
            let [lower, upper] = bounds(value, 0.5);
            for end in ends.map(f32::from_bits) {
                assert!(lower <= end + 0.5 && end + 0.5 <= upper, "{end} {lower} {upper}");
            }
            assert!(upper - lower < 0.01);
        }
    }

    #[test]
    fn candidates_are_those_within_the_error() {
        // 1.0, 0.5, and 0.49 in bf16. If 1.0 may be 0.74 and 0.5 may be 0.76, either can be the
        // nearest.
        let values = [0x3F80, 0x3F00, 0x3EFB];
        for (offsets, error, expected) in
            [([0.0; 3], 0.24, 1), ([0.0; 3], 0.26, 3), ([0.0, 0.0, 0.1], 0.24, 2)]
        {
            let limits = Limits { k: 1, most: expected };
            let mut candidates = Candidates::new(&[error], limits);
            assert!(candidates.add(Products { values: &values, offsets: &offsets, first: 0 }));
            assert!(candidates.rows[0].prune(limits));
            assert_eq!(candidates.rows[0].found.len(), expected, "{error}");
            assert!(!candidates.rows[0].prune(Limits { k: 1, most: expected - 1 }));
        }
    }
}
