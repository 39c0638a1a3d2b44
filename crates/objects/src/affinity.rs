//! Which patches are alike: a graph of one bit per pair.
//!
//! The affinity of MaskCut has two values, 1 for pairs whose cosine is above a threshold and `eps`
//! for all others, so it is `eps 1 1^T + (1 - eps) B` with a 0/1 matrix `B`. The bits of eight rows
//! form a byte, so a product with `B` looks up sums of eight numbers in a table of 256 entries.
//! This takes an eighth of the additions, and a 64th of the memory of a matrix of doubles.

use ndarray::ArrayView2;
use rayon::prelude::*;
use simd::pulp::{Arch, Simd, WithSimd};

use crate::tile::{self, MOST_KEYS, QUERIES, grouped, products};
use crate::vector::{SHORTEST, unit_rows};
use crate::{Error, Result};

/// Rows of the Gram matrix that one thread computes at a time: whole bytes and whole tiles.
const ROWS: usize = 96;
/// Rows of a product that one thread computes at a time.
const PART: usize = 1024;

/// The graph of a set of patches, with an edge between any two that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affinity {
    patches: usize,
    /// `patches` rounded up to whole bytes.
    stride: usize,
    /// Bit `b` of `planes[p * stride + i]`: whether patches `8 p + b` and `i` are alike.
    planes: Vec<u8>,
}

impl Affinity {
    /// Connects the patches whose cosine is above `threshold`. A patch whose feature is zero is not
    /// like any patch, not even itself.
    ///
    /// The cosines are as exact as in double precision: they are computed in single precision, and
    /// again in double precision where the rounding error could make a difference. The graph is
    /// therefore the same on every machine.
    ///
    /// `features` has one row per patch.
    ///
    /// # Errors
    /// Returns [`Error::NotFinite`] for the first patch with a NaN or infinite feature, and
    /// [`Error::Option`] for a threshold outside of `[0, 1)`.
    pub fn from_features(features: ArrayView2<'_, f32>, threshold: f64) -> Result<Self> {
        if !(0.0..1.0).contains(&threshold) {
            let must = "at least 0 and below 1";
            return Err(Error::Option { option: "tau", value: threshold, must });
        }
        let rule = Rule::new(features, threshold)?;
        let patches = features.nrows();
        let stride = patches.next_multiple_of(8);
        let mut planes = vec![0; stride / 8 * stride];
        planes.par_chunks_mut((ROWS / 8 * stride).max(1)).enumerate().for_each(|(part, planes)| {
            Arch::new().dispatch(Fill { rule: &rule, first: part * ROWS, planes, stride });
        });
        let mut affinity = Self { patches, stride, planes };
        affinity.mirror();
        Ok(affinity)
    }

    /// Connects the pairs for which `alike(i, j)` holds; it is called with `i <= j` only.
    #[must_use]
    pub fn from_fn(patches: usize, alike: impl Fn(usize, usize) -> bool) -> Self {
        let stride = patches.next_multiple_of(8);
        let mut affinity = Self { patches, stride, planes: vec![0; stride / 8 * stride] };
        for i in 0..patches {
            for j in i..patches {
                if alike(i, j) {
                    affinity.planes[i / 8 * stride + j] |= 1 << (i % 8);
                    affinity.planes[j / 8 * stride + i] |= 1 << (j % 8);
                }
            }
        }
        affinity
    }

    /// Returns the number of patches.
    #[must_use]
    pub fn patches(&self) -> usize {
        self.patches
    }

    /// Returns whether two patches are alike.
    ///
    /// # Panics
    /// May panic if an index is not below [`patches`](Self::patches).
    #[must_use]
    pub fn alike(&self, i: usize, j: usize) -> bool {
        self.planes[i / 8 * self.stride + j] >> (i % 8) & 1 == 1
    }

    /// Returns how many patches each patch is like, including itself.
    #[must_use]
    pub fn degrees(&self) -> Vec<u32> {
        let mut degrees = vec![0; self.patches];
        for plane in self.planes.chunks_exact(self.stride.max(1)) {
            for (degree, byte) in degrees.iter_mut().zip(plane) {
                *degree += byte.count_ones();
            }
        }
        degrees
    }

