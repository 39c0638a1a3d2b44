//! MaskCut: the objects of an image, one normalized cut after the other.
//!
//! Each round cuts the graph of the patches in two, decides which side is the object, and keeps the
//! part of it that is connected with the patch of the largest entry. The patches of a mask are then
//! removed from the graph. TokenCut is the first round, without the rule about corners.
//!
//! **The sign.** The published code takes the eigenvector with the sign that its solver happens to
//! return, and its rule about corners depends on it: if the side of the seed, the entry of the
//! largest magnitude, has three corners or more, one sign gives that side and the other one its
//! complement. Here, the seed is always positive, so that the rule always applies, as the paper
//! describes it.

use ndarray::ArrayView2;

use crate::ncut::{EQUAL, Ncut, ncut, seed};
use crate::{Affinity, Error, Grid, Mask, Result};

/// A second eigenvalue above this means that there is nothing to cut.
const UNIFORM: f64 = 1.0 - 1e-6;

/// Options of MaskCut.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MaskCutOptions {
    /// Patches are alike if the cosine of their features is above this, in `[0, 1)`. The published
    /// value is 0.15 for COCO.
    pub tau: f64,
    /// Affinity of patches that are not alike, above 0 and below 1.
    pub eps: f64,
    /// Number of rounds, each of which finds at most one mask.
    pub masks: usize,
    /// Whether a side with three corners of the image or more is the background.
    pub corners: bool,
    /// From the second round on, a mask is dropped if its overlap (IoU) with that of the previous
    /// round is larger than this, from 0 to 1.
    pub max_iou: f64,
    /// From the second round on, a mask is dropped if it covers this fraction of the image or less,
    /// from 0 to 1.
    pub min_area: f64,
}

impl Default for MaskCutOptions {
    fn default() -> Self {
        Self { tau: 0.15, eps: 1e-5, masks: 3, corners: true, max_iou: 0.5, min_area: 0.01 }
    }
}

impl MaskCutOptions {
    /// Returns the options of TokenCut: a single object, and no rule about corners.
    #[must_use]
    pub fn token_cut() -> Self {
        Self { tau: 0.2, masks: 1, corners: false, ..Self::default() }
    }

    /// Returns an error if a limit for masks is not between 0 and 1. The other options are checked
    /// where they are used.
    fn check(&self) -> Result<()> {
        for (option, value) in [("max_iou", self.max_iou), ("min_area", self.min_area)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::Option { option, value, must: "from 0 to 1" });
            }
        }
        Ok(())
    }
}

/// Something notable about a round.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Note {
    /// There are fewer than two patches, so there is nothing to cut and no mask.
    TooFew,
    /// All remaining patches are alike, or all features are zero, so there is nothing to cut and no
    /// mask.
    Uniform,
    /// The second eigenvalue is multiple, so the mask is one of several that are equally good.
    Degenerate,
    /// The graph has several components, so the cut is decided by `eps`.
    Disconnected {
        /// Number of components, not counting patches without any edge.
        parts: usize,
    },
    /// The eigenvector did not converge, so there is no mask.
    NotConverged,
    /// The mask covered all patches or none, and was dropped.
    Whole,
    /// The mask overlapped that of the previous round too much, and was dropped.
    Overlap,
    /// The mask was too small, and was dropped.
    Small,
}

/// A round of MaskCut.
#[derive(Debug, Clone, PartialEq)]
pub struct Round {
    /// The patches of the object; empty if there is none.
    pub mask: Mask,
    /// The cut; `None` if there are fewer than two patches, or if it did not converge.
    pub cut: Option<Ncut>,
    /// Whether the object is the side where the eigenvector is negative.
    pub reversed: bool,
    /// The patch that the object grew from.
    pub seed: usize,
    /// What happened.
    pub notes: Vec<Note>,
}

/// The masks of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct MaskCut {
    /// The rounds, as many as [`MaskCutOptions::masks`].
    pub rounds: Vec<Round>,
}

impl MaskCut {
    /// Returns the masks on a grid of pixels, one for each round. A pixel belongs only to the first
    /// mask that contains it.
    #[must_use]
    pub fn masks_at(&self, pixels: Grid) -> Vec<Mask> {
        let mut taken = Mask::empty(pixels);
        let output = |round: &Round| {
            let mut mask = round.mask.resized(pixels);
            mask.remove(&taken);
            taken.add(&mask);
            mask
        };
        self.rounds.iter().map(output).collect()
    }
}

