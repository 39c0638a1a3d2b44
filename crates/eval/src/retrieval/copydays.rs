//! Copy detection: how highly the original of a modified image is ranked.

use std::path::{Path, PathBuf};

use serde::Serialize;
use tch::{Kind, Tensor};

use super::average_precision::average_precision;
use super::embed::images_in;
use crate::error::{Error, Result};
use crate::features::{check_images, unit_rows};

/// Number of top-ranked images considered for each query.
const TOP: usize = 20;
/// Eigenvalues below this fraction of the largest one are raised to it.
const LEAST_EIGENVALUE: f64 = 1e-5;

/// Images modified in one way.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Path of its folder, relative to the dataset, such as `strong` or `jpegqual/10`.
    pub name: String,
    /// Its images.
    pub files: Vec<PathBuf>,
}

/// The images of the Copydays dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct Copydays {
    /// The originals.
    pub originals: Vec<PathBuf>,
    /// The modified images.
    pub blocks: Vec<Block>,
}

impl Copydays {
    /// Lists the images of the folders `original`, `strong`, `jpegqual/*`, and `crops/*` below
    /// `root`. Blocks that do not exist are left out.
    ///
    /// # Errors
    /// Returns an error if there are no originals or no blocks, or if a folder cannot be listed or
    /// has no images.
    pub fn open(root: &Path) -> Result<Self> {
        let (original, strong) = (root.join("original"), root.join("strong"));
        if !original.is_dir() {
            return Err(Error::NoCopydays { path: root.to_owned() });
        }
        let originals = images_in(&original)?;
        let mut blocks = Vec::new();
        let mut add = |name: String| -> Result<()> {
            let folder = root.join(&name);
            if folder.is_dir() {
                blocks.push(Block { files: images_in(&folder)?, name });
            }
            Ok(())
        };
        add("strong".to_owned())?;
        for quality in [3, 5, 8, 10, 15, 20, 30, 50, 75] {
            add(format!("jpegqual/{quality}"))?;
        }
        for percent in (10..=80).step_by(10) {
            add(format!("crops/{percent}"))?;
        }
        match blocks.is_empty() {
            true if strong.is_dir() => Err(Error::NoImageFiles { path: strong }),
            true => Err(Error::NoCopydays { path: root.to_owned() }),
            false => Ok(Self { originals, blocks }),
        }
    }
}

/// Mean average precision of a block.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BlockScore {
    /// Name of the block.
    pub name: String,
    /// Mean average precision over its images, 0-1.
    pub map: f64,
    /// Number of its images that were scored.
    pub queries: usize,
}

/// Scores queries against a database. The originals of a query are the database images of the same
/// group (see [`group_of`]). A group of `None` marks a query that does not count, or a distractor
/// in the database.
///
/// # Shapes
/// - `queries`: `[q, D]`
/// - `database`: `[m, D]`
///
/// # Errors
/// Returns an error if features are not finite or have different widths, or if no query has an
/// original.
pub fn score_block(
    name: &str,
    [queries, database]: [&Tensor; 2],
    query_groups: &[Option<String>],
    database_groups: &[Option<String>],
) -> Result<BlockScore> {
    check_images(queries, "query")?;
    check_images(database, "database")?;
    let similarity = unit_rows(queries).f_matmul(&unit_rows(database).tr())?; // [q, m]
    let most = TOP.min(database_groups.len()) as i64;
    let (_, order) = similarity.topk(most, 1, true, true);
    let (mut sum, mut count) = (0.0, 0);
    for (row, group) in (0..).zip(query_groups) {
        let Some(group) = group else { continue };
        let is_original = |other: &Option<String>| other.as_ref() == Some(group);
        let positives = database_groups.iter().filter(|other| is_original(other)).count();
        if positives == 0 {
            continue;
        }
        let ranked = Vec::<i64>::try_from(order.get(row))?;
        let hits = ranked
            .iter()
            .enumerate()
            .filter(|(_, image)| is_original(&database_groups[**image as usize]));
        let ranks: Vec<usize> = hits.map(|(rank, _)| rank).collect();
        sum += average_precision(&ranks, positives);
        count += 1;
    }
    match count {
        0 => Err(Error::NoPositives),
        _ => Ok(BlockScore {
            name: name.to_owned(),
            map: sum / f64::from(count),
            queries: count as usize,
        }),
    }
}

/// Returns the group of a Copydays image: the first four characters of its file name.
pub fn group_of(path: &Path) -> Option<String> {
    Some(path.file_stem()?.to_string_lossy().chars().take(4).collect())
}

