//! Grids of patches or pixels, and sets of their cells.

use crate::{Error, Result};

/// A grid of patches or pixels, stored row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Number of rows.
    pub height: usize,
    /// Number of columns.
    pub width: usize,
}

impl Grid {
    /// Creates a grid of `height` rows and `width` columns.
    #[must_use]
    pub fn new(height: usize, width: usize) -> Self {
        Self { height, width }
    }

    /// Returns the number of cells.
    #[must_use]
    pub fn cells(self) -> usize {
        self.height * self.width
    }

    /// Checks that `found` is the number of cells.
    pub(crate) fn holds(self, what: &'static str, found: usize) -> Result<()> {
        if found == self.cells() {
            return Ok(());
        }
        Err(Error::Shape { what, expected: self.cells(), found })
    }

    /// Returns the cells above, left, right, and below.
    fn neighbors(self, cell: usize) -> impl Iterator<Item = usize> {
        let (row, column) = (cell / self.width, cell % self.width);
        [
            (row > 0).then(|| cell - self.width),
            (column > 0).then(|| cell - 1),
            (column + 1 < self.width).then_some(cell + 1),
            (row + 1 < self.height).then_some(cell + self.width),
        ]
        .into_iter()
        .flatten()
    }
}

/// A set of cells of a grid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    grid: Grid,
    cells: Vec<bool>,
}

impl Mask {
    /// Creates a mask from its cells, row by row.
    ///
    /// # Errors
    /// Returns [`Error::Shape`] if their number is not that of the grid.
    pub fn new(grid: Grid, cells: Vec<bool>) -> Result<Self> {
        grid.holds("cells of a mask", cells.len())?;
        Ok(Self { grid, cells })
    }

    /// Creates an empty mask.
    #[must_use]
    pub fn empty(grid: Grid) -> Self {
        Self { grid, cells: vec![false; grid.cells()] }
    }

    /// Returns the grid of the cells.
    #[must_use]
    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// Returns whether each cell belongs to the mask, row by row.
    #[must_use]
    pub fn cells(&self) -> &[bool] {
        &self.cells
    }

    /// Returns the number of cells in the mask.
    #[must_use]
    pub fn area(&self) -> usize {
        self.cells.iter().filter(|&&cell| cell).count()
    }

