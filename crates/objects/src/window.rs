//! Finds the most similar positions within a window around each position of a grid, without the
//! matrix of all pairs.

use ndarray::ArrayView2;
use rayon::prelude::*;
use simd::pulp::{Arch, Simd, WithSimd};

use crate::tile::{MOST_KEYS, QUERIES, grouped, keys, products};
use crate::vector::unit_rows;
use crate::{Error, Grid, Result};

/// Number of rows of queries that one thread handles; each row of keys is read once for all of
/// them.
const ROWS: usize = 4;

/// The features of one frame as unit vectors.
#[derive(Debug)]
pub(crate) struct Frame {
    grid: Grid,
    channels: usize,
    /// Unit vectors as `[position][channel]`.
    unit: Vec<f32>,
    /// Unit vectors as `[row][channel][column]`, with room for a tile after the last column.
    keys: Vec<f32>,
}

impl Frame {
    /// Normalizes the features of a frame, `[grid, channels]`.
    ///
    /// # Errors
    /// Returns an error if the number of rows is not that of the grid, there is no channel, or a
    /// feature is not finite.
    pub(crate) fn new(features: ArrayView2<'_, f32>, grid: Grid) -> Result<Self> {
        grid.holds("positions of the features", features.nrows())?;
        let channels = features.ncols();
        if channels == 0 {
            let what = "channels of the features";
            return Err(Error::Shape { what, expected: 1, found: 0 });
        }
        let (unit, _) = unit_rows(features)?;
        let stride = Self::stride(grid);
        let mut keys = vec![0.0; grid.height * channels * stride];
        for (position, row) in unit.chunks_exact(channels).enumerate() {
            let (y, x) = (position / grid.width, position % grid.width);
            let column = keys.iter_mut().skip(y * channels * stride + x).step_by(stride);
            column.zip(row).for_each(|(to, from)| *to = *from);
        }
        Ok(Self { grid, channels, unit, keys })
    }

    pub(crate) fn channels(&self) -> usize {
        self.channels
    }

    /// Drops what only a frame of queries needs.
    pub(crate) fn into_keys(mut self) -> Self {
        self.unit = Vec::new();
        self
    }

    fn stride(grid: Grid) -> usize {
        grid.width + MOST_KEYS
    }
}

/// A position of a preceding frame, and its cosine with a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Match {
    pub(crate) cosine: f32,
    pub(crate) frame: u32,
    pub(crate) position: u32,
}

/// Returns, for each position of `query`, the positions of `frames` within `radius` rows and
/// columns whose cosine is at least the `count`-th largest, ordered by frame and position.
pub(crate) fn nearest(
    query: &Frame,
    frames: &[&Frame],
    radius: usize,
    count: usize,
) -> Vec<Vec<Match>> {
    let grid = query.grid;
    let blocks = (0..grid.height.div_ceil(ROWS)).into_par_iter();
    let rows = blocks.flat_map_iter(|block| {
        let rows = block * ROWS..((block + 1) * ROWS).min(grid.height);
        Search { query, frames, radius, count }.rows(rows)
    });
    rows.collect()
}

/// The arguments of [`nearest`].
#[derive(Debug)]
struct Search<'a> {
    query: &'a Frame,
    frames: &'a [&'a Frame],
    radius: usize,
    count: usize,
}

impl Search<'_> {
    /// Returns the matches of all positions of some rows.
    fn rows(&self, rows: std::ops::Range<usize>) -> Vec<Vec<Match>> {
        let (grid, channels) = (self.query.grid, self.query.channels);
        let first = rows.start * grid.width;
        let mut best = vec![Best::new(self.count); rows.len() * grid.width];
        let packed: Vec<Vec<f32>> = {
            let vectors = |row: usize| {
                self.query.unit.chunks_exact(channels).skip(row * grid.width).take(grid.width)
            };
            rows.clone().map(|row| grouped(vectors(row), channels, QUERIES)).collect()
        };
        let from = rows.start.saturating_sub(self.radius);
        let to = rows.end.saturating_add(self.radius).min(grid.height);
        for (number, frame) in self.frames.iter().enumerate() {
            for key_row in from..to {
                for row in rows.clone().filter(|row| row.abs_diff(key_row) <= self.radius) {
                    let best = &mut best[row * grid.width - first..][..grid.width];
                    let at = (number as u32, key_row);
                    let packed = &packed[row - rows.start];
                    Arch::new().dispatch(Row { search: self, packed, frame, at, best });
                }
            }
        }
        best.into_iter().map(Best::done).collect()
    }
}

/// Compares a row of queries with a row of keys, and offers the results to the best matches.
struct Row<'a> {
    search: &'a Search<'a>,
    packed: &'a [f32],
    frame: &'a Frame,
    /// Number of the frame, and the row of the keys.
    at: (u32, usize),
    best: &'a mut [Best],
}

