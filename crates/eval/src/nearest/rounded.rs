//! Exact nearest keys by products in bf16.
//!
//! A processor with AVX-512 BF16 multiplies bf16 twice as fast as fp32. Rounding changes a product
//! by at most `|q - q'| |k'| + |q| |k - k'|`, where `q'` and `k'` are the rounded rows. A key whose
//! product is too small by more than that is not among the nearest; the few others are compared in
//! fp32.
//!
//! Features often share a large common part. With the mean `m` of the keys,
//! `q k = (q - m) (k - m) + m (k - m) + q m`: the first term is small, and so is its rounding
//! error; the second is computed in fp32 once; and the last one is the same for all keys.

use std::sync::atomic::{AtomicBool, Ordering};

use tch::{Device, Kind, Tensor};
use torch_ext::{with_bf16, with_values};

use super::blocks::blocks;
use super::candidates::{Candidates, Limits, Nearest, Products};
use crate::error::Result;

/// Number of keys per block: 1 MB of products, which stay in the cache until candidates have been
/// picked.
const TILE_ROWS: i64 = 512;
/// Number of keys rounded at once.
const ROUNDED_ROWS: i64 = 16 << 10;
/// Minimum number of keys per candidate. With fewer, comparing the candidates takes longer than
/// products of all keys in fp32.
const KEYS_PER_CANDIDATE: i64 = 200;
/// Minimum number of allowed candidates per neighbor. With a lower limit, there would soon be too
/// many candidates.
const LEAST: i64 = 8;
/// Factor that enlarges norms to cover their own rounding errors.
const ENLARGED: f64 = 1.001;

/// Keys in bf16, and bounds of their rounding errors.
#[derive(Debug)]
pub(super) struct Rounded {
    /// Keys minus their mean, `[n, D]`.
    keys: Tensor,
    mean: Tensor, // [1, D]
    /// Dot products of the mean with each key minus the mean, `[n]`.
    offsets: Vec<f32>,
    /// Largest absolute value of `offsets`.
    largest_offset: f64,
    /// Largest norm of a row of `keys`.
    longest: f64,
    /// Largest norm of the rounding error of a row.
    lost: f64,
    /// Largest norm of an original key.
    original: f64,
    /// Whether most queries of a block had too many candidates because keys are similar to each
    /// other.
    crowded: AtomicBool,
}

/// The nearest keys of several queries.
#[derive(Debug)]
pub(super) struct Found {
    /// The largest dot products of each query in descending order, `[b, k]`.
    pub products: Tensor,
    /// The rows of these keys, `[b, k]`.
    pub rows: Tensor,
    /// Indices of the queries with too many candidates, which must be compared with all keys.
    pub crowded: Vec<i64>,
}

/// Returns whether libtorch multiplies bf16 faster than fp32 on this CPU.
#[cfg(target_arch = "x86_64")]
fn is_fast() -> bool {
    std::arch::is_x86_feature_detected!("avx512bf16")
}

/// Returns whether libtorch multiplies bf16 faster than fp32 on this CPU.
#[cfg(not(target_arch = "x86_64"))]
fn is_fast() -> bool {
    false
}

impl Rounded {
    /// Rounds fp32 keys `[n, D]` if that pays off: there are many, on a CPU that is fast in bf16.
    pub(super) fn new(keys: &Tensor) -> Result<Option<Self>> {
        let many = keys.size()[0] >= KEYS_PER_CANDIDATE * LEAST;
        match many && keys.device() == Device::Cpu && is_fast() {
            true => Self::of(keys),
            false => Ok(None),
        }
    }