/// Finds the objects of an image in the features of its patches, by convention the keys of the last
/// block.
///
/// `features` has one row per patch of `grid`, row by row.
///
/// # Errors
/// Returns an error if features are not finite, if their number is not that of the patches, or if
/// an option is invalid. An image without an object is not an error: its masks are empty, and the
/// notes explain why.
pub fn maskcut(
    features: ArrayView2<'_, f32>,
    grid: Grid,
    options: &MaskCutOptions,
) -> Result<MaskCut> {
    grid.holds("patches of the features", features.nrows())?;
    let affinity = Affinity::from_features(features, options.tau)?;
    maskcut_of(affinity, grid, options)
}

/// Runs [`maskcut`] on a graph of patches instead of features.
///
/// # Errors
/// Same as [`maskcut`].
pub fn maskcut_of(mut affinity: Affinity, grid: Grid, options: &MaskCutOptions) -> Result<MaskCut> {
    options.check()?;
    grid.holds("patches of the graph", affinity.patches())?;
    let mut rounds: Vec<Round> = Vec::with_capacity(options.masks);
    let mut found = None;
    for _ in 0..options.masks {
        // After a round without a mask, the graph has not changed, so its cut is the same.
        let round = match found.take() {
            Some(same) => same,
            None => cut(&affinity, grid, options)?,
        };
        let mut kept = round.clone();
        if let Some(previous) = rounds.last() {
            reject(&mut kept, &previous.mask, options);
        }
        if kept.mask.is_empty() {
            found = Some(round);
        } else {
            let cells = kept.mask.cells().iter().enumerate();
            affinity.isolate(cells.filter(|(_, inside)| **inside).map(|(cell, _)| cell));
        }
        rounds.push(kept);
    }
    Ok(MaskCut { rounds })
}

/// Drops the mask of a later round if it is too small or too similar to the previous one.
fn reject(round: &mut Round, previous: &Mask, options: &MaskCutOptions) {
    if round.mask.is_empty() {
        return;
    }
    let cells = round.mask.grid().cells();
    let note = if previous.iou(&round.mask).is_some_and(|iou| iou > options.max_iou) {
        Note::Overlap
    } else if round.mask.area() as f64 / cells as f64 <= options.min_area {
        Note::Small
    } else {
        return;
    };
    round.mask = Mask::empty(round.mask.grid());
    round.notes.push(note);
}

/// Computes one round, before its mask is compared with others.
fn cut(affinity: &Affinity, grid: Grid, options: &MaskCutOptions) -> Result<Round> {
    let mut round =
        Round { mask: Mask::empty(grid), cut: None, reversed: false, seed: 0, notes: Vec::new() };
    let cut = match ncut(affinity, options.eps) {
        Ok(cut) => cut,
        Err(Error::TooFew { .. }) => return Ok(with(round, Note::TooFew)),
        Err(Error::NotConverged { .. }) => return Ok(with(round, Note::NotConverged)),
        Err(error) => return Err(error),
    };
    let parts = affinity.components();
    if parts > 1 {
        round.notes.push(Note::Disconnected { parts });
    }
    if cut.value > UNIFORM {
        return Ok(with(Round { cut: Some(cut), ..round }, Note::Uniform));
    }
    if cut.is_degenerate() {
        round.notes.push(Note::Degenerate);
    }
    let (side, reversed, seed) = object_side(&cut.vector, grid, options.corners);
    round.mask = Mask::new(grid, side)?.component(seed);
    if round.mask.is_empty() || round.mask.area() == grid.cells() {
        round.mask = Mask::empty(grid);
        round.notes.push(Note::Whole);
    }
    Ok(Round { cut: Some(cut), reversed, seed, ..round })
}

fn with(mut round: Round, note: Note) -> Round {
    round.notes.push(note);
    round
}

