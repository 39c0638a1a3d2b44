//! Propagates labels through a video along its features, as in DINO's evaluation on DAVIS.
//!
//! Each position of a frame takes the labels of the most similar positions nearby, in the first
//! frame and in the last few frames, weighted by `exp(cosine / temperature)`. The published script
//! computes the cosines of all pairs of positions and multiplies those of distant pairs by zero;
//! here, only the window is computed.

use std::collections::VecDeque;

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use crate::window::{Frame, Match, nearest};
use crate::{Error, Grid, Result};

/// How labels are propagated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PropagateOptions {
    /// Number of preceding frames that labels are taken from, besides the first frame.
    pub frames: usize,
    /// Distance in rows and in columns up to which positions are compared.
    pub radius: usize,
    /// Number of most similar positions that labels are taken from; if several are equally similar
    /// to the last of them, all of these count.
    pub topk: usize,
    /// Temperature of the weights, above 0.
    pub temperature: f64,
}

impl Default for PropagateOptions {
    /// Returns the published values.
    fn default() -> Self {
        Self { frames: 7, radius: 12, topk: 5, temperature: 0.1 }
    }
}

/// A frame that labels are taken from.
#[derive(Debug)]
struct Labeled {
    frame: Frame,
    labels: Array2<f32>,
}

/// Propagates labels from the first frame of a video to the others, one after the other.
#[derive(Debug)]
pub struct Propagator {
    grid: Grid,
    options: PropagateOptions,
    first: Labeled,
    last: VecDeque<Labeled>,
}

impl Propagator {
    /// Begins with the first frame of a video.
    ///
    /// `features` is `[grid, channels]` and `labels` is `[grid, classes]`, with positions row by
    /// row.
    ///
    /// # Errors
    /// Returns an error if shapes do not match, numbers are not finite, or an option is invalid.
    pub fn new(
        features: ArrayView2<'_, f32>,
        labels: ArrayView2<'_, f32>,
        grid: Grid,
        options: &PropagateOptions,
    ) -> Result<Self> {
        if !(options.temperature > 0.0 && options.temperature.is_finite()) {
            let must = "greater than 0";
            return Err(Error::Option { option: "temperature", value: options.temperature, must });
        }
        if options.topk == 0 {
            return Err(Error::Option { option: "topk", value: 0.0, must: "at least 1" });
        }
        check_labels(labels, grid)?;
        let frame = Frame::new(features, grid)?.into_keys();
        let first = Labeled { frame, labels: labels.to_owned() };
        Ok(Self { grid, options: *options, first, last: VecDeque::new() })
    }

    /// Computes the soft labels of the next frame, `[grid, classes]`, and remembers them for the
    /// frames after it.
    ///
    /// # Errors
    /// Returns an error if the features have a different shape than those of the first frame, or
    /// are not finite.
    pub fn next(&mut self, features: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        let frame = self.frame(features)?;
        let labels = self.propagated(&frame);
        self.remember(Labeled { frame: frame.into_keys(), labels: labels.clone() });
        Ok(labels)
    }

    /// Computes the soft labels that [`next`](Self::next) would, without remembering the frame.
    ///
    /// # Errors
    /// Same as [`next`](Self::next).
    pub fn labels_of(&self, features: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        Ok(self.propagated(&self.frame(features)?))
    }

    fn propagated(&self, frame: &Frame) -> Array2<f32> {
        let context: Vec<&Labeled> = std::iter::once(&self.first).chain(&self.last).collect();
        let frames: Vec<&Frame> = context.iter().map(|labeled| &labeled.frame).collect();
        let matches = nearest(frame, &frames, self.options.radius, self.options.topk);
        self.mix(&matches, &context)
    }

    /// Adds a frame whose labels are known, as if they had been propagated.
    ///
    /// # Errors
    /// Same as [`new`](Self::new) and [`next`](Self::next).
    pub fn push(
        &mut self,
        features: ArrayView2<'_, f32>,
        labels: ArrayView2<'_, f32>,
    ) -> Result<()> {
        let frame = self.frame(features)?.into_keys();
        check_labels(labels, self.grid)?;
        let expected = self.first.labels.ncols();
        if labels.ncols() != expected {
            return Err(Error::Shape {
                what: "classes of the labels",
                expected,
                found: labels.ncols(),
            });
        }
        self.remember(Labeled { frame, labels: labels.to_owned() });
        Ok(())
    }

    fn remember(&mut self, labeled: Labeled) {
        self.last.push_back(labeled);
        while self.last.len() > self.options.frames {
            self.last.pop_front();
        }
    }

