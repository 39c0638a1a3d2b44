//! MaskCut of an image, from its pixels to masks at its own size, with a network in between.
//!
//! ```text
//! prepare ──input──> a network ──keys of the last block──> maskcut ──> finish
//! ```

use crate::resize::{Filter, resize};
use crate::{Crf, CrfOptions, Grid, Mask, MaskCut, Result};

/// Side of the square that MaskCut works on, in pixels.
pub const SIDE: usize = 480;

/// An image that is prepared for MaskCut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Size of the image itself.
    pub original: Grid,
    /// The square image that the CRF sees, RGB.
    pub square: Vec<u8>,
    /// Side of the square.
    pub side: usize,
    /// The input of the network, RGB: the square, with sides that are multiples of the patch size.
    pub input: Vec<u8>,
    /// Size of the input.
    pub input_size: Grid,
    /// The grid of its patches.
    pub patches: Grid,
}

impl Picture {
    /// Resizes an RGB image as MaskCut does: to a square of `side` pixels, and from there to the
    /// nearest multiple of `patch`, both with the Lanczos filter.
    ///
    /// # Errors
    /// Returns [`Error::Shape`](crate::Error::Shape) unless there are three bytes per pixel and at
    /// least one pixel, and [`Error::Option`](crate::Error::Option) if the nearest multiple is 0.
    pub fn prepare(rgb: &[u8], original: Grid, side: usize, patch: usize) -> Result<Self> {
        let count =
            if patch == 0 { 0 } else { (side as f64 / patch as f64).round_ties_even() as usize };
        if count == 0 {
            let must = "from 1 to the side of the image";
            return Err(crate::Error::Option { option: "patch", value: patch as f64, must });
        }
        let whole = Grid::new(side, side);
        let square = resize(rgb, original, whole, 3, Filter::Lanczos)?;
        let input_size = Grid::new(count * patch, count * patch);
        let input = resize(&square, whole, input_size, 3, Filter::Lanczos)?;
        Ok(Self { original, square, side, input, input_size, patches: Grid::new(count, count) })
    }

    /// Returns the masks at the size of the image, in the order of their rounds; rounds without a
    /// mask are left out.
    ///
    /// With `crf`, each mask is refined on the square, its holes are filled, and it is dropped if
    /// it has changed too much (see [`Refined::is_kept`](crate::Refined::is_kept)), as published.
    /// Without `crf`, masks follow the edges of patches.
    ///
    /// # Errors
    /// Same as [`Crf::new`].
    pub fn finish(&self, found: &MaskCut, crf: Option<&CrfOptions>) -> Result<Vec<Mask>> {
        let mut masks = found.masks_at(self.input_size);
        masks.retain(|mask| !mask.is_empty());
        if let Some(options) = crf.filter(|_| !masks.is_empty()) {
            let crf = Crf::new(&self.square, Grid::new(self.side, self.side), options)?;
            let kept = crf.refine(&masks)?.into_iter().filter(|refined| refined.is_kept());
            masks = kept.map(|refined| refined.mask).collect();
        }
        let mut finished = Vec::with_capacity(masks.len());
        for mask in masks {
            let mask = enlarged(&mask, self.original)?;
            if !mask.is_empty() {
                finished.push(mask);
            }
        }
        Ok(finished)
    }
}

/// Resizes a mask as an image with the bicubic filter, with a threshold at half of the largest
/// value.
fn enlarged(mask: &Mask, to: Grid) -> Result<Mask> {
    let bytes: Vec<u8> = mask.cells().iter().map(|&cell| if cell { 255 } else { 0 }).collect();
    let resized = resize(&bytes, mask.grid(), to, 1, Filter::Bicubic)?;
    let most = resized.iter().copied().max().unwrap_or(0);
    Mask::new(to, resized.into_iter().map(|x| u16::from(x) * 2 > u16::from(most)).collect())
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::{MaskCutOptions, maskcut};

    /// Returns a red rectangle on blue, features that separate the two, and the true mask.
    fn scene(height: usize, width: usize, patch: usize) -> (Picture, Array2<f32>, Mask) {
        let original = Grid::new(height, width);
        let inside = |y: f64, x: f64| (0.3..0.6).contains(&y) && (0.4..0.8).contains(&x);
        let at = |i: usize, n: usize| (i as f64 + 0.5) / n as f64;
        let truth: Vec<bool> = (0..original.cells())
            .map(|i| inside(at(i / width, height), at(i % width, width)))
            .collect();
        let rgb: Vec<u8> = truth
            .iter()
            .flat_map(|&object| if object { [210, 30, 20] } else { [20, 60, 190] })
            .collect();
        let picture = Picture::prepare(&rgb, original, 120, patch).unwrap();
        let n = picture.patches.height;
        let features = Array2::from_shape_fn((n * n, 2), |(i, channel)| {
            f32::from(u8::from(inside(at(i / n, n), at(i % n, n)) == (channel == 1)))
        });
        (picture, features, Mask::new(original, truth).unwrap())
    }

    #[test]
    fn masks_come_back_at_the_size_of_the_image() {
        for (height, width, patch) in [(90, 160, 8), (200, 50, 8), (77, 120, 7), (120, 120, 16)] {
            let (picture, features, truth) = scene(height, width, patch);
            let found =
                maskcut(features.view(), picture.patches, &MaskCutOptions::default()).unwrap();
            let coarse = picture.finish(&found, None).unwrap();
            let refined = picture.finish(&found, Some(&CrfOptions::default())).unwrap();
            assert_eq!((coarse.len(), refined.len()), (1, 1));
            let iou = |mask: &Mask| mask.iou(&truth).unwrap();
            assert!(
                iou(&coarse[0]) > 0.6 && iou(&refined[0]) > 0.9,
                "{height} x {width}: {} {}",
                iou(&coarse[0]),
                iou(&refined[0])
            );
        }
    }

    #[test]
    fn sides_are_the_nearest_multiples_of_the_patch() {
        let side = |patch: usize| {
            Picture::prepare(&[0; 3], Grid::new(1, 1), SIDE, patch).unwrap().input_size.width
        };
        assert_eq!([side(8), side(14), side(16), side(7)], [480, 476, 480, 483]);
        for patch in [0, 2000] {
            assert!(Picture::prepare(&[0; 3], Grid::new(1, 1), SIDE, patch).is_err());
        }
        assert!(Picture::prepare(&[], Grid::new(0, 0), SIDE, 16).is_err());
    }

    #[test]
    fn an_image_without_masks_needs_no_crf() {
        let (picture, features, _) = scene(40, 40, 8);
        let found =
            maskcut(features.mapv(|_| 0.0).view(), picture.patches, &MaskCutOptions::default())
                .unwrap();
        assert!(picture.finish(&found, Some(&CrfOptions::default())).unwrap().is_empty());
    }

    #[test]
    fn a_mask_that_shrinks_away_keeps_its_brightest_pixels() {
        let mut cells = vec![false; 40 * 40];
        cells[20 * 40 + 20] = true;
        let mask = Mask::new(Grid::new(40, 40), cells).unwrap();
        assert!((1..3).contains(&enlarged(&mask, Grid::new(10, 10)).unwrap().area()));
        assert!(enlarged(&Mask::empty(Grid::new(3, 3)), Grid::new(9, 9)).unwrap().is_empty());
    }
}
