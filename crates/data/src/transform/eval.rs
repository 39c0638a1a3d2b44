//! The transform of evaluations: resize, then the middle.

use image::RgbImage;

use super::resize::resize;
use crate::error::{Error, Result};

/// Shorter side to `resize` (bicubic, antialiased), then the central square of side `crop`.
///
/// Where the resized image is smaller than the square it is centred on black, as torchvision's
/// `CenterCrop` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvalTransform {
    /// Length of the shorter side after resizing, in pixels.
    pub resize: u32,
    /// Side of the square that is cut out, in pixels.
    pub crop: u32,
}

impl EvalTransform {
    /// The transformed image, `crop` x `crop` pixels.
    ///
    /// # Errors
    /// The image has no pixels, or `resize` or `crop` is 0.
    pub fn apply(&self, image: &RgbImage) -> Result<RgbImage> {
        if image.is_empty() || self.crop == 0 {
            let got = image.len().min(self.crop as usize);
            return Err(Error::Buffer { what: "pixels to evaluate", expected: 1, got });
        }
        let (width, height) = self.resized(image.dimensions());
        let resized = resize(image.into(), width, height)?.to_rgb();
        let mut out = RgbImage::new(self.crop, self.crop);
        let (left, top) = (self.offset(width), self.offset(height));
        image::imageops::replace(&mut out, &resized, -left, -top);
        Ok(out)
    }

    /// Size after resizing; the longer side is rounded down.
    fn resized(&self, (width, height): (u32, u32)) -> (u32, u32) {
        let long = |long: u32, short: u32| {
            (u64::from(self.resize) * u64::from(long) / u64::from(short.max(1))) as u32
        };
        if width <= height {
            (self.resize, long(height, width))
        } else {
            (long(width, height), self.resize)
        }
    }

    /// Where the square begins in a side of the resized image; negative where it is larger.
    ///
    /// torchvision pads by half of what is missing, rounded down, and cuts at half of what is too
    /// much, rounded half to even.
    fn offset(&self, side: u32) -> i64 {
        if side < self.crop {
            -i64::from((self.crop - side) / 2)
        } else {
            (f64::from(side - self.crop) / 2.0).round_ties_even() as i64
        }
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;
    use proptest::prelude::*;

    use super::*;

    fn ramp(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            let wave = |v: u32, n: u32| (127.0 + 120.0 * (v as f64 * 9.0 / n as f64).sin()) as u8;
            Rgb([wave(x, width), wave(y, height), wave(x + y, width + height)])
        })
    }

    #[test]
    fn the_square_is_in_the_middle() {
        let (transform, image) = (EvalTransform { resize: 64, crop: 56 }, ramp(150, 101));
        assert_eq!(transform.resized((150, 101)), (95, 64));
        assert_eq!(transform.resized((101, 150)), (64, 95));
        let whole = resize((&image).into(), 95, 64).unwrap().to_rgb();
        // (95 - 56) / 2 = 19.5 is rounded to 20, (64 - 56) / 2 = 4.
        let expected = image::imageops::crop_imm(&whole, 20, 4, 56, 56).to_image();
        assert_eq!(transform.apply(&image).unwrap(), expected);
    }

    #[test]
    fn what_is_missing_is_black() {
        let out =
            EvalTransform { resize: 4, crop: 8 }.apply(&RgbImage::from_pixel(4, 4, Rgb([9; 3])));
        let out = out.unwrap();
        assert_eq!(out.pixels().filter(|p| p.0 == [9; 3]).count(), 16);
        assert_eq!((out.get_pixel(1, 2).0, out.get_pixel(2, 2).0), ([0; 3], [9; 3]));
    }

    #[test]
    fn nothing_to_resize_is_an_error() {
        assert!(EvalTransform { resize: 4, crop: 4 }.apply(&RgbImage::new(0, 0)).is_err());
        assert!(EvalTransform { resize: 4, crop: 0 }.apply(&ramp(4, 4)).is_err());
        assert!(EvalTransform { resize: 0, crop: 4 }.apply(&ramp(4, 4)).is_err());
    }

    proptest! {
        #[test]
        fn every_size_works(
            (width, height) in (1_u32..60, 1_u32..60), resize in 1_u32..40, crop in 1_u32..40,
        ) {
            let out = EvalTransform { resize, crop }.apply(&ramp(width, height)).unwrap();
            prop_assert_eq!(out.dimensions(), (crop, crop));
        }
    }
}