    fn frame(&self, features: ArrayView2<'_, f32>) -> Result<Frame> {
        let frame = Frame::new(features, self.grid)?;
        let (expected, found) = (self.first.frame.channels(), frame.channels());
        if found != expected {
            return Err(Error::Shape { what: "channels of the features", expected, found });
        }
        Ok(frame)
    }

    /// Computes the weighted mean of the labels of all matches.
    fn mix(&self, matches: &[Vec<Match>], context: &[&Labeled]) -> Array2<f32> {
        let classes = self.first.labels.ncols();
        let mut labels = Array2::zeros((matches.len(), classes));
        let rows: Vec<Vec<f64>> = matches
            .par_iter()
            .map(|matches| {
                let most = matches.iter().fold(f32::NEG_INFINITY, |most, m| most.max(m.cosine));
                let weight =
                    |m: &Match| (f64::from(m.cosine - most) / self.options.temperature).exp();
                let total: f64 = matches.iter().map(weight).sum();
                let mut sum = vec![0.0; classes];
                for m in matches {
                    let share = weight(m) / total;
                    let label = context[m.frame as usize].labels.row(m.position as usize);
                    sum.iter_mut()
                        .zip(label)
                        .for_each(|(sum, &label)| *sum += share * f64::from(label));
                }
                sum
            })
            .collect();
        for (mut to, from) in labels.rows_mut().into_iter().zip(rows) {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = from as f32);
        }
        labels
    }
}

fn check_labels(labels: ArrayView2<'_, f32>, grid: Grid) -> Result<()> {
    grid.holds("positions of the labels", labels.nrows())?;
    let broken = |row: ndarray::ArrayView1<'_, f32>| !row.iter().all(|x| x.is_finite());
    match labels.rows().into_iter().position(broken) {
        Some(position) => Err(Error::Label { position }),
        None => Ok(()),
    }
}

/// Converts a map of ids to soft labels, `[position, class]`: 1 for the id of each position, with
/// one more class than the largest id.
#[must_use]
pub fn one_hot(ids: &[u8]) -> Array2<f32> {
    let classes = ids.iter().max().map_or(0, |&most| usize::from(most) + 1);
    Array2::from_shape_fn((ids.len(), classes), |(position, class)| {
        f32::from(u8::from(usize::from(ids[position]) == class))
    })
}

/// Resizes a map of ids: each cell takes the id at its center, as with Pillow's `NEAREST`.
///
/// # Errors
/// Returns [`Error::Shape`] if the number of ids is not that of the cells of `from`.
pub fn resize_ids(ids: &[u8], from: Grid, to: Grid) -> Result<Vec<u8>> {
    from.holds("ids", ids.len())?;
    if ids.is_empty() {
        return Ok(vec![0; to.cells()]);
    }
    let at = |i: usize, from: usize, to: usize| (2 * i + 1) * from / (2 * to);
    let rows = (0..to.height).map(|row| at(row, from.height, to.height) * from.width);
    Ok(rows
        .flat_map(|row| (0..to.width).map(move |x| ids[row + at(x, from.width, to.width)]))
        .collect())
}

/// Decides the id of each pixel from soft labels, as the published script does: they are enlarged
/// bilinearly by `patch`, each class is scaled to the range 0 to 1, and the class with the largest
/// value is taken, the first one if several are equal.
///
/// A class that is the same everywhere, or nowhere above 0, is not scaled.
///
/// # Errors
/// Returns [`Error::Shape`] if the number of positions is not that of the grid, or if there are
/// more than 256 classes.
pub fn decide(labels: ArrayView2<'_, f32>, grid: Grid, patch: usize) -> Result<Vec<u8>> {
    grid.holds("positions of the labels", labels.nrows())?;
    if labels.ncols() > 256 {
        return Err(Error::Shape { what: "classes", expected: 256, found: labels.ncols() });
    }
    let pixels = grid.cells() * patch * patch;
    let (mut ids, mut most) = (vec![0u8; pixels], vec![f32::NEG_INFINITY; pixels]);
    for (class, plane) in labels.columns().into_iter().enumerate() {
        let plane: Vec<f32> = plane.iter().copied().collect();
        let mut plane = enlarged(&plane, grid, patch);
        let high = plane.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let low = plane.iter().copied().fold(f32::INFINITY, f32::min);
        if high > 0.0 && high > low {
            plane.iter_mut().for_each(|x| *x = (*x - low) / (high - low));
        }
        for ((id, most), x) in ids.iter_mut().zip(&mut most).zip(plane) {
            if x > *most {
                (*id, *most) = (class as u8, x);
            }
        }
    }
    Ok(ids)
}

