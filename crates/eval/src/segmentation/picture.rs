//! Predicted classes as a picture.

use data::decode::Image;
use data::dense::{IGNORE, LabelMap};
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

use super::features::nearest_classes;
use crate::pictures::Row;

/// Height of each picture, in pixels.
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

/// Draws a row of images and a row of their true classes, with one column per image. Ignored pixels
/// are black.
#[must_use]
pub fn truth_rows(shown: &[Shown]) -> Vec<Row> {
    let photo = |shown: &Shown| {
        imageops::resize(&shown.image.to_rgb(), width(shown), HEIGHT, FilterType::Triangle)
    };
    let truth = shown.iter().map(|shown| classes(shown, &shown.truth.ids)).collect();
    vec![Row::new("", shown.iter().map(photo).collect()), Row::new("true classes", truth)]
}

/// Draws a row of predicted classes, with one column per image.
#[must_use]
pub fn predicted_row(label: &str, shown: &[Shown]) -> Row {
    Row::new(label, shown.iter().map(|shown| classes(shown, &shown.predicted)).collect())
}

/// Returns the width of an image's pictures, which keep its aspect ratio.
fn width(shown: &Shown) -> u32 {
    let (width, height) = shown.image.dimensions();
    ((u64::from(width) * u64::from(HEIGHT) / u64::from(height.max(1))) as u32).max(1)
}

fn classes(shown: &Shown, ids: &[u8]) -> RgbImage {
    let width = width(shown);
    let ids = nearest_classes(ids, (shown.truth.width, shown.truth.height), (width, HEIGHT));
    RgbImage::from_fn(width, HEIGHT, |x, y| color(ids[(y * width + x) as usize]))
}

/// Returns the color of a class, as in the Pascal VOC palette: the bits of its number, spread over
/// the three channels. Class 0 gets the color of class 254, because black marks ignored pixels.
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
    fn rows_show_images_truth_and_predictions() {
        let image = Image::new(vec![200; 2 * 2 * 3], 2, 2, 3).unwrap();
        let truth = LabelMap { width: 2, height: 2, ids: vec![1, 1, 2, 2] };
        let shown = [Shown { image, truth, predicted: vec![2, 2, 2, 2] }];
        let rows = [truth_rows(&shown), vec![predicted_row("runs/a", &shown)]].concat();
        let at = |row: usize, y: u32| *rows[row].cells[0].get_pixel(5, y);
        assert!(rows.iter().all(|row| row.cells[0].dimensions() == (HEIGHT, HEIGHT)));
        assert_eq!((at(0, 5), at(1, 5), at(1, HEIGHT - 5)), (Rgb([200; 3]), color(1), color(2)));
        assert_eq!((at(2, 5), rows[2].label.as_str()), (color(2), "runs/a"));
    }
}
