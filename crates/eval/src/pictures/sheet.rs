//! Arranges images in rows and columns.

use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

/// Pixels between cells and around the sheet.
pub(crate) const GAP: u32 = 4;
/// Cells with a side below this are enlarged by an integer factor.
const SMALL: u32 = 112;
const BACKGROUND: Rgb<u8> = Rgb([255, 255, 255]);

/// Draws one picture of all cells. Columns are as wide as their widest cell and rows as high as
/// their highest; cells are aligned to the top left.
pub(crate) fn lay_out(rows: &[Vec<RgbImage>]) -> RgbImage {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<u32> = (0..columns)
        .map(|c| rows.iter().filter_map(|row| row.get(c)).map(RgbImage::width).max().unwrap_or(0))
        .collect();
    let heights: Vec<u32> =
        rows.iter().map(|row| row.iter().map(RgbImage::height).max().unwrap_or(0)).collect();
    let total = |sizes: &[u32]| sizes.iter().map(|size| size + GAP).sum::<u32>() + GAP;
    let mut sheet = RgbImage::from_pixel(total(&widths), total(&heights), BACKGROUND);
    for (r, row) in rows.iter().enumerate() {
        for (c, cell) in row.iter().enumerate() {
            let (x, y) = (total(&widths[..c]), total(&heights[..r]));
            imageops::replace(&mut sheet, cell, i64::from(x), i64::from(y));
        }
    }
    sheet
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

/// Returns the integer factor by which cells of `side` pixels are enlarged.
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

    #[test]
    fn cells_keep_their_places() {
        let cell = |w, h, v| RgbImage::from_pixel(w, h, Rgb([v; 3]));
        let sheet = lay_out(&[vec![cell(3, 2, 1), cell(5, 6, 2)], vec![cell(4, 4, 3)]]);
        assert_eq!(sheet.dimensions(), (4 + 5 + 3 * GAP, 6 + 4 + 3 * GAP));
        assert_eq!(sheet.get_pixel(GAP, GAP).0, [1; 3]);
        assert_eq!(sheet.get_pixel(GAP + 3, GAP), &BACKGROUND);
        assert_eq!(sheet.get_pixel(4 + 2 * GAP, GAP).0, [2; 3]);
        assert_eq!(sheet.get_pixel(GAP, 6 + 2 * GAP).0, [3; 3]);
        assert_eq!(lay_out(&[]).dimensions(), (GAP, GAP));
    }

    #[test]
    fn cells_are_stacked_as_high_as_they_fit() {
        let cell = |v| RgbImage::from_pixel(10, 10, Rgb([v; 3]));
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
