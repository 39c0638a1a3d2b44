//! The evaluation transform: resize and center crop.

#[cfg(feature = "decode")]
use decode::Image;

use super::crop::CropBox;
use super::resize::resize_part;
use crate::error::{Error, Result};
use crate::pixels::Pixels;

/// Resizes the shorter side to `resize` (bicubic, antialiased), then cuts out the central square
/// of side `crop`.
///
/// If the resized image is smaller than the square, it is centered on black, as in torchvision's
/// `CenterCrop`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvalTransform {
    /// Length of the shorter side after resizing, in pixels.
    pub resize: u32,
    /// Side of the center crop, in pixels.
    pub crop: u32,
}

impl EvalTransform {
    /// Creates a transform that crops a square of side `crop` after resizing the shorter side to
    /// 8/7 of that, rounded up to a multiple of 8: 256 for 224, as in DINO, and 40 for 32.
    pub fn for_crop(crop: u32) -> Self {
        Self { resize: crop.div_ceil(7) * 8, crop }
    }

    /// Returns the transformed image, `crop` x `crop` pixels.
    ///
    /// # Errors
    /// Returns an error if the image has no pixels, or if `resize` or `crop` is 0.
    #[cfg(feature = "decode")]
    pub fn apply(&self, image: Pixels<'_>) -> Result<Image> {
        let channels = image.channels();
        let mut out = vec![0; channels * (self.crop as usize).pow(2)];
        self.apply_to(image, &mut out)?;
        Image::new(out, self.crop, self.crop, channels).ok_or_else(nothing)
    }

    /// Writes the transformed image to `out`, `[crop, crop, channels]`.
    ///
    /// # Errors
    /// Returns an error if the image has no pixels, if `resize` or `crop` is 0, or if `out` does
    /// not have `crop * crop * channels` bytes.
    pub fn apply_to(&self, image: Pixels<'_>, out: &mut [u8]) -> Result<()> {
        let (channels, side) = (image.channels(), self.crop as usize);
        if image.data().is_empty() || self.crop == 0 {
            return Err(nothing());
        }
        let (expected, got) = (channels * side * side, out.len());
        if got != expected {
            return Err(Error::Buffer { what: "bytes of the transformed image", expected, got });
        }
        out.fill(0);
        let (width, height) = self.resized((image.width(), image.height()));
        let (columns, rows) = (self.overlap(width), self.overlap(height));
        // Only what the square shows is resized, because a long, thin image as a whole could take
        // many gigabytes.
        let shown = CropBox {
            left: columns.from,
            top: rows.from,
            width: columns.length,
            height: rows.length,
        };
        let planes = resize_part(image, (width, height), shown)?;
        let mut resized = vec![0; planes.bytes().len()];
        planes.store(&mut resized);
        let bytes = planes.width() * channels;
        for (y, row) in (rows.to..).zip(resized.chunks_exact(bytes)) {
            let to = (y * side + columns.to) * channels;
            out[to..to + bytes].copy_from_slice(row);
        }
        Ok(())
    }

    /// Returns which part of a side of the resized image the square shows, and at which position.
    fn overlap(&self, side: u32) -> Overlap {
        let offset = self.offset(side);
        let (from, to) = (offset.max(0) as u32, (-offset).max(0) as usize);
        Overlap { from, to, length: side.min(self.crop) }
    }

    /// Returns the size after resizing. The longer side is rounded down.
    fn resized(&self, (width, height): (u32, u32)) -> (u32, u32) {
        let long = |long: u32, short: u32| {
            let long = u64::from(self.resize) * u64::from(long) / u64::from(short.max(1));
            long.min(u64::from(u32::MAX)) as u32
        };
        if width <= height {
            (self.resize, long(height, width))
        } else {
            (long(width, height), self.resize)
        }
    }

    /// Returns the start of the square along a side of the resized image; negative if the square is
    /// larger.
    ///
    /// torchvision pads by half of the missing size, rounded down, and crops at half of the
    /// excess, rounded half to even.
    fn offset(&self, side: u32) -> i64 {
        if side < self.crop {
            -i64::from((self.crop - side) / 2)
        } else {
            (f64::from(side - self.crop) / 2.0).round_ties_even() as i64
        }
    }
}

fn nothing() -> Error {
    Error::Buffer { what: "pixels to evaluate", expected: 1, got: 0 }
}