    /// Returns whether no cell belongs to the mask.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.cells.contains(&true)
    }

    /// Computes the intersection over union with a mask of the same grid; `None` if the grids
    /// differ or both masks are empty.
    #[must_use]
    pub fn iou(&self, other: &Self) -> Option<f64> {
        if self.grid != other.grid {
            return None;
        }
        let pairs = || self.cells.iter().zip(&other.cells);
        let union = pairs().filter(|(a, b)| **a || **b).count();
        let intersection = pairs().filter(|(a, b)| **a && **b).count();
        (union > 0).then(|| intersection as f64 / union as f64)
    }

    /// Returns the row, column, height, and width of the bounding box; `None` for an empty mask.
    #[must_use]
    pub fn bounds(&self) -> Option<(usize, usize, usize, usize)> {
        let inside = || (0..self.cells.len()).filter(|&cell| self.cells[cell]);
        let width = self.grid.width;
        let (top, bottom) = (inside().next()? / width, inside().next_back()? / width);
        let left = inside().map(|cell| cell % width).min()?;
        let right = inside().map(|cell| cell % width).max()?;
        Some((top, left, bottom - top + 1, right - left + 1))
    }

    /// Returns the cells of the mask that are connected with `cell` through edges; empty if `cell`
    /// is not in the mask.
    #[must_use]
    pub fn component(&self, cell: usize) -> Self {
        let mut found = Self::empty(self.grid);
        if self.cells.get(cell) == Some(&true) {
            found.flood([cell], |cell| self.cells[cell]);
        }
        found
    }

    /// Adds all cells for which `open` holds and that are connected with one of `from` through
    /// edges.
    fn flood(&mut self, from: impl IntoIterator<Item = usize>, open: impl Fn(usize) -> bool) {
        let mut waiting = Vec::new();
        for cell in from {
            if open(cell) && !self.cells[cell] {
                self.cells[cell] = true;
                waiting.push(cell);
            }
        }
        while let Some(cell) = waiting.pop() {
            for next in self.grid.neighbors(cell) {
                if open(next) && !self.cells[next] {
                    self.cells[next] = true;
                    waiting.push(next);
                }
            }
        }
    }

    /// Returns the mask with its holes filled, which are the cells outside of it that no path
    /// through edges connects with the border.
    #[must_use]
    pub fn filled(&self) -> Self {
        let Grid { height, width } = self.grid;
        let mut outside = Self::empty(self.grid);
        let border = (0..self.cells.len()).filter(|cell| {
            let (row, column) = (cell / width, cell % width);
            row == 0 || column == 0 || row + 1 == height || column + 1 == width
        });
        outside.flood(border, |cell| !self.cells[cell]);
        outside.cells.iter_mut().for_each(|cell| *cell = !*cell);
        outside
    }

    /// Resizes the mask to another grid: each cell takes the value of the cell that its upper left
    /// corner lies in.
    #[must_use]
    pub fn resized(&self, grid: Grid) -> Self {
        if self.cells.is_empty() {
            return Self::empty(grid);
        }
        let mut cells = Vec::with_capacity(grid.cells());
        for row in 0..grid.height {
            let from = row * self.grid.height / grid.height * self.grid.width;
            cells.extend(
                (0..grid.width)
                    .map(|column| self.cells[from + column * self.grid.width / grid.width]),
            );
        }
        Self { grid, cells }
    }

    /// Adds the cells of a mask of the same grid.
    pub(crate) fn add(&mut self, other: &Self) {
        for (cell, other) in self.cells.iter_mut().zip(&other.cells) {
            *cell |= other;
        }
    }

    /// Removes the cells of a mask of the same grid.
    pub(crate) fn remove(&mut self, other: &Self) {
        for (cell, other) in self.cells.iter_mut().zip(&other.cells) {
            *cell &= !other;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(rows: &[&str]) -> Mask {
        let grid = Grid::new(rows.len(), rows[0].len());
        Mask::new(grid, rows.concat().bytes().map(|b| b == b'#').collect()).unwrap()
    }

    #[test]
    fn components_touch_over_edges_only() {
        let mask = drawn(&["##..", ".#..", "..##", "#.##"]);
        assert_eq!(mask.component(0), drawn(&["##..", ".#..", "....", "...."]));
        assert_eq!(mask.component(10), drawn(&["....", "....", "..##", "..##"]));
        assert!(mask.component(2).is_empty() && mask.component(99).is_empty());
    }

    #[test]
    fn holes_are_what_the_border_does_not_reach_over_edges() {
        let open = drawn(&[".####.", ".#..#.", ".##.#.", ".#..#.", ".####."]);
        assert_eq!(open.filled(), drawn(&[".####.", ".####.", ".####.", ".####.", ".####."]));
        // A gap at a corner is not a way out; one at an edge is.
        assert_eq!(drawn(&[".##", "#.#", "###"]).filled(), drawn(&[".##", "###", "###"]));
        let leak = drawn(&["###", "#..", "###"]);
        assert_eq!(leak.filled(), leak);
        assert!(Mask::empty(Grid::new(0, 0)).filled().is_empty());
    }

    #[test]
    fn overlap_and_bounds() {
        let (a, b) = (drawn(&["##.", "..."]), drawn(&[".##", "..."]));
        assert_eq!(a.iou(&b), Some(1.0 / 3.0));
        assert_eq!(Mask::empty(a.grid()).iou(&Mask::empty(a.grid())), None);
        assert_eq!(a.iou(&drawn(&["##"])), None);
        assert_eq!(b.bounds(), Some((0, 1, 1, 2)));
        assert_eq!(Mask::empty(a.grid()).bounds(), None);
    }

    #[test]
    fn nearest_resizing() {
        let mask = drawn(&["#.", ".#"]);
        let large = mask.resized(Grid::new(4, 5));
        assert_eq!(large, drawn(&["###..", "###..", "...##", "...##"]));
        assert_eq!(large.resized(Grid::new(2, 5)), drawn(&["###..", "...##"]));
        assert_eq!(mask.resized(Grid::new(6, 8)).resized(Grid::new(2, 2)), mask);
        assert!(Mask::empty(Grid::new(0, 3)).resized(Grid::new(2, 2)).is_empty());
    }
}