    /// Removes all edges of some patches, as if their features were zero.
    pub fn isolate(&mut self, patches: impl IntoIterator<Item = usize>) {
        for i in patches.into_iter().filter(|&i| i < self.patches) {
            self.planes[i / 8 * self.stride..][..self.stride]
                .iter_mut()
                .for_each(|byte| *byte &= !(1 << (i % 8)));
            self.planes.iter_mut().skip(i).step_by(self.stride).for_each(|byte| *byte = 0);
        }
    }

    /// Returns the number of connected components; patches without any edge are not counted.
    #[must_use]
    pub fn components(&self) -> usize {
        let degrees = self.degrees();
        let mut seen: Vec<bool> = degrees.iter().map(|&degree| degree == 0).collect();
        let mut components = 0;
        while let Some(first) = seen.iter().position(|seen| !seen) {
            components += 1;
            seen[first] = true;
            let mut waiting = vec![first];
            while let Some(i) = waiting.pop() {
                let plane = &self.planes[i / 8 * self.stride..][..self.patches];
                for (j, byte) in plane.iter().enumerate() {
                    if byte >> (i % 8) & 1 == 1 && !seen[j] {
                        seen[j] = true;
                        waiting.push(j);
                    }
                }
            }
        }
        components
    }

    /// Computes `B x` for two vectors at once. The order of each sum does not depend on the number
    /// of threads.
    pub(crate) fn times(&self, x: &[[f64; 2]], out: &mut [[f64; 2]]) {
        out.par_chunks_mut(PART).enumerate().for_each(|(part, out)| {
            simd::dispatch(
                #[inline(always)]
                || self.times_part(part * PART, x, out),
            );
        });
    }

    #[inline(always)]
    fn times_part(&self, first: usize, x: &[[f64; 2]], out: &mut [[f64; 2]]) {
        out.fill([0.0; 2]);
        let mut tables = [[[0.0; 2]; 256]; 4];
        for (four, planes) in self.planes.chunks(4 * self.stride).enumerate() {
            for (b, table) in tables.iter_mut().enumerate() {
                let from = (32 * four + 8 * b).min(x.len());
                fill_table(table, &x[from..(from + 8).min(x.len())]);
            }
            let plane = |b: usize| planes.get(b * self.stride + first..).unwrap_or_default();
            if planes.len() == 4 * self.stride {
                let bytes = plane(0).iter().zip(plane(1)).zip(plane(2)).zip(plane(3));
                for (sum, (((a, b), c), d)) in out.iter_mut().zip(bytes) {
                    let (a, b) = (tables[0][usize::from(*a)], tables[1][usize::from(*b)]);
                    let (c, d) = (tables[2][usize::from(*c)], tables[3][usize::from(*d)]);
                    sum[0] += (a[0] + b[0]) + (c[0] + d[0]);
                    sum[1] += (a[1] + b[1]) + (c[1] + d[1]);
                }
            } else {
                for (b, table) in tables.iter().enumerate() {
                    for (sum, byte) in out.iter_mut().zip(plane(b)) {
                        let value = table[usize::from(*byte)];
                        sum[0] += value[0];
                        sum[1] += value[1];
                    }
                }
            }
        }
    }

    /// Copies the upper triangle to the lower one, in blocks of 8 x 8 bits.
    fn mirror(&mut self) {
        for upper in 0..self.stride / 8 {
            for lower in upper + 1..self.stride / 8 {
                let from = upper * self.stride + 8 * lower;
                let to = lower * self.stride + 8 * upper;
                let mut block = [0; 8];
                block.copy_from_slice(&self.planes[from..from + 8]);
                let turned = transposed(u64::from_le_bytes(block)).to_le_bytes();
                self.planes[to..to + 8].copy_from_slice(&turned);
            }
        }
    }
}

/// Fills a table with the sums of all subsets of up to eight numbers.
#[inline(always)]
fn fill_table(table: &mut [[f64; 2]; 256], numbers: &[[f64; 2]]) {
    table[0] = [0.0; 2];
    for (bit, number) in numbers.iter().enumerate() {
        let (done, next) = table.split_at_mut(1 << bit);
        for (next, done) in next.iter_mut().zip(done) {
            *next = [done[0] + number[0], done[1] + number[1]];
        }
    }
}