    /// Rounds keys `[n, D]`; returns `None` if they are not finite.
    pub(super) fn of(keys: &Tensor) -> Result<Option<Self>> {
        let mean = keys.mean_dim([0].as_slice(), true, Kind::Float);
        let (mut rounded, mut offsets, mut most) = (Vec::new(), Vec::new(), [0.0_f64; 4]);
        for (_, keys) in blocks(keys, ROUNDED_ROWS) {
            let centered = &keys - &mean;
            let short = centered.f_to_kind(Kind::BFloat16)?;
            let again = short.f_to_kind(Kind::Float)?;
            let products = (&centered * &mean).sum_dim_intlist([1].as_slice(), false, Kind::Double);
            let norms = [&again, &(centered - &again), &keys].map(|rows| norms(rows).max());
            let [longest, lost, original] = norms.map(|norm| ENLARGED * norm.double_value(&[]));
            let parts = [longest, lost, original, products.abs().max().double_value(&[])];
            if !parts.iter().all(|part| part.is_finite()) {
                return Ok(None);
            }
            most.iter_mut().zip(parts).for_each(|(most, part)| *most = most.max(part));
            offsets.extend(Vec::<f32>::try_from(products.f_to_kind(Kind::Float)?)?);
            rounded.push(short);
        }
        let [longest, lost, original, largest_offset] = most;
        let (keys, crowded) = (Tensor::f_cat(&rounded, 0)?, AtomicBool::new(false));
        Ok(Some(Self { keys, mean, offsets, largest_offset, longest, lost, original, crowded }))
    }

    /// Returns the keys with the `k` largest dot products with each query of `[b, D]`. `keys` are
    /// the original keys in fp32. Among equal products, the lowest row comes first. Returns `None`
    /// if fp32 alone is faster because `k` is large or keys are too similar, or if a query is not
    /// finite, so that no key can be ruled out.
    pub(super) fn nearest(&self, queries: &Tensor, keys: &Tensor, k: i64) -> Result<Option<Found>> {
        let most = keys.size()[0] / KEYS_PER_CANDIDATE;
        if self.crowded.load(Ordering::Relaxed) || most < LEAST * k {
            return Ok(None);
        }
        if queries.isfinite().all().int64_value(&[]) == 0 {
            return Ok(None);
        }
        let limits = Limits { k: k as usize, most: most as usize };
        let found = self.among_candidates(queries, keys, limits)?;
        if 2 * found.crowded.len() as i64 > queries.size()[0] {
            self.crowded.store(true, Ordering::Relaxed);
        }
        Ok(Some(found))
    }

    /// [`Self::nearest`] with these limits.
    pub(super) fn among_candidates(
        &self,
        queries: &Tensor,
        keys: &Tensor,
        limits: Limits,
    ) -> Result<Found> {
        let centered = queries - &self.mean;
        let short = centered.f_to_kind(Kind::BFloat16)?;
        let errors = self.errors(queries, &centered, &short)?;
        let mut candidates = Candidates::new(&errors, limits);
        for (start, keys) in blocks(&self.keys, TILE_ROWS) {
            let products = short.f_matmul(&keys.tr())?; // [b, D] x [D, m] -> [b, m]
            let first = start as usize;
            let offsets = &self.offsets[first..first + keys.size()[0] as usize];
            let add = |values: &[u16]| candidates.add(Products { values, offsets, first });
            with_bf16(&products, add)??;
        }
        let Nearest { products, columns, crowded } = with_values(queries, |queries| {
            with_values(keys, |keys| candidates.nearest(queries, keys))
        })???;
        let shape = [-1, limits.k as i64];
        let products = Tensor::from_slice(&products).view(shape);
        Ok(Found { products, rows: Tensor::from_slice(&columns).view(shape), crowded })
    }