/// Returns the side of the cut that is the object, whether it is the negative one, and the patch
/// that the object grows from.
fn object_side(vector: &[f64], grid: Grid, corners: bool) -> (Vec<bool>, bool, usize) {
    let mean = vector.iter().sum::<f64>() / vector.len() as f64;
    let most = vector.iter().fold(0.0f64, |most, y| most.max(y.abs()));
    let mut side: Vec<bool> = vector.iter().map(|y| y - mean > EQUAL * most).collect();
    let last = grid.cells() - 1;
    let corner = [0, grid.width - 1, last + 1 - grid.width, last];
    let in_corners = corner.iter().filter(|&&cell| side[cell]).count();
    let positive = seed(vector);
    if !((corners && in_corners >= 3) || !side[positive]) {
        return (side, false, positive);
    }
    side.iter_mut().for_each(|cell| *cell = !*cell);
    // The first of the smallest entries, up to rounding.
    let least = vector.iter().copied().fold(f64::INFINITY, f64::min);
    let negative = vector.iter().position(|y| *y <= least + EQUAL * most).unwrap_or(0);
    (side, true, negative)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    /// Returns the features of a picture whose letters are objects; `.` is the background.
    fn features(rows: &[&str]) -> (Array2<f32>, Grid) {
        let grid = Grid::new(rows.len(), rows[0].len());
        let text = rows.concat().into_bytes();
        let feature = |(cell, channel): (usize, usize)| match (text[cell], channel) {
            (b'.', 0) => 1.0,
            (b'.', _) => 0.0,
            (letter, channel) if usize::from(letter - b'A') + 1 == channel => 1.0,
            (_, channel) => {
                if channel == 0 {
                    0.1
                } else {
                    0.0
                }
            }
        };
        (Array2::from_shape_fn((grid.cells(), 4), feature), grid)
    }

    fn letter(rows: &[&str], letter: u8) -> Vec<bool> {
        rows.concat().bytes().map(|b| b == letter).collect()
    }

    const TWO: [&str; 8] = [
        "............",
        "..AAAA......",
        "..AAAA......",
        "..AAAA......",
        ".......BBB..",
        ".......BBB..",
        ".......BBB..",
        "............",
    ];

    #[test]
    fn objects_are_found_one_after_the_other() {
        let (features, grid) = features(&TWO);
        let found = maskcut(features.view(), grid, &MaskCutOptions::default()).unwrap();
        assert_eq!(found.rounds.len(), 3);
        let masks: Vec<&[bool]> = found.rounds.iter().map(|round| round.mask.cells()).collect();
        assert!(masks.contains(&&letter(&TWO, b'A')[..]), "{found:?}");
        assert!(masks.contains(&&letter(&TWO, b'B')[..]), "{found:?}");
        let pixels = found.masks_at(Grid::new(32, 48));
        assert_eq!(pixels[0].area(), 16 * found.rounds[0].mask.area());
    }

    #[test]
    fn the_side_with_corners_is_the_background() {
        // The seed is in the large part, which has all corners.
        let mut vector = vec![1.0; 25];
        (vector[12], vector[24]) = (-1.0, 1.2);
        let (side, reversed, seed) = object_side(&vector, Grid::new(5, 5), true);
        assert!(reversed && seed == 12 && side.iter().filter(|cell| **cell).count() == 1);
        let (side, reversed, seed) = object_side(&vector, Grid::new(5, 5), false);
        assert!(!reversed && seed == 24 && side[24] && !side[12]);
    }

    #[test]
    fn an_image_without_structure_has_no_mask() {
        let grid = Grid::new(6, 6);
        for features in [Array2::zeros((36, 4)), Array2::ones((36, 4))] {
            let found = maskcut(features.view(), grid, &MaskCutOptions::default()).unwrap();
            assert!(found.rounds.iter().all(|round| round.mask.is_empty()));
            assert!(
                found.rounds.iter().all(|round| round.notes.contains(&Note::Uniform)),
                "{found:?}"
            );
        }
    }

    #[test]
    fn one_patch_has_no_mask_and_odd_input_an_error() {
        let options = MaskCutOptions::default();
        let one = maskcut(Array2::ones((1, 4)).view(), Grid::new(1, 1), &options).unwrap();
        assert_eq!(one.rounds[2].notes, [Note::TooFew]);
        assert!(maskcut(Array2::ones((0, 4)).view(), Grid::new(0, 3), &options).is_ok());
        let error = maskcut(Array2::ones((5, 4)).view(), Grid::new(2, 2), &options).unwrap_err();
        assert_eq!(error.to_string(), "patches of the features: expected 4, found 5");
        let broken = Array2::from_elem((4, 4), f32::INFINITY);
        assert!(maskcut(broken.view(), Grid::new(2, 2), &options).is_err());
        for options in [
            MaskCutOptions { max_iou: f64::NAN, ..options },
            MaskCutOptions { min_area: -0.1, ..options },
        ] {
            let error =
                maskcut(Array2::ones((4, 4)).view(), Grid::new(2, 2), &options).unwrap_err();
            assert!(matches!(error, Error::Option { .. }), "{error}");
        }
    }

    #[test]
    fn patches_that_are_like_none_give_a_mask_and_a_note() {
        let affinity = Affinity::from_fn(64, |i, j| i == j);
        let found = maskcut_of(affinity, Grid::new(16, 4), &MaskCutOptions::default()).unwrap();
        assert!(found.rounds[0].notes.contains(&Note::Degenerate));
        assert!(found.rounds[0].notes.contains(&Note::Disconnected { parts: 64 }));
    }
}
