//! Exact nearest neighbors, computed by matrix products in blocks to bound memory.

mod blocks;
mod candidates;
mod largest;
mod rounded;
mod rows;

use tch::{Device, Kind, Tensor};
use torch_ext::with_values;

use crate::error::{Error, Result};
use crate::features::unit_rows;
pub(crate) use blocks::blocks;
use largest::Largest;
use rounded::{Found, Rounded};

/// Number of queries per block.
pub(crate) const QUERY_ROWS: i64 = 1024;
/// Number of keys per block on a GPU, which needs large products: 1 GB of similarities.
pub(crate) const KEY_ROWS_GPU: i64 = 256 << 10;
/// Number of keys per tile on a CPU: 2 MB of similarities, which stay in the cache until the
/// largest have been picked.
const TILE_ROWS: i64 = 512;

/// How rows are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Similarity {
    /// The cosine of the angle between two rows.
    Cosine,
    /// The negative Euclidean distance between two rows.
    Euclidean,
}

/// The nearest keys of each query.
#[derive(Debug)]
pub struct Neighbors {
    /// `[q, k]`, in descending order: cosines, or `q . k - |k|^2 / 2`, which orders keys by their
    /// Euclidean distance to the query.
    pub similarities: Tensor,
    /// Row indices of the keys, `[q, k]` int64.
    pub indices: Tensor,
}

impl Neighbors {
    /// Returns the `k` nearest keys of both sets, per query.
    pub(crate) fn merged(&self, other: &Self, k: i64) -> Self {
        let all = Tensor::cat(&[&self.similarities, &other.similarities], 1);
        let indices = Tensor::cat(&[&self.indices, &other.indices], 1);
        let (similarities, places) = all.topk(k.min(all.size()[1]), 1, true, true);
        Self { similarities, indices: indices.gather(1, &places, false) }
    }
}

/// A set of keys for repeated searches.
#[derive(Debug)]
pub struct Index {
    keys: Tensor,            // [n, D], with norm 1 for the cosine
    offsets: Option<Tensor>, // [1, n], -|k|^2 / 2
    rounded: Option<Rounded>,
}

impl Index {
    /// Prepares keys `[n, D]`, which stay on their device; queries are moved there.
    ///
    /// With the cosine and many keys on a CPU with AVX-512 BF16, the keys are also stored in bf16,
    /// which takes half as much memory again.
    ///
    /// # Errors
    /// Returns an error if there is no key.
    pub fn new(keys: &Tensor, similarity: Similarity) -> Result<Self> {
        let size = keys.size();
        if size.len() != 2 || size[0] == 0 {
            let expected = "[n, D], with at least one row";
            return Err(Error::Shape { what: "keys", expected, got: size });
        }
        let keys = keys.f_to_kind(Kind::Float)?;
        Ok(match similarity {
            Similarity::Cosine => {
                let keys = unit_rows(&keys);
                Self { rounded: Rounded::new(&keys)?, keys, offsets: None }
            }
            Similarity::Euclidean => {
                let offsets =
                    keys.square().sum_dim_intlist([1].as_slice(), false, Kind::Float) * -0.5;
                Self { keys, offsets: Some(offsets.unsqueeze(0)), rounded: None }
            }
        })
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.keys.size()[0] as usize
    }

    /// Always returns `false`, because an index has at least one key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the `k` nearest keys of each query `[q, D]`, or all keys if there are fewer. With
    /// the cosine, queries are scaled to norm 1 first.
    ///
    /// # Errors
    /// Returns an error if the queries differ in width from the keys, or if there are none.
    pub fn nearest(&self, queries: &Tensor, k: usize) -> Result<Neighbors> {
        self.in_blocks(queries, k, [KEY_ROWS_GPU, QUERY_ROWS])
    }

    /// [`Self::nearest`] with blocks of this many keys and queries.
    fn in_blocks(&self, queries: &Tensor, k: usize, block: [i64; 2]) -> Result<Neighbors> {
        let (size, width) = (queries.size(), self.keys.size()[1]);
        if size.len() != 2 || size[1] != width || size[0] == 0 {
            let expected = "[q, D], as wide as the keys";
            return Err(Error::Shape { what: "queries", expected, got: size });
        }
        let k = (k.max(1) as i64).min(self.keys.size()[0]);
        let queries = queries.f_to_device(self.keys.device())?.f_to_kind(Kind::Float)?;
        let queries = if self.offsets.is_some() { queries } else { unit_rows(&queries) };
        let found = blocks(&queries, block[1])
            .map(|(_, queries)| self.of_block(&queries, k, block[0]))
            .collect::<Result<Vec<_>>>()?;
        let cat = |of: fn(&Neighbors) -> &Tensor| {
            Tensor::cat(&found.iter().map(of).collect::<Vec<_>>(), 0)
        };
        Ok(Neighbors { similarities: cat(|n| &n.similarities), indices: cat(|n| &n.indices) })
    }

    fn of_block(&self, queries: &Tensor, k: i64, key_rows: i64) -> Result<Neighbors> {
        let found = self.rounded.as_ref().map(|rounded| rounded.nearest(queries, &self.keys, k));
        let Some(Found { products, rows, crowded }) = found.transpose()?.flatten() else {
            return self.among_all(queries, k, key_rows);
        };
        let mut found = Neighbors { similarities: products, indices: rows };
        if !crowded.is_empty() {
            let crowded = Tensor::from_slice(&crowded);
            let all = self.among_all(&queries.index_select(0, &crowded), k, key_rows)?;
            let put = |to: &Tensor, from: &Tensor| to.f_index_copy(0, &crowded, from);
            found.similarities = put(&found.similarities, &all.similarities)?;
            found.indices = put(&found.indices, &all.indices)?;
        }
        Ok(found)
    }