    /// Returns the maximum error of each query's products with the centered keys, before they are
    /// rounded to bf16. `centered` are the queries minus the mean and `short` are these in bf16,
    /// `[b, D]` each.
    fn errors(&self, queries: &Tensor, centered: &Tensor, short: &Tensor) -> Result<Vec<f64>> {
        let lost = norms(&(centered - short.f_to_kind(Kind::Float)?)) * ENLARGED;
        let (own, whole) = (norms(centered) * ENLARGED, norms(queries) * ENLARGED);
        // Rounding errors of sums of D products in fp32, in any order: of the rounded rows, of the
        // original rows, and of adding the offsets.
        let sums = 4.0 * queries.size()[1] as f64 * f64::from(f32::EPSILON);
        let of_own = self.lost + sums * self.longest;
        let errors = lost * self.longest + own * of_own + whole * (sums * self.original);
        let errors = errors + sums * (self.largest_offset + self.original * self.longest);
        Ok(Vec::try_from(errors.f_to_kind(Kind::Double)?)?)
    }
}

/// Returns the norm of each row, `[n, D]` to `[n]`.
fn norms(rows: &Tensor) -> Tensor {
    rows.square().sum_dim_intlist([1].as_slice(), false, Kind::Double).sqrt()
}

#[cfg(test)]
mod tests {
    use augment::rng::{Purpose, Rng};

    use super::super::Index;
    use super::*;
    use crate::features::unit_rows;

    /// Draws rows around the rows of `centers`, which take turns.
    fn drawn(count: i64, centers: &Tensor, spread: f64, seed: u64) -> Tensor {
        let mut rng = Rng::new(seed, 0, 0, Purpose::Choice(0));
        let (groups, width) = centers.size2().unwrap();
        let values: Vec<f32> = (0..count * width).map(|_| (spread * rng.normal()) as f32).collect();
        let of = Tensor::arange(count, (Kind::Int64, Device::Cpu)).remainder(groups);
        Tensor::from_slice(&values).view([count, width]) + centers.index_select(0, &of)
    }

    fn centers(groups: i64, width: i64, size: f64) -> Tensor {
        drawn(groups, &Tensor::zeros([1, width], (Kind::Float, Device::Cpu)), size, 9)
    }

    /// Returns the largest products of all pairs in double precision, and the rows of these keys.
    fn plain(queries: &Tensor, keys: &Tensor, k: i64) -> (Tensor, Tensor) {
        let products = queries.to_kind(Kind::Double).matmul(&keys.to_kind(Kind::Double).tr());
        let (products, rows) = products.sort_stable(true, 1, true);
        (products.narrow(1, 0, k), rows.narrow(1, 0, k))
    }

    #[test]
    fn the_nearest_are_those_of_all_pairs() {
        // Keys far from each other, in groups, around a common mean that is much larger than their
        // differences, and with different norms.
        for (groups, size, spread, unit) in
            [(1, 0.0, 1.0, true), (40, 1.0, 0.3, true), (1, 2.0, 0.3, true), (7, 0.5, 2.0, false)]
        {
            let of = centers(groups, 48, size);
            let [queries, keys] = [(37, 1), (5000, 2)].map(|(count, seed)| {
                let rows = drawn(count, &of, spread, seed);
                if unit { unit_rows(&rows) } else { rows }
            });
            let rounded = Rounded::of(&keys).unwrap().unwrap();
            for k in [1, 30] {
                // Keys around a common mean leave more candidates.
                let limits = Limits { k: k as usize, most: 500 };
                let found = rounded.among_candidates(&queries, &keys, limits).unwrap();
                let Found { products, rows, crowded } = found;
                assert!(crowded.is_empty(), "few candidates");
                let (expected, of) = plain(&queries, &keys, k);
                let error = (&products - &expected).abs().max().double_value(&[]);
                assert!(error < 1e-5 * expected.abs().max().double_value(&[]), "{error}");
                // Only neighbors whose products are equal up to rounding may be swapped.
                let own = queries.to_kind(Kind::Double).matmul(&keys.to_kind(Kind::Double).tr());
                let apart = (own.gather(1, &rows, false) - expected).abs().max();
                assert!(apart.double_value(&[]) < 1e-5, "{apart}");
                let same = rows.eq_tensor(&of).to_kind(Kind::Double).mean(Kind::Double);
                assert!(same.double_value(&[]) > 0.99, "{groups} {size} {k}: {same}");
            }
        }
    }

