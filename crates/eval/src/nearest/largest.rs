//! Selects the largest values of rows that arrive in blocks.

use std::cmp::Ordering;

use super::rows::each_row;
use crate::error::Result;

/// Number of columns scanned at once: a few registers of any width.
pub(super) const CHUNK: usize = 64;

/// A value and its column.
type Found = (f32, usize);

/// Selects the `k` largest values of each row of a matrix whose columns arrive in blocks.
///
/// Once `k` values of a row are known, most others are below the smallest of them, which a scan at
/// memory speed detects. A heap would look at each value.
#[derive(Debug)]
pub(super) struct Largest {
    k: usize,
    rows: Vec<Row>,
}

#[derive(Debug, Clone)]
struct Row {
    /// Candidates, which include the `k` largest values so far. Pruned to `k` once there are at
    /// least `4 * k + CHUNK`.
    found: Vec<Found>,
    /// Values up to this one are not among the `k` largest.
    bound: f32,
}

impl Largest {
    pub(super) fn new(rows: usize, k: usize) -> Self {
        Self { k, rows: vec![Row { found: Vec::new(), bound: f32::NEG_INFINITY }; rows] }
    }

    /// Adds a block of columns, `[rows, m]`, that starts at column `first`.
    ///
    /// # Errors
    /// Returns an error if libtorch cannot begin.
    pub(super) fn add(&mut self, values: &[f32], first: usize) -> Result<()> {
        let (k, count) = (self.k, values.len() / self.rows.len().max(1));
        each_row(&mut self.rows, values, count, |row, values| {
            simd::dispatch(
                #[inline(always)]
                || row.add(values, first, k),
            );
        })
    }

    /// Returns the `k` largest values of each row in descending order, and their columns. Among
    /// equal values, the lowest column comes first.
    pub(super) fn finish(self) -> (Vec<f32>, Vec<i64>) {
        let mut values = Vec::with_capacity(self.rows.len() * self.k);
        let mut columns = Vec::with_capacity(self.rows.len() * self.k);
        for mut row in self.rows {
            row.found.sort_unstable_by(descending);
            row.found.truncate(self.k);
            values.extend(row.found.iter().map(|found| found.0));
            columns.extend(row.found.iter().map(|found| found.1 as i64));
        }
        (values, columns)
    }
}

impl Row {
    #[inline(always)]
    fn add(&mut self, values: &[f32], first: usize, k: usize) {
        let mut start = first;
        for chunk in values.chunks(CHUNK) {
            let mut above = false;
            for &value in chunk {
                above |= value > self.bound;
            }
            // The first k values are kept whatever they are.
            if above || self.found.len() < k {
                self.take(chunk, start, k);
            }
            start += chunk.len();
        }
    }

    #[inline(never)]
    fn take(&mut self, values: &[f32], start: usize, k: usize) {
        for (column, &value) in values.iter().enumerate() {
            if value > self.bound || self.found.len() < k {
                self.found.push((value, start + column));
            }
        }
        if self.found.len() >= 4 * k + CHUNK {
            self.found.select_nth_unstable_by(k - 1, descending);
            self.found.truncate(k);
            self.bound = self.found[k - 1].0;
        }
    }
}

pub(super) fn descending(a: &Found, b: &Found) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns pseudorandom values, many of which are equal.
    fn values(count: usize, distinct: u64) -> Vec<f32> {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((state >> 33) % distinct) as f32 - distinct as f32 / 2.0
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn the_largest_of_all_columns_are_found_in_blocks_of_any_size() {
        for (columns, k, distinct) in
            [(4096, 30, 1 << 20), (4099, 3, 7), (999, 200, 50), (40, 40, 9), (1, 1, 1)]
        {
            let rows: Vec<Vec<f32>> = (0..5)
                .map(|row| values(5 * columns, distinct)[row * columns..][..columns].to_vec())
                .collect();
            let expected: Vec<Found> = rows
                .iter()
                .flat_map(|row| {
                    let mut all: Vec<Found> =
                        row.iter().enumerate().map(|(i, &value)| (value, i)).collect();
                    all.sort_by(descending);
                    all.truncate(k);
                    all
                })
                .collect();
            for block in [1, 7, 64, 1000, columns] {
                let mut largest = Largest::new(5, k);
                for start in (0..columns).step_by(block) {
                    let part = start..columns.min(start + block);
                    let values: Vec<f32> =
                        rows.iter().flat_map(|row| row[part.clone()].to_vec()).collect();
                    largest.add(&values, start).unwrap();
                }
                let (values, indices) = largest.finish();
                let got: Vec<Found> =
                    values.into_iter().zip(indices.into_iter().map(|i| i as usize)).collect();
                assert_eq!(got, expected, "{k} of {columns} in blocks of {block}");
            }
        }
    }

    #[test]
    fn values_below_all_others_fill_up_what_is_missing() {
        let mut largest = Largest::new(1, 3);
        largest.add(&[f32::NEG_INFINITY, 1.0], 0).unwrap();
        largest.add(&[f32::NEG_INFINITY, f32::NEG_INFINITY], 2).unwrap();
        let (values, columns) = largest.finish();
        assert_eq!(values, [1.0, f32::NEG_INFINITY, f32::NEG_INFINITY]);
        assert_eq!(columns, [1, 0, 2]);
    }
}
