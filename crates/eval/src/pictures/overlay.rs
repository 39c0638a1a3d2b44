//! Colored overlays of masks and objects.

use image::RgbImage;
use image::imageops::{self, FilterType};
use objects::Mask;

use super::scene::CELL;

/// Colors of masks, in order.
const COLORS: [[u8; 3]; 8] = [
    [230, 60, 50],
    [50, 110, 230],
    [40, 170, 80],
    [240, 170, 30],
    [150, 70, 190],
    [30, 180, 190],
    [230, 90, 170],
    [140, 110, 60],
];

/// Returns the image with each mask blended half and half with its color. Masks of another size are
/// left out.
#[must_use]
pub fn with_masks(mut image: RgbImage, masks: &[Mask]) -> RgbImage {
    let pixels = image.width() as usize * image.height() as usize;
    for (mask, color) in masks.iter().zip(COLORS.iter().cycle()) {
        if mask.cells().len() == pixels {
            tint(&mut image, mask.cells().iter().map(|&inside| inside.then_some(color)));
        }
    }
    image
}

/// Returns the image with each object blended half and half with its color. `ids` has the object
/// number of each pixel in row-major order, 0 for none.
#[must_use]
pub fn with_objects(mut image: RgbImage, ids: &[u8]) -> RgbImage {
    let color = |id: &u8| usize::from(*id).checked_sub(1).map(|id| &COLORS[id % COLORS.len()]);
    tint(&mut image, ids.iter().map(color));
    image
}

fn tint<'a>(image: &mut RgbImage, colors: impl Iterator<Item = Option<&'a [u8; 3]>>) {
    for (pixel, color) in image.pixels_mut().zip(colors) {
        for (level, tint) in pixel.0.iter_mut().zip(color.into_iter().flatten()) {
            *level = ((u16::from(*level) + u16::from(*tint)) / 2) as u8;
        }
    }
}

/// Resizes an image to the height of a cell, keeping its aspect ratio. An image more than three
/// times as wide as high is resized to the width of three cells instead.
#[must_use]
pub fn as_high_as_a_cell(image: &RgbImage) -> RgbImage {
    let (width, height) = (u64::from(image.width()), u64::from(image.height().max(1)));
    let high = u64::from(CELL);
    let (width, height) = if width > 3 * height {
        (3 * high, (3 * high * height / width.max(1)).max(1))
    } else {
        ((width * high / height).max(1), high)
    };
    imageops::resize(image, width as u32, height as u32, FilterType::Triangle)
}

#[cfg(test)]
mod tests {
    use image::Rgb;
    use objects::Grid;

    use super::*;

    #[test]
    fn masks_and_objects_are_tinted_where_they_are() {
        let image = RgbImage::from_pixel(2, 1, Rgb([100, 100, 100]));
        let mask = Mask::new(Grid::new(1, 2), vec![false, true]).unwrap();
        for tinted in [with_masks(image.clone(), &[mask]), with_objects(image.clone(), &[0, 1])] {
            assert_eq!(tinted.get_pixel(0, 0).0, [100, 100, 100]);
            assert_eq!(tinted.get_pixel(1, 0).0, [165, 80, 75]);
        }
        let other = Mask::new(Grid::new(1, 1), vec![true]).unwrap();
        assert_eq!(with_masks(image.clone(), &[other]), image);
        let many = with_objects(image, &[255, 9]);
        assert_eq!(many.get_pixel(1, 0).0, [165, 80, 75], "colors repeat");
    }

    #[test]
    fn panoramas_are_as_wide_as_three_cells() {
        let size = |width, height| as_high_as_a_cell(&RgbImage::new(width, height)).dimensions();
        assert_eq!((size(640, 480), size(10, 20)), ((320, CELL), (120, CELL)));
        assert_eq!((size(4000, 100), size(1, 1000)), ((3 * CELL, 18), (1, CELL)));
    }
}