/// A whitening transform learned from other images.
#[derive(Debug)]
pub struct Whitening {
    mean: Tensor,       // [1, D]
    projection: Tensor, // [D, D]
}

impl Whitening {
    /// Learns whitening from features `[n, D]`, scaled to norm 1: `diag(e)^-1/2 V^T (x - mean)`
    /// with the eigenvalues and eigenvectors of the uncentered moments `E[x x^T]`.
    ///
    /// # Errors
    /// Returns an error if features are not finite, or a libtorch operation fails.
    ///
    /// # Source
    /// DINO's eval_copy_detection.py at 7c446df.
    pub fn learn(features: &Tensor) -> Result<Self> {
        check_images(features, "whitening")?;
        let x = unit_rows(features).f_to_kind(Kind::Double)?;
        let mean = x.mean_dim([0].as_slice(), true, Kind::Double);
        let moments = x.tr().f_matmul(&x)? / x.size()[0] as f64; // [D, D]
        let (values, vectors) = moments.f_linalg_eigh("L")?;
        let least = values.max() * LEAST_EIGENVALUE;
        let projection = vectors * values.maximum(&least).rsqrt(); // one axis per column
        Ok(Self { mean, projection })
    }

    /// Whitens features `[n, D]`.
    ///
    /// # Errors
    /// Returns an error if the features have another width.
    pub fn apply(&self, features: &Tensor) -> Result<Tensor> {
        let x = unit_rows(features).f_to_kind(Kind::Double)?;
        Ok(x.f_sub(&self.mean)?.f_matmul(&self.projection)?.f_to_kind(Kind::Float)?)
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn originals_are_found_by_name() {
        let database = Tensor::eye(4, (Kind::Float, Device::Cpu));
        let groups = ["2000", "2001", "2002"].map(|name| Some(name.to_owned()));
        let database_groups = [groups.to_vec(), vec![None]].concat();
        // The first query equals its original; the second is closest to the distractor, then to its
        // original.
        let queries =
            Tensor::from_slice(&[1.0_f32, 0.0, 0.0, 0.0, 0.0, 0.6, 0.0, 0.8]).view([2, 4]);
        let query_groups = ["2000", "2001"].map(|name| Some(name.to_owned()));
        let score =
            score_block("strong", [&queries, &database], &query_groups, &database_groups).unwrap();
        assert_eq!(score.queries, 2);
        assert!((score.map - (1.0 + 0.25) / 2.0).abs() < 1e-12, "{}", score.map);
        let skipped = [query_groups[0].clone(), None];
        let score =
            score_block("strong", [&queries, &database], &skipped, &database_groups).unwrap();
        assert_eq!((score.queries, score.map), (1, 1.0));
        assert_eq!(group_of(Path::new("a/200103.jpg")), Some("2001".to_owned()));
    }

    #[test]
    fn features_that_are_not_finite_are_not_scored() {
        let groups = ["2000", "2001"].map(|name| Some(name.to_owned()));
        let features = Tensor::eye(2, (Kind::Float, Device::Cpu));
        let broken = features.copy();
        let _ = broken.get(1).fill_(f64::NAN);
        for (pair, of) in [([&broken, &features], "query"), ([&features, &broken], "database")] {
            let score = score_block("strong", pair, &groups, &groups);
            let Err(Error::NotFinite { set, count: 1, total: 2 }) = score else {
                panic!("{score:?}")
            };
            assert_eq!(set, of);
        }
        assert!(matches!(Whitening::learn(&broken), Err(Error::NotFinite { .. })));
    }

    #[test]
    fn whitened_features_have_equal_moments() {
        // The arguments are squares, because sines at equal distances span only two dimensions.
        let x = Tensor::arange(400, (Kind::Double, Device::Cpu)).square() * 0.37;
        let x = x.sin().to_kind(Kind::Float).view([100, 4]) + 0.3;
        let whitening = Whitening::learn(&x).unwrap();
        let centered = whitening.apply(&x).unwrap().to_kind(Kind::Double);
        // The uncentered moments of features that are whitened but not centered are the identity.
        let white = &centered + whitening.mean.matmul(&whitening.projection);
        let moments = white.tr().matmul(&white) / 100.0;
        let difference = (moments - Tensor::eye(4, (Kind::Double, Device::Cpu))).abs().max();
        assert!(difference.double_value(&[]) < 1e-5, "{difference}");
        assert!(whitening.apply(&Tensor::zeros([1, 3], (Kind::Float, Device::Cpu))).is_err());
    }
}