    /// Compares queries with all keys.
    fn among_all(&self, queries: &Tensor, k: i64, key_rows: i64) -> Result<Neighbors> {
        let mut found: Option<Neighbors> = None;
        for (start, keys) in blocks(&self.keys, key_rows) {
            let offsets = self.offsets.as_ref().map(|all| all.narrow(1, start, keys.size()[0]));
            let mut new = nearest_of(queries, &keys, offsets.as_ref(), k)?;
            new.indices += start;
            found = Some(match found {
                Some(so_far) => so_far.merged(&new, k),
                None => new,
            });
        }
        let nothing = || Tensor::zeros([queries.size()[0], 0], (Kind::Float, queries.device()));
        Ok(found.unwrap_or_else(|| Neighbors {
            similarities: nothing(),
            indices: nothing().to_kind(Kind::Int64),
        }))
    }
}

/// Returns the `k` keys of `[m, D]` with the largest dot products with each query of `[b, D]`, to
/// which `offsets` `[1, m]` are added if given.
pub(crate) fn nearest_of(
    queries: &Tensor,
    keys: &Tensor,
    offsets: Option<&Tensor>,
    k: i64,
) -> Result<Neighbors> {
    let k = k.min(keys.size()[0]);
    let similarities = |start: i64, keys: &Tensor| {
        let mut similarity = queries.matmul(&keys.tr()); // [b, D] x [D, m] -> [b, m]
        if let Some(offsets) = offsets {
            similarity += offsets.narrow(1, start, keys.size()[0]);
        }
        similarity
    };
    if keys.device() != Device::Cpu {
        let (similarities, indices) = similarities(0, keys).topk(k, 1, true, true);
        return Ok(Neighbors { similarities, indices });
    }
    let rows = queries.size()[0];
    let mut largest = Largest::new(rows as usize, k as usize);
    for (start, keys) in blocks(keys, TILE_ROWS) {
        with_values(&similarities(start, &keys), |values| largest.add(values, start as usize))??;
    }
    let (similarities, indices) = largest.finish();
    Ok(Neighbors {
        similarities: Tensor::from_slice(&similarities).view([rows, k]),
        indices: Tensor::from_slice(&indices).view([rows, k]),
    })
}

#[cfg(test)]
mod tests {
    use super::candidates::Limits;
    use super::*;

    fn mix(rows: i64, scale: f64) -> Tensor {
        (Tensor::arange(rows * 9, (Kind::Float, Device::Cpu)) * scale).sin().view([rows, 9]) * 3.0
    }

    #[test]
    fn blocks_do_not_change_the_neighbors() {
        let (queries, keys) = (mix(53, 2.3), mix(120, 1.7));
        for similarity in [Similarity::Cosine, Similarity::Euclidean] {
            let index = Index::new(&keys, similarity).unwrap();
            let whole = index.in_blocks(&queries, 6, [120, 53]).unwrap();
            for block in [[1, 53], [7, 5], [119, 52], [30, 1]] {
                let found = index.in_blocks(&queries, 6, block).unwrap();
                assert_eq!(found.indices, whole.indices, "{similarity:?} {block:?}");
            }
            let distances = match similarity {
                Similarity::Cosine => -unit_rows(&queries).matmul(&unit_rows(&keys).tr()),
                Similarity::Euclidean => (queries.unsqueeze(1) - keys.unsqueeze(0))
                    .square()
                    .sum_dim_intlist([2].as_slice(), false, Kind::Float),
            };
            let (_, expected) = distances.topk(6, 1, false, true);
            assert_eq!(whole.indices, expected, "{similarity:?}");
        }
    }

    #[test]
    fn bf16_finds_the_same_neighbors_as_fp32() {
        // Small integers, whose products are exact and often equal.
        let whole = |tensor: Tensor| (tensor * 1.3).round();
        let (queries, keys) = (whole(mix(53, 2.3)), whole(mix(4000, 1.7)));
        let rounded = Rounded::of(&keys).unwrap().unwrap();
        for k in [1, 5, 40] {
            let limits = Limits { k: k as usize, most: 4000 };
            let Found { products, rows, .. } =
                rounded.among_candidates(&queries, &keys, limits).unwrap();
            let found = nearest_of(&queries, &keys, None, k).unwrap();
            assert_eq!((rows, products), (found.indices, found.similarities), "{k}");
        }
    }

    #[test]
    fn a_query_that_is_not_finite_changes_no_other() {
        // Enough keys for bf16 if the CPU is fast in it.
        let index = Index::new(&mix(4000, 1.7), Similarity::Cosine).unwrap();
        let queries = mix(5, 2.3);
        let expected = index.nearest(&queries, 3).unwrap().indices;
        let _ = queries.get(1).fill_(f64::NAN);
        let found = index.nearest(&queries, 3).unwrap().indices;
        assert_eq!(found.size(), [5, 3]);
        for row in [0, 2, 3, 4] {
            assert_eq!(found.get(row), expected.get(row), "{row}");
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        assert!(
            Index::new(&Tensor::zeros([0, 3], (Kind::Float, Device::Cpu)), Similarity::Cosine)
                .is_err()
        );
        let index = Index::new(&mix(3, 1.0), Similarity::Cosine).unwrap();
        assert!(index.nearest(&Tensor::zeros([2, 8], (Kind::Float, Device::Cpu)), 2).is_err());
        assert_eq!(index.nearest(&mix(2, 1.0), 9).unwrap().indices.size(), [2, 3]);
    }
}