impl WithSimd for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { search, packed, frame, at: (number, key_row), best } = self;
        let (width, radius) = (search.query.grid.width, search.radius);
        let (stride, channels) = (Frame::stride(search.query.grid), search.query.channels);
        let tile_keys = keys::<S>();
        let row_of_keys = &frame.keys[key_row * channels * stride..][..channels * stride];
        for (tile, queries) in packed.chunks_exact(channels * QUERIES).enumerate() {
            let first = tile * QUERIES;
            let last = (first + QUERIES).min(width);
            let end = last.saturating_add(radius).min(width);
            let mut start = first.saturating_sub(radius);
            while start < end {
                let cosines = products::<S, false>(simd, queries, &row_of_keys[start..], stride);
                for (x, cosines) in (first..last).zip(&cosines) {
                    let best = &mut best[x];
                    let good = cosines.iter().map(|&c| u32::from(c >= best.threshold)).sum::<u32>();
                    if good > 0 {
                        let columns =
                            x.saturating_sub(radius)..(x + 1).saturating_add(radius).min(width);
                        let position = (key_row * width + start) as u32;
                        best.offer(&cosines[..tile_keys], start, &columns, (number, position));
                    }
                }
                start += tile_keys;
            }
        }
    }
}

/// The best matches so far of one query.
#[derive(Debug, Clone)]
struct Best {
    count: usize,
    matches: Vec<Match>,
    /// Cosines below this are not among the best.
    threshold: f32,
    /// Number of matches at which the worse ones are dropped.
    limit: usize,
}

impl Best {
    fn new(count: usize) -> Self {
        Self {
            count,
            matches: Vec::new(),
            threshold: f32::NEG_INFINITY,
            limit: count.saturating_mul(8),
        }
    }

    /// Takes the cosines of a tile, whose first key is in column `start`, that lie in `columns` and
    /// are large enough.
    fn offer(
        &mut self,
        cosines: &[f32],
        start: usize,
        columns: &std::ops::Range<usize>,
        (frame, first): (u32, u32),
    ) {
        for (k, &cosine) in cosines.iter().enumerate() {
            if cosine >= self.threshold && columns.contains(&(start + k)) {
                self.matches.push(Match { cosine, frame, position: first + k as u32 });
                if self.matches.len() >= self.limit {
                    self.prune();
                }
            }
        }
    }

    /// Drops all matches below the `count`-th largest cosine; equal ones stay.
    fn prune(&mut self) {
        if self.count > 0 && self.matches.len() > self.count {
            let mut cosines: Vec<f32> = self.matches.iter().map(|m| m.cosine).collect();
            let (_, threshold, _) =
                cosines.select_nth_unstable_by(self.count - 1, |a, b| b.total_cmp(a));
            self.threshold = *threshold;
            self.matches.retain(|m| m.cosine >= self.threshold);
        }
        self.limit = (2 * self.matches.len()).max(self.count.saturating_mul(8));
    }

    fn done(mut self) -> Vec<Match> {
        self.prune();
        self.matches
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    use crate::vector::fixed_noise;

    fn frame(which: u64, grid: Grid, channels: usize) -> (Frame, Array2<f32>) {
        let noise = fixed_noise(which, grid.cells() * channels);
        let values = noise.into_iter().map(|x| x as f32).collect();
        let features = Array2::from_shape_vec((grid.cells(), channels), values).unwrap();
        (Frame::new(features.view(), grid).unwrap(), features)
    }

    #[test]
    fn matches_are_the_best_of_the_window() {
        for (height, width, radius) in [(1, 1, 2), (3, 40, 5), (9, 7, 2), (10, 25, 12), (17, 5, 0)]
        {
            let grid = Grid::new(height, width);
            let frames: Vec<_> = (0..3).map(|which| frame(which, grid, 11)).collect();
            let context: Vec<&Frame> = frames.iter().map(|(frame, _)| frame).collect();
            let found = nearest(&frames[0].0, &context, radius, 5);
            let unit = |f: usize, p: usize| {
                let row = frames[f].1.row(p).mapv(f64::from);
                &row / row.dot(&row).sqrt()
            };
            for (p, found) in found.iter().enumerate() {
                let mut all = Vec::new();
                for f in 0..3 {
                    for k in 0..grid.cells() {
                        if (p / width).abs_diff(k / width) <= radius
                            && (p % width).abs_diff(k % width) <= radius
                        {
                            all.push((unit(0, p).dot(&unit(f, k)), f as u32, k as u32));
                        }
                    }
                }
                all.sort_by(|a, b| b.0.total_cmp(&a.0));
                all.truncate(5);
                all.sort_by_key(|&(_, f, k)| (f, k));
                let found: Vec<(u32, u32)> = found.iter().map(|m| (m.frame, m.position)).collect();
                let expected: Vec<(u32, u32)> = all.iter().map(|&(_, f, k)| (f, k)).collect();
                assert_eq!(found, expected, "{grid:?}, radius {radius}, position {p}");
            }
        }
    }

    #[test]
    fn equal_ones_stay() {
        let grid = Grid::new(4, 9);
        let ones = Frame::new(Array2::ones((36, 3)).view(), grid).unwrap();
        for (radius, count) in [(50, 5), (usize::MAX, 5), (50, usize::MAX)] {
            let found = nearest(&ones, &[&ones, &ones], radius, count);
            assert!(found.iter().all(|matches| matches.len() == 72), "{radius} {count}");
        }
    }
}
