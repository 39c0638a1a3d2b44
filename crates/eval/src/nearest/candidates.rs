//! Selects the keys that may be among the nearest, based on inexact products.

use super::largest::{CHUNK, descending};
use super::rows::each_row;
use crate::error::Result;

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
    /// Whether there are too many candidates, which are then no longer collected.
    crowded: bool,
    /// The nearest keys, once they are known.
    nearest: Vec<(f32, usize)>,
}

/// The nearest keys of several queries.
#[derive(Debug)]
pub(super) struct Nearest {
    /// The largest fp32 products of each query, `[rows, k]`.
    pub products: Vec<f32>,
    /// Their columns, `[rows, k]`.
    pub columns: Vec<i64>,
    /// Queries with too many candidates, whose products and columns are meaningless.
    pub crowded: Vec<i64>,
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
        let row = |&error| Row {
            found: Vec::new(),
            full,
            least: f32::NEG_INFINITY,
            error,
            crowded: false,
            nearest: Vec::new(),
        };
        Self { limits, rows: errors.iter().map(row).collect() }
    }

    /// Adds keys.
    ///
    /// # Errors
    /// Returns an error if libtorch cannot begin.
    pub(super) fn add(&mut self, products: Products<'_>) -> Result<()> {
        let (limits, Products { values, offsets, first }) = (self.limits, products);
        each_row(&mut self.rows, values, offsets.len(), |row, values| {
            if row.crowded {
                return;
            }
            let products = Products { values, offsets, first };
            row.crowded = !simd::dispatch(
                #[inline(always)]
                || row.add(products, limits),
            );
        })
    }

    /// Computes the `k` largest fp32 products of each query in descending order. Among equal
    /// products, the lowest column comes first. `queries` and `keys` have the same width.
    ///
    /// # Errors
    /// Returns an error if libtorch cannot begin.
    pub(super) fn nearest(mut self, queries: &[f32], keys: &[f32]) -> Result<Nearest> {
        let width = queries.len() / self.rows.len().max(1);
        let limits = self.limits;
        each_row(&mut self.rows, queries, width, |row, query| row.compare(query, keys, limits))?;
        let (mut products, mut columns, mut crowded) = (Vec::new(), Vec::new(), Vec::new());
        for (index, mut row) in (0..).zip(self.rows) {
            if row.crowded {
                crowded.push(index);
                row.nearest = vec![(0.0, 0); limits.k];
            }
            products.extend(row.nearest.iter().map(|found| found.0));
            columns.extend(row.nearest.iter().map(|found| found.1 as i64));
        }
        Ok(Nearest { products, columns, crowded })
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

    /// Computes the products of the candidates in fp32, and keeps the largest.
    fn compare(&mut self, query: &[f32], keys: &[f32], limits: Limits) {
        self.crowded = self.crowded || !self.prune(limits);
        if self.crowded {
            return;
        }
        let (width, found, nearest) = (query.len(), &self.found, &mut self.nearest);
        simd::dispatch(
            #[inline(always)]
            || {
                for &Candidate { column, .. } in found {
                    nearest.push((dot(query, &keys[column * width..][..width]), column));
                }
            },
        );
        nearest.sort_unstable_by(descending);
        nearest.truncate(limits.k);
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
            candidates.add(Products { values: &values, offsets: &offsets, first: 0 }).unwrap();
            assert!(candidates.rows[0].prune(limits));
            assert_eq!(candidates.rows[0].found.len(), expected, "{error}");
            assert!(!candidates.rows[0].prune(Limits { k: 1, most: expected - 1 }));
        }
    }
}
