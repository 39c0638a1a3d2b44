//! Horizontal flip.

use super::planes::Planes;

/// Mirrors the image left to right, in place.
pub fn flip(planes: &mut Planes) {
    let width = planes.width().max(1);
    for row in planes.bytes_mut().chunks_exact_mut(width) {
        row.reverse();
    }
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;

    #[test]
    fn columns_are_reversed_and_rows_stay() {
        let image = RgbImage::from_fn(3, 2, |x, y| Rgb([x as u8, y as u8, 7]));
        let mut planes = Planes::from_rgb(&image);
        flip(&mut planes);
        let flipped = planes.to_rgb();
        assert_eq!(flipped, image::imageops::flip_horizontal(&image));
        assert_eq!(flipped.get_pixel(0, 1), &Rgb([2, 1, 7]));
    }
}
