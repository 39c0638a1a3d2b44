//! Arranges images in rows and columns. All pictures of several networks use the same layout: first
//! the images, then rows for each network, each below a line of text.

use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

use super::font;

/// Gap between cells and around the sheet, in pixels.
pub(crate) const GAP: u32 = 4;
/// Cells with a side below this are enlarged by an integer factor.
const SMALL: u32 = 112;
const BACKGROUND: Rgb<u8> = Rgb([255, 255, 255]);

/// Cells side by side, below a line of text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// What the cells show, such as the name of a network. An empty label takes no space.
    pub label: String,
    /// Images of any size, aligned at the top left.
    pub cells: Vec<RgbImage>,
}

impl Row {
    /// Creates a row with a label.
    pub fn new(label: impl Into<String>, cells: Vec<RgbImage>) -> Self {
        Self { label: label.into(), cells }
    }

    /// Returns the height of the line of text and the space below it.
    fn head(&self) -> u32 {
        if self.label.is_empty() { 0 } else { font::LINE + GAP }
    }

    fn height(&self) -> u32 {
        self.head() + self.cells.iter().map(RgbImage::height).max().unwrap_or(0)
    }
}

/// Draws all rows as one picture. Columns are as wide as their widest cell, and rows as high as
/// their highest. A label wider than the sheet loses its beginning.
#[must_use]
pub fn lay_out(rows: &[Row]) -> RgbImage {
    let columns = rows.iter().map(|row| row.cells.len()).max().unwrap_or(0);
    let widths: Vec<u32> = (0..columns)
        .map(|c| {
            rows.iter().filter_map(|row| row.cells.get(c)).map(RgbImage::width).max().unwrap_or(0)
        })
        .collect();
    let heights: Vec<u32> = rows.iter().map(Row::height).collect();
    let total = |sizes: &[u32]| sizes.iter().map(|size| size + GAP).sum::<u32>() + GAP;
    let mut sheet = RgbImage::from_pixel(total(&widths), total(&heights), BACKGROUND);
    for (r, row) in rows.iter().enumerate() {
        let top = total(&heights[..r]);
        let most = sheet.width() - 2 * GAP;
        font::write(&mut sheet, &row.label, (GAP, top), most);
        for (c, cell) in row.cells.iter().enumerate() {
            let (x, y) = (total(&widths[..c]), top + row.head());
            imageops::replace(&mut sheet, cell, i64::from(x), i64::from(y));
        }
    }
    sheet
}

/// Splits rows with many cells into blocks of at most `columns` cells, one block below the other.
/// Each block has all rows with their labels.
#[must_use]
pub fn wrapped(rows: &[Row], columns: usize) -> Vec<Row> {
    let columns = columns.max(1);
    let most = rows.iter().map(|row| row.cells.len()).max().unwrap_or(0);
    let block = |start: usize| {
        rows.iter().map(move |row| {
            let cells = row.cells.iter().skip(start).take(columns).cloned().collect();
            Row { label: row.label.clone(), cells }
        })
    };
    (0..most).step_by(columns).flat_map(block).collect()
}

/// Stacks cells vertically, with up to `height` pixels per column.
pub(crate) fn stack(cells: Vec<RgbImage>, height: u32) -> Vec<RgbImage> {
    let Some(first) = cells.first() else { return Vec::new() };
    let (width, side) = first.dimensions();
    let (count, step) = (((height + GAP) / (side + GAP)).max(1), side + GAP);
    let column = |cells: &[RgbImage]| {
        let mut column = RgbImage::from_pixel(width, count * step - GAP, BACKGROUND);
        for (row, cell) in (0..).zip(cells) {
            imageops::replace(&mut column, cell, 0, row * i64::from(step));
        }
        column
    };
    cells.chunks(count as usize).map(column).collect()
}

/// Returns the integer factor by which cells with a side of `side` pixels are enlarged.
pub(crate) fn zoom(side: u32) -> u32 {
    SMALL.div_ceil(side.max(1)).max(1)
}

