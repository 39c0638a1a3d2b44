//! Boundaries of masks, and how close they are to each other.

use super::mask::ObjectMask;

/// The boundary of a mask: the pixels that differ from their right, lower, or lower right neighbor.
#[derive(Debug)]
pub(super) struct Boundary {
    width: usize,
    height: usize,
    /// Columns of boundary pixels in each row, ascending.
    rows: Vec<Vec<usize>>,
}

/// Returns the distance in pixels within which boundaries match: 0.8% of the diagonal, rounded up.
pub(super) fn tolerance(width: usize, height: usize) -> usize {
    (0.008 * (height as f64).hypot(width as f64)).ceil() as usize
}

/// Returns the boundary of a mask. In the last row and column, only the neighbors that exist count.
pub(super) fn of(mask: &ObjectMask) -> Boundary {
    let (width, height) = (mask.width(), mask.height());
    let at = |row: usize, column: usize| mask.pixels()[row * width + column];
    let differs = |row: usize, column: usize| {
        let (right, below) = (column + 1 < width, row + 1 < height);
        let value = at(row, column);
        (right && value != at(row, column + 1))
            || (below && value != at(row + 1, column))
            || (right && below && value != at(row + 1, column + 1))
    };
    let row = |row| (0..width).filter(|&column| differs(row, column)).collect();
    Boundary { width, height, rows: (0..height).map(row).collect() }
}

impl Boundary {
    /// Returns the number of boundary pixels.
    pub(super) fn pixels(&self) -> usize {
        self.rows.iter().map(Vec::len).sum()
    }

    /// Returns how many pixels of this boundary are within `radius` of a pixel of the other one.
    pub(super) fn near(&self, other: &Self, radius: usize) -> usize {
        // Half the width of the disk at each vertical offset.
        let reach: Vec<usize> =
            (0..=radius).map(|dy| (radius * radius - dy * dy).isqrt()).collect();
        let gaps: Vec<Vec<usize>> = other.rows.iter().map(|row| gaps(row, self.width)).collect();
        let is_near = |row: usize, column: usize| {
            let rows = row.saturating_sub(radius)..=(row + radius).min(self.height - 1);
            rows.into_iter().any(|other| {
                gaps[other].get(column).is_some_and(|&gap| gap <= reach[other.abs_diff(row)])
            })
        };
        let near = |(row, columns): (usize, &Vec<usize>)| {
            columns.iter().filter(|&&column| is_near(row, column)).count()
        };
        self.rows.iter().enumerate().map(near).sum()
    }
}

/// Returns the distance of each column to the nearest of `columns`; empty if there are none.
fn gaps(columns: &[usize], width: usize) -> Vec<usize> {
    if columns.is_empty() {
        return Vec::new();
    }
    let mut gaps = vec![usize::MAX; width];
    columns.iter().for_each(|&column| gaps[column] = 0);
    for column in 1..width {
        gaps[column] = gaps[column].min(gaps[column - 1].saturating_add(1));
    }
    for column in (1..width).rev() {
        gaps[column - 1] = gaps[column - 1].min(gaps[column].saturating_add(1));
    }
    gaps
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn boundary(width: usize, height: usize, pixels: &[bool]) -> Boundary {
        of(&ObjectMask::new(width, height, pixels.to_vec()).unwrap())
    }

    #[test]
    fn tolerances() {
        assert_eq!([tolerance(854, 480), tolerance(8, 8), tolerance(0, 0)], [8, 1, 0]);
        assert_eq!(tolerance(1920, 1080), 18);
    }

    #[test]
    fn the_boundary_lies_toward_the_origin() {
        let square = [0, 0, 0, 0, 1, 1, 0, 1, 1].map(|value| value == 1);
        assert_eq!(boundary(3, 3, &square).rows, [vec![0, 1, 2], vec![0], vec![0]]);
    }

    proptest! {
        #[test]
        fn nearness_is_the_distance_to_each_pixel(
            (width, height, a, b) in (1_usize..12, 1_usize..12).prop_flat_map(|(width, height)| {
                let pixels = prop::collection::vec(prop::bool::weighted(0.1), width * height);
                (Just(width), Just(height), pixels.clone(), pixels)
            }),
            radius in 0_usize..6,
        ) {
            let (a, b) = (boundary(width, height, &a), boundary(width, height, &b));
            let points = |boundary: &Boundary| -> Vec<(usize, usize)> {
                let rows = boundary.rows.iter().enumerate();
                rows.flat_map(|(row, columns)| columns.iter().map(move |&c| (row, c))).collect()
            };
            let others = points(&b);
            let near = |&(row, column): &(usize, usize)| {
                others.iter().any(|&(other_row, other_column)| {
                    let (dy, dx) = (row.abs_diff(other_row), column.abs_diff(other_column));
                    dy * dy + dx * dx <= radius * radius
                })
            };
            let expected = points(&a).iter().filter(|point| near(point)).count();
            prop_assert_eq!(a.near(&b, radius), expected);
        }
    }
}
