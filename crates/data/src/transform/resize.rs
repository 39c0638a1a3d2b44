//! Antialiased bicubic resize (Catmull-Rom, a = -0.5), the kernel of Pillow and torchvision.
//!
//! Crop and resize are one pass: the resizer reads the crop in place. All functions keep one
//! resizer a thread, whose buffers are reused from image to image.
//!
//! # Deviations
//! Rows are filtered before columns; Pillow does it the other way round. Both round and clip to
//! 0-255 in between, so one value in four differs by one level, and next to hard edges, where the
//! filter overshoots beyond black or white, single values differ by up to ten. Pillow's order
//! gives Pillow's values but takes up to 1.6 times as long.

use std::cell::RefCell;

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeError, ResizeOptions, Resizer};
use image::RgbImage;

use super::crop::CropBox;
use crate::error::{Error, Result};

thread_local! {
    static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
}

/// Cuts `area` out and resizes it to `width` x `height` interleaved RGB pixels in `out`.
///
/// As in torchvision the cut comes first: nothing outside the box reaches the result.
///
/// # Errors
/// `out` has another size than `3 * width * height`, or the box does not lie inside the image.
pub fn resize_crop(
    image: &RgbImage,
    area: CropBox,
    (width, height): (u32, u32),
    out: &mut [u8],
) -> Result<()> {
    check_output(width, height, out)?;
    let failed = resize_failed(image);
    let view = source(image)?;
    let crop = TypedCroppedImage::from_ref(&view, area.left, area.top, area.width, area.height)
        .map_err(|e| failed(e.into()))?;
    let mut target = target(width, height, out)?;
    RESIZER
        .with_borrow_mut(|resizer| resizer.resize_typed(&crop, &mut target, &bicubic()))
        .map_err(failed)
}

/// Resizes the whole image.
///
/// # Errors
/// A side of `image`, `width` or `height` is 0.
pub fn resize(image: &RgbImage, width: u32, height: u32) -> Result<RgbImage> {
    let whole = CropBox { left: 0, top: 0, width: image.width(), height: image.height() };
    let mut out = RgbImage::new(width, height);
    resize_crop(image, whole, (width, height), &mut out)?;
    Ok(out)
}

/// The resizer's options. Its own crop box stays unused: with a box inside an image, 6.1 takes the
/// columns it needs from the first and the last output pixel alone, which is too few where their
/// outer weights are zero, and then reads beyond them. A view of the box has no such case.
fn bicubic() -> ResizeOptions {
    ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom)).use_alpha(false)
}

fn resize_failed(image: &RgbImage) -> impl Fn(ResizeError) -> Error + Copy {
    let (width, height) = image.dimensions();
    move |source| Error::Resize { width, height, source }
}

fn check_output(width: u32, height: u32, out: &[u8]) -> Result<()> {
    let expected = 3 * width as usize * height as usize;
    if out.len() == expected && expected > 0 {
        return Ok(());
    }
    Err(Error::Buffer { what: "bytes of a crop", expected: expected.max(3), got: out.len() })
}

fn source(image: &RgbImage) -> Result<TypedImageRef<'_, U8x3>> {
    TypedImageRef::from_buffer(image.width(), image.height(), image.as_raw())
        .map_err(|_| buffer_error(image.width(), image.height(), image.len()))
}

fn target(width: u32, height: u32, out: &mut [u8]) -> Result<TypedImage<'_, U8x3>> {
    let got = out.len();
    TypedImage::from_buffer(width, height, out).map_err(|_| buffer_error(width, height, got))
}

fn buffer_error(width: u32, height: u32, got: usize) -> Error {
    Error::Buffer { what: "bytes of an image", expected: 3 * (width * height) as usize, got }
}

#[cfg(test)]
mod tests {
    use image::Rgb;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The resizer's unsafe code checks its indices in builds with debug assertions.
        #[test]
        fn every_box_and_size_works(
            (left, top, width, height) in (0_u32..30, 0_u32..30, 1_u32..60, 1_u32..60),
            (wide, high) in (1_u32..80, 1_u32..80),
        ) {
            let image = RgbImage::from_pixel(90, 90, Rgb([1, 128, 255]));
            let mut out = RgbImage::new(wide, high);
            let area = CropBox { left, top, width, height };
            resize_crop(&image, area, (wide, high), &mut out).unwrap();
            prop_assert!(out.pixels().all(|p| p.0 == [1, 128, 255]));
        }
    }

    fn two_halves() -> RgbImage {
        RgbImage::from_fn(40, 20, |x, _| if x < 20 { Rgb([0; 3]) } else { Rgb([200; 3]) })
    }

    #[test]
    fn nothing_outside_the_box_reaches_the_crop() {
        let mut out = vec![9_u8; 8 * 8 * 3];
        let left = CropBox { left: 0, top: 0, width: 20, height: 20 };
        resize_crop(&two_halves(), left, (8, 8), &mut out).unwrap();
        assert!(out.iter().all(|&v| v == 0));
    }

    #[test]
    fn wrong_sizes_are_errors() {
        let whole = CropBox { left: 0, top: 0, width: 40, height: 20 };
        assert!(resize_crop(&two_halves(), whole, (8, 8), &mut [0; 10]).is_err());
        let outside = CropBox { left: 30, ..whole };
        assert!(resize_crop(&two_halves(), outside, (8, 8), &mut [0; 192]).is_err());
        assert!(resize(&two_halves(), 0, 3).is_err());
        assert!(resize(&RgbImage::new(0, 0), 3, 3).is_err());
    }

    #[test]
    fn one_pixel_can_be_enlarged() {
        let image = RgbImage::from_pixel(1, 1, Rgb([5, 6, 7]));
        assert!(resize(&image, 9, 4).unwrap().pixels().all(|p| p.0 == [5, 6, 7]));
    }
}