/// Repeats every pixel `factor` times in both directions.
pub(crate) fn enlarge(image: &RgbImage, factor: u32) -> RgbImage {
    let (width, height) = image.dimensions();
    imageops::resize(image, width * factor, height * factor, FilterType::Nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(width: u32, height: u32, level: u8) -> RgbImage {
        RgbImage::from_pixel(width, height, Rgb([level; 3]))
    }

    #[test]
    fn cells_keep_their_places() {
        let rows = [vec![cell(3, 2, 1), cell(5, 6, 2)], vec![cell(4, 4, 3)]];
        let sheet = lay_out(&rows.map(|cells| Row::new("", cells)));
        assert_eq!(sheet.dimensions(), (4 + 5 + 3 * GAP, 6 + 4 + 3 * GAP));
        assert_eq!(sheet.get_pixel(GAP, GAP).0, [1; 3]);
        assert_eq!(sheet.get_pixel(GAP + 3, GAP), &BACKGROUND);
        assert_eq!(sheet.get_pixel(4 + 2 * GAP, GAP).0, [2; 3]);
        assert_eq!(sheet.get_pixel(GAP, 6 + 2 * GAP).0, [3; 3]);
        assert_eq!(lay_out(&[]).dimensions(), (GAP, GAP));
    }

    #[test]
    fn labels_are_above_their_rows() {
        let sheet = lay_out(&[Row::new("runs/a", vec![cell(90, 5, 1)]), Row::new("", vec![])]);
        assert_eq!(sheet.dimensions(), (90 + 2 * GAP, font::LINE + 5 + 4 * GAP));
        assert_eq!(sheet.get_pixel(GAP, GAP + font::LINE + GAP).0, [1; 3]);
        let inked = sheet.enumerate_pixels().filter(|(.., pixel)| pixel.0 == [30; 3]);
        let rows: Vec<u32> = inked.map(|(_, y, _)| y).collect();
        assert!(rows.len() > 50 && rows.iter().all(|y| (GAP..GAP + font::LINE).contains(y)));
    }

    #[test]
    fn many_cells_are_divided_into_blocks() {
        let rows = ["a", "b"].map(|label| Row::new(label, vec![cell(1, 1, 7); 5]));
        let blocks = wrapped(&rows, 2);
        let found: Vec<_> =
            blocks.iter().map(|row| (row.label.as_str(), row.cells.len())).collect();
        assert_eq!(found, [("a", 2), ("b", 2), ("a", 2), ("b", 2), ("a", 1), ("b", 1)]);
        assert_eq!(wrapped(&rows, 9), rows);
        assert!(wrapped(&[], 3).is_empty());
    }

    #[test]
    fn cells_are_stacked_as_high_as_they_fit() {
        let cell = |v| cell(10, 10, v);
        let columns = stack((0..5).map(cell).collect(), 2 * 10 + GAP);
        assert_eq!(columns.len(), 3);
        assert!(columns.iter().all(|column| column.dimensions() == (10, 20 + GAP)));
        assert_eq!(columns[1].get_pixel(0, 10 + GAP).0, [3; 3]);
        assert_eq!(columns[2].get_pixel(0, 10 + GAP), &BACKGROUND);
        assert_eq!(stack(vec![cell(1), cell(2)], 5).len(), 2);
    }

    #[test]
    fn small_cells_are_enlarged_by_a_whole_factor() {
        assert_eq!((zoom(32), zoom(112), zoom(224), zoom(100)), (4, 1, 1, 2));
        let image = RgbImage::from_fn(2, 1, |x, _| Rgb([x as u8; 3]));
        let large = enlarge(&image, 3);
        assert_eq!(large.dimensions(), (6, 3));
        assert_eq!((large.get_pixel(2, 2).0, large.get_pixel(3, 0).0), ([0; 3], [1; 3]));
    }
}