/// A range of pixels along one axis: `length` pixels from `from` of one image go to `to` of
/// another.
struct Overlap {
    from: u32,
    to: usize,
    length: u32,
}

#[cfg(test)]
#[cfg(feature = "decode")]
mod tests {
    use image::{Rgb, RgbImage};
    use proptest::prelude::*;

    use super::*;
    use crate::resize::resize;

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
        assert_eq!(transform.apply((&image).into()).unwrap(), expected);
    }

    #[test]
    fn what_is_missing_is_black() {
        let image = RgbImage::from_pixel(4, 4, Rgb([9; 3]));
        let out = EvalTransform { resize: 4, crop: 8 }.apply((&image).into()).unwrap().to_rgb();
        assert_eq!(out.pixels().filter(|p| p.0 == [9; 3]).count(), 16);
        assert_eq!((out.get_pixel(1, 2).0, out.get_pixel(2, 2).0), ([0; 3], [9; 3]));
    }

    #[test]
    fn nothing_to_resize_is_an_error() {
        let (empty, image) = (RgbImage::new(0, 0), ramp(4, 4));
        assert!(EvalTransform { resize: 4, crop: 4 }.apply((&empty).into()).is_err());
        assert!(EvalTransform { resize: 4, crop: 0 }.apply((&image).into()).is_err());
        assert!(EvalTransform { resize: 0, crop: 4 }.apply((&image).into()).is_err());
    }

    #[test]
    fn a_buffer_of_another_size_is_an_error() {
        let (transform, image) = (EvalTransform { resize: 4, crop: 8 }, ramp(4, 4));
        for size in [0, 3 * 64 - 1, 3 * 64 + 1] {
            let error = transform.apply_to((&image).into(), &mut vec![0; size]).unwrap_err();
            assert!(error.to_string().ends_with(&format!("expected 192, got {size}")), "{error}");
        }
        // Previous contents of the buffer must not show through where the image ends.
        let mut out = vec![7; 3 * 64];
        transform.apply_to((&image).into(), &mut out).unwrap();
        assert_eq!(out, transform.apply((&image).into()).unwrap().data());
        assert_eq!(out[0], 0);
    }

    #[test]
    fn a_long_thin_image_takes_little_memory() {
        // The whole resized image would have 256 million times 256 pixels.
        for (width, height) in [(1_000_000, 1), (1, 1_000_000)] {
            let data = vec![77; 1_000_000];
            let image = Pixels::new(&data, width, height, 1).unwrap();
            let out = EvalTransform { resize: 256, crop: 224 }.apply(image).unwrap();
            assert!(out.data().iter().all(|&value| value == 77), "{width}x{height}");
        }
    }

    proptest! {
        /// The result equals the square that is cut from the whole resized image.
        #[test]
        fn the_square_is_that_of_the_whole_image(
            (width, height) in (1_u32..400, 1_u32..90), turn: bool, resize_to in 1_u32..60,
            crop in 1_u32..60,
        ) {
            let (width, height) = if turn { (height, width) } else { (width, height) };
            let (transform, image) = (EvalTransform { resize: resize_to, crop }, ramp(width, height));
            let size = transform.resized((width, height));
            let whole = resize((&image).into(), size.0, size.1).unwrap().to_rgb();
            let out = transform.apply((&image).into()).unwrap().to_rgb();
            let (left, top) = (transform.offset(size.0), transform.offset(size.1));
            for (x, y, pixel) in out.enumerate_pixels() {
                let from = (i64::from(x) + left, i64::from(y) + top);
                let inside = (0..i64::from(size.0)).contains(&from.0)
                    && (0..i64::from(size.1)).contains(&from.1);
                let expected = match inside {
                    true => whole.get_pixel(from.0 as u32, from.1 as u32).0,
                    false => [0; 3],
                };
                prop_assert_eq!(pixel.0, expected);
            }
        }

        #[test]
        fn every_size_works(
            (width, height) in (1_u32..60, 1_u32..60), resize in 1_u32..40, crop in 1_u32..40,
        ) {
            let image = ramp(width, height);
            let out = EvalTransform { resize, crop }.apply((&image).into()).unwrap();
            prop_assert_eq!(out.dimensions(), (crop, crop));
        }
    }
}