/// Enlarges a plane by `patch`, interpolating bilinearly between the centers of cells.
fn enlarged(plane: &[f32], grid: Grid, patch: usize) -> Vec<f32> {
    let around = |i: usize, size: usize| {
        let center = ((i as f32 + 0.5) / patch as f32 - 0.5).max(0.0);
        let first = (center as usize).min(size - 1);
        (first, (first + 1).min(size - 1), center - first as f32)
    };
    let columns: Vec<_> = (0..grid.width * patch).map(|x| around(x, grid.width)).collect();
    let mut out = Vec::with_capacity(grid.cells() * patch * patch);
    for y in 0..grid.height * patch {
        let (top, bottom, down) = around(y, grid.height);
        let (top, bottom) = (&plane[top * grid.width..], &plane[bottom * grid.width..]);
        out.extend(columns.iter().map(|&(left, right, across)| {
            let upper = top[left] * (1.0 - across) + top[right] * across;
            let lower = bottom[left] * (1.0 - across) + bottom[right] * across;
            upper * (1.0 - down) + lower * down
        }));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::fixed_noise;

    fn features(which: u64, cells: usize) -> Array2<f32> {
        let noise = fixed_noise(which, cells * 6).into_iter().map(|x| x as f32).collect();
        Array2::from_shape_vec((cells, 6), noise).unwrap()
    }

    #[test]
    fn a_still_video_keeps_its_labels() {
        let grid = Grid::new(5, 8);
        let frame = features(1, 40);
        let ids: Vec<u8> = (0..40).map(|i| (i % 3) as u8).collect();
        let sharp = PropagateOptions { temperature: 1e-3, ..Default::default() };
        let mut video = Propagator::new(frame.view(), one_hot(&ids).view(), grid, &sharp).unwrap();
        for _ in 0..10 {
            let labels = video.next(frame.view()).unwrap();
            let found: Vec<u8> = decide(labels.view(), grid, 1).unwrap();
            assert_eq!(found, ids);
        }
        assert_eq!(video.last.len(), 7);
    }

    #[test]
    fn labels_add_up_and_special_features_stay_finite() {
        for (height, width) in [(1, 1), (4, 1), (2, 8)] {
            let grid = Grid::new(height, width);
            let cells = grid.cells();
            let labels = Array2::from_elem((cells, 2), 0.5f32);
            for first in [Array2::zeros((cells, 6)), Array2::ones((cells, 6)), features(2, cells)] {
                let mut video = Propagator::new(
                    first.view(),
                    labels.view(),
                    grid,
                    &PropagateOptions::default(),
                )
                .unwrap();
                for which in 3..6 {
                    let soft = video.next(features(which, cells).view()).unwrap();
                    assert!(soft.iter().all(|x| (x - 0.5).abs() < 1e-6));
                    assert_eq!(decide(soft.view(), grid, 2).unwrap(), vec![0; 4 * cells]);
                }
            }
        }
    }

    #[test]
    fn wrong_input_is_refused() {
        let (grid, frame) = (Grid::new(2, 2), features(0, 4));
        let labels = one_hot(&[0, 1, 1, 0]);
        let default = PropagateOptions::default();
        let new = |labels: &Array2<f32>, options: PropagateOptions| {
            Propagator::new(frame.view(), labels.view(), grid, &options)
        };
        assert!(new(&one_hot(&[0, 1]), default).is_err());
        let none = Array2::zeros((4, 0));
        assert!(Propagator::new(none.view(), labels.view(), grid, &default).is_err());
        assert!(new(&labels.mapv(|_| f32::NAN), default).is_err());
        assert!(new(&labels, PropagateOptions { topk: 0, ..default }).is_err());
        assert!(new(&labels, PropagateOptions { temperature: 0.0, ..default }).is_err());
        let mut video = new(&labels, default).unwrap();
        assert!(video.next(Array2::ones((4, 5)).view()).is_err());
        let error = video.next(Array2::from_elem((4, 6), f32::NAN).view()).unwrap_err();
        assert!(error.to_string().contains("patch 0 is not finite"), "{error}");
        assert!(decide(labels.view(), Grid::new(3, 3), 1).is_err());
    }

    #[test]
    fn ids_are_resized_at_their_centers() {
        let ids = [0, 1, 2, 3];
        let (small, large) = (Grid::new(2, 2), Grid::new(4, 6));
        let big = resize_ids(&ids, small, large).unwrap();
        assert_eq!(big[..6], [0, 0, 0, 1, 1, 1]);
        assert_eq!(resize_ids(&big, large, small).unwrap(), ids);
        assert_eq!(resize_ids(&ids, small, Grid::new(1, 1)).unwrap(), [3]);
        assert_eq!(one_hot(&[2, 0]).row(0).to_vec(), [0.0, 0.0, 1.0]);
    }
}
