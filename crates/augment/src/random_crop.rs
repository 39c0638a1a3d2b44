//! The augmentation for training classifiers: a random crop, which may be mirrored.

use std::cell::RefCell;

use decode::Image;

use super::crop::random_resized_crop;
use super::planes::Planes;
use super::resize::{Job, resize_each};
use crate::error::{Error, Result};
use crate::pixels::Pixels;
use crate::rng::{Purpose, Rng};

thread_local! {
    static PLANES: RefCell<Planes> = RefCell::default();
}

/// A random resized crop of 8% to 100% of the image's area, which is mirrored half of the time:
/// torchvision's `RandomResizedCrop` with its default scale, and `RandomHorizontalFlip`.
///
/// The filter is bicubic, as in DINOv2's linear probe; DINO's is bilinear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RandomCrop {
    /// Side of the crop, in pixels.
    pub side: u32,
    /// Seed of all choices.
    pub seed: u64,
}

/// Bounds of the fraction of the area that a crop shows.
const SCALE: [f64; 2] = [0.08, 1.0];

impl RandomCrop {
    /// Creates the augmentation for crops of `side` x `side` pixels.
    pub fn new(side: u32, seed: u64) -> Self {
        Self { side, seed }
    }

    /// Returns the random crop number `number`, `side` x `side` pixels. All choices depend only on
    /// the seed and on `number`, so every use of an image needs its own number.
    ///
    /// # Errors
    /// Returns an error if the image has no pixels, or the side is 0.
    pub fn apply(&self, image: Pixels<'_>, number: u64) -> Result<Image> {
        let nothing = || Error::Buffer { what: "pixels to crop", expected: 1, got: 0 };
        if image.data().is_empty() || self.side == 0 {
            return Err(nothing());
        }
        let mut rng = Rng::new(self.seed, 0, number, Purpose::Crop(0));
        let flip = rng.chance(0.5);
        // This comes last, because it takes a variable number of draws.
        let area = random_resized_crop(&mut rng, image.width(), image.height(), SCALE);
        let job = Job { area, width: self.side, height: self.side, flip };
        let mut pixels = Vec::new();
        PLANES.with_borrow_mut(|planes| {
            resize_each(image, &[job], planes, |planes| {
                pixels = vec![0; planes.bytes().len()];
                planes.store(&mut pixels);
                Ok(())
            })
        })?;
        Image::new(pixels, self.side, self.side, image.channels()).ok_or_else(nothing)
    }
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;

    #[test]
    fn uses_differ_and_repeat() {
        let image = RgbImage::from_fn(60, 40, |x, y| Rgb([4 * x as u8, 6 * y as u8, 7]));
        let crop = RandomCrop::new(16, 3);
        let of = |number| crop.apply((&image).into(), number).unwrap();
        let all: Vec<_> = (0..20).map(of).collect();
        assert_eq!(all[0].dimensions(), (16, 16));
        // What came before has no effect.
        let again = RandomCrop::new(16, 3).apply((&image).into(), 7).unwrap();
        assert!((0..20).all(|i| (all[i] == again) == (i == 7)));
        assert!((1..20).all(|i| all[i] != all[i - 1]));
        // Red increases to the right in the image, so it decreases in a mirrored crop.
        let mirrored = all.iter().filter(|crop| crop.data()[0] > crop.data()[3 * 15]).count();
        assert!((4..=16).contains(&mirrored), "{mirrored} of 20 are mirrored");
        assert_ne!(RandomCrop::new(16, 4).apply((&image).into(), 0).unwrap(), of(0));
        assert!(RandomCrop::new(0, 0).apply((&image).into(), 0).is_err());
        assert!(crop.apply((&RgbImage::new(0, 0)).into(), 0).is_err());
        let gray = [5u8; 12];
        let pixels = Pixels::new(&gray, 4, 3, 1).unwrap();
        assert_eq!(crop.apply(pixels, 0).unwrap().data(), [5; 256]);
    }
}