/// Transposes 8 x 8 bits: byte `i`, bit `j` becomes byte `j`, bit `i`.
fn transposed(mut x: u64) -> u64 {
    for (shift, mask) in
        [(7, 0x00aa_00aa_00aa_00aa), (14, 0x0000_cccc_0000_cccc), (28, 0x0000_0000_f0f0_f0f0)]
    {
        let t = (x ^ (x >> shift)) & mask;
        x ^= t ^ (t << shift);
    }
    x
}

/// Decides whether two patches are alike.
#[derive(Debug)]
struct Rule<'a> {
    features: ArrayView2<'a, f32>,
    lengths: Vec<f64>,
    threshold: f64,
    /// Distance from the threshold up to which cosines in single precision are not trusted.
    margin: f32,
    /// Unit vectors, `[tile][channel][query]` and `[panel][channel][key]`.
    queries: Vec<f32>,
    panels: Vec<f32>,
}

impl<'a> Rule<'a> {
    fn new(features: ArrayView2<'a, f32>, threshold: f64) -> Result<Self> {
        let channels = features.ncols();
        let (unit, lengths) = unit_rows(features)?;
        let rows = || unit.chunks_exact(channels.max(1));
        Ok(Self {
            features,
            lengths,
            threshold,
            // Bounds the error of a sum of products of unit vectors, and of rounding these.
            margin: ((channels as f64 + 8.0) * f64::from(f32::EPSILON)) as f32,
            queries: grouped(rows(), channels, QUERIES),
            panels: grouped(rows(), channels, MOST_KEYS),
        })
    }

    /// Applies the rule in double precision; symmetric in `i` and `j`.
    #[cold]
    fn exactly(&self, i: usize, j: usize) -> bool {
        let (a, b) = (self.lengths[i], self.lengths[j]);
        if a < SHORTEST || b < SHORTEST {
            return false;
        }
        let pairs = self.features.row(i).into_iter().zip(self.features.row(j));
        let product: f64 = pairs.map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
        product > self.threshold * (a * b)
    }
}

/// Writes the bits of [`ROWS`] rows from `first` on, for all columns from `first` on and possibly
/// some before it.
#[derive(Debug)]
struct Fill<'a, 'f> {
    rule: &'a Rule<'f>,
    first: usize,
    planes: &'a mut [u8],
    stride: usize,
}

impl WithSimd for Fill<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { rule, first, planes, stride } = self;
        let (patches, channels) = rule.features.dim();
        if channels == 0 {
            return;
        }
        let tiles = rule.queries.chunks_exact(QUERIES * channels).skip(first / QUERIES);
        let panels = rule.panels.chunks_exact(MOST_KEYS * channels).enumerate();
        for (panel, keys) in panels.skip(first / MOST_KEYS) {
            for (tile, queries) in tiles.clone().take(ROWS / QUERIES).enumerate() {
                let mut start = panel * MOST_KEYS;
                while start < ((panel + 1) * MOST_KEYS).min(patches) {
                    let keys = &keys[start - panel * MOST_KEYS..];
                    let cosines = products::<S, true>(simd, queries, keys, MOST_KEYS);
                    let count = tile::keys::<S>().min(patches - start);
                    for (q, cosines) in cosines.iter().enumerate() {
                        let i = tile * QUERIES + q;
                        if first + i < patches {
                            let bytes = &mut planes[i / 8 * stride + start..][..count];
                            rule.set_bits((first + i, start), &cosines[..count], bytes);
                        }
                    }
                    start += tile::keys::<S>();
                }
            }
        }
    }
}

impl Rule<'_> {
    /// Sets the bits of patch `i` for the patches from `start` on.
    #[inline(always)]
    fn set_bits(&self, (i, start): (usize, usize), cosines: &[f32], bytes: &mut [u8]) {
        let threshold = self.threshold as f32;
        let mut undecided = 0;
        for (byte, cosine) in bytes.iter_mut().zip(cosines) {
            *byte |= u8::from(*cosine > threshold) << (i % 8);
            undecided += u32::from((cosine - threshold).abs() <= self.margin);
        }
        if undecided == 0 {
            return;
        }
        for (k, (byte, cosine)) in bytes.iter_mut().zip(cosines).enumerate() {
            if (cosine - threshold).abs() <= self.margin {
                *byte &= !(1 << (i % 8));
                *byte |= u8::from(self.exactly(i, start + k)) << (i % 8);
            }
        }
    }
}

#[cfg(test)]
mod tests;
