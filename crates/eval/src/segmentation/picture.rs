//! Predicted classes as a picture.

use data::decode::Image;
use data::dense::{IGNORE, LabelMap};
use image::{Rgb, RgbImage, imageops};

use super::features::nearest_classes;

/// Pixels between pictures.
const GAP: u32 = 4;
/// Height of a row of pictures, in pixels.
const HEIGHT: u32 = 240;

/// An image, its true classes, and its predicted classes, which have the size of the true ones.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The image.
    pub image: Image,
    /// The true classes.
    pub truth: LabelMap,
    /// The predicted classes.
    pub predicted: Vec<u8>,
}

/// Draws one row per image: the image, its true classes, and its predicted classes. Ignored pixels are
/// black.
pub fn segmentation_sheet(shown: &[Shown]) -> RgbImage {
    let rows: Vec<RgbImage> = shown.iter().map(row).collect();
    let width = rows.iter().map(RgbImage::width).max().unwrap_or(1);
    let height = rows.len() as u32 * (HEIGHT + GAP);
    let mut sheet = RgbImage::from_pixel(width, height.max(1), Rgb([255; 3]));
    for (index, row) in (0..).zip(&rows) {
        imageops::replace(&mut sheet, row, 0, index * i64::from(HEIGHT + GAP));
    }
    sheet
}

fn row(shown: &Shown) -> RgbImage {
    let (width, height) = shown.image.dimensions();
    let width = ((u64::from(width) * u64::from(HEIGHT) / u64::from(height.max(1))) as u32).max(1);
    let photo =
        imageops::resize(&shown.image.to_rgb(), width, HEIGHT, imageops::FilterType::Triangle);
    let from = (shown.truth.width, shown.truth.height);
    let classes = |ids: &[u8]| {
        let ids = nearest_classes(ids, from, (width, HEIGHT));
        RgbImage::from_fn(width, HEIGHT, |x, y| color(ids[(y * width + x) as usize]))
    };
    let mut row = RgbImage::from_pixel(3 * width + 2 * GAP, HEIGHT, Rgb([255; 3]));
    let pictures = [photo, classes(&shown.truth.ids), classes(&shown.predicted)];
    for (index, picture) in (0..).zip(&pictures) {
        imageops::replace(&mut row, picture, index * i64::from(width + GAP), 0);
    }
    row
}

/// The color of a class, as in the palette of Pascal VOC: the bits of its number, spread over the three
/// channels. Class 0 gets the last color, because black is for ignored pixels.
fn color(class: u8) -> Rgb<u8> {
    let number = match class {
        IGNORE => return Rgb([0; 3]),
        0 => 254,
        class => class,
    };
    let bit = |place: u8| number >> place & 1;
    let channel = |first: u8| {
        bit(first) << 7 | bit(first + 3) << 6 | if first < 2 { bit(first + 6) << 5 } else { 0 }
    };
    Rgb([channel(0), channel(1), channel(2)])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn classes_have_different_colors() {
        let colors: BTreeSet<[u8; 3]> = (0..=255).map(|class| color(class).0).collect();
        assert_eq!(colors.len(), 255, "classes 0 and 254 share one");
        assert_eq!(color(IGNORE), Rgb([0; 3]));
        assert_eq!(color(1), Rgb([128, 0, 0]));
    }

    #[test]
    fn a_row_shows_image_truth_and_prediction() {
        let image = Image::new(vec![200; 2 * 2 * 3], 2, 2, 3).unwrap();
        let truth = LabelMap { width: 2, height: 2, ids: vec![1, 1, 2, 2] };
        let sheet = segmentation_sheet(&[Shown { image, truth, predicted: vec![2, 2, 2, 2] }]);
        assert_eq!(sheet.dimensions(), (3 * HEIGHT + 2 * GAP, HEIGHT + GAP));
        let at = |x, y| *sheet.get_pixel(x, y);
        assert_eq!((at(5, 5), at(HEIGHT + GAP + 5, 5)), (Rgb([200; 3]), color(1)));
        assert_eq!(at(2 * (HEIGHT + GAP) + 5, 5), color(2));
    }
}