    #[test]
    fn of_equal_keys_the_first_is_nearest() {
        // Sums of a few small numbers are exact in fp32 in any order. Every key occurs five times.
        let [queries, keys] = [(20, 3), (900, 4)].map(|(count, seed)| {
            (drawn(count, &centers(1, 16, 0.0), 4.0, seed).round() * 0.25).to_kind(Kind::Float)
        });
        let keys = keys.repeat([5, 1]);
        let rounded = Rounded::of(&keys).unwrap().unwrap();
        for k in [1, 4, 12] {
            let limits = Limits { k: k as usize, most: 4500 };
            let Found { products, rows, .. } =
                rounded.among_candidates(&queries, &keys, limits).unwrap();
            let (expected, of) = plain(&queries, &keys, k);
            assert_eq!(rows, of, "{k}");
            assert_eq!(products.to_kind(Kind::Double), expected, "{k}");
        }
    }

    #[test]
    fn queries_that_are_not_finite_are_left_to_fp32() {
        let keys = unit_rows(&drawn(4000, &centers(1, 32, 0.0), 1.0, 7));
        let queries = unit_rows(&drawn(6, &centers(1, 32, 0.0), 1.0, 8));
        let rounded = Rounded::of(&keys).unwrap().unwrap();
        for value in [f64::NAN, f64::INFINITY] {
            let broken = queries.copy();
            let _ = broken.get(2).get(5).fill_(value);
            assert!(rounded.nearest(&broken, &keys, 2).unwrap().is_none());
        }
        // Queries of other blocks still benefit from bf16.
        assert!(rounded.nearest(&queries, &keys, 2).unwrap().is_some());
    }

    #[test]
    fn only_queries_with_too_many_candidates_are_compared_with_all_keys() {
        // A thousand keys around one place differ by less than bf16 can tell.
        let place = centers(1, 48, 1.0);
        let close = drawn(1000, &place, 1e-6, 5);
        let keys = Tensor::cat(&[drawn(3000, &centers(1, 48, 0.0), 1.0, 2), close], 0);
        let queries =
            Tensor::cat(&[drawn(30, &centers(1, 48, 0.0), 1.0, 1), drawn(5, &place, 0.01, 6)], 0);
        let (keys, queries) = (unit_rows(&keys), unit_rows(&queries));
        let rounded = Rounded::of(&keys).unwrap().unwrap();
        let found = rounded.nearest(&queries, &keys, 2).unwrap().unwrap();
        assert_eq!(found.crowded, [30, 31, 32, 33, 34]);
        let index = Index { keys: keys.copy(), offsets: None, rounded: Some(rounded) };
        let found = index.nearest(&queries, 2).unwrap();
        let (expected, _) = plain(&queries, &keys, 2);
        let own = queries.to_kind(Kind::Double).matmul(&keys.to_kind(Kind::Double).tr());
        for products in [found.similarities, own.gather(1, &found.indices, false)] {
            let apart = (products.to_kind(Kind::Double) - &expected).abs().max();
            assert!(apart.double_value(&[]) < 1e-6, "{apart}");
        }
    }

    #[test]
    fn keys_that_are_too_similar_are_left_to_fp32() {
        let keys = unit_rows(&drawn(4000, &centers(1, 32, 1.0), 1e-7, 5));
        let queries = unit_rows(&drawn(6, &centers(1, 32, 0.0), 1.0, 6));
        let rounded = Rounded::of(&keys).unwrap().unwrap();
        let found = rounded.nearest(&queries, &keys, 2).unwrap().unwrap();
        assert_eq!(found.crowded, [0, 1, 2, 3, 4, 5]);
        assert!(rounded.nearest(&queries, &keys, 2).unwrap().is_none());
        let _ = keys.get(17).fill_(f64::NAN);
        assert!(Rounded::of(&keys).unwrap().is_none());
    }
}
