//! Sliding-window inference with a linear head.

use data::decode::Image;
use tch::{Kind, Tensor};

use super::config::{Averaged, LinearConfig};
use super::crops::fitted;
use super::head::LinearHead;
use crate::error::Result;
use crate::segmentation::evaluate::Segmenter;
use crate::segmentation::features::{DenseNetwork, best_classes, resized};

/// Number of windows per forward pass.
const WINDOWS_AT_ONCE: usize = 8;

/// A frozen network with a trained head.
#[derive(Debug)]
pub struct LinearSegmenter<'a> {
    /// The network.
    pub network: DenseNetwork<'a>,
    /// The trained head.
    pub head: LinearHead,
    /// The sizes and scales of the test.
    pub config: LinearConfig,
}

impl Segmenter for LinearSegmenter<'_> {
    fn segment(&self, image: &Image, size: (u32, u32)) -> Result<Vec<u8>> {
        let base = self.sides(image, 1.0);
        let (scales, flips) = (&self.config.test_scales, 1 + usize::from(self.config.test_flip));
        let single = scales.len() * flips == 1;
        let mut sum: Option<Tensor> = None;
        for &scale in scales {
            let (width, height) = self.sides(image, scale);
            let input = self.network.input(&[&resized(image, width, height)?])?; // [1, C, H, W]
            for flip in 0..flips {
                let seen = if flip == 0 { input.shallow_clone() } else { input.f_flip([3])? };
                let scores = tch::no_grad(|| self.slide(&seen))?; // [1, K, H, W]
                let scores = if flip == 0 { scores } else { scores.f_flip([3])? };
                if single {
                    return best_classes(&scores.squeeze_dim(0), size);
                }
                let sides = [i64::from(base.1), i64::from(base.0)];
                let scores = scores.f_upsample_bilinear2d(sides, false, None, None)?;
                let scores = match self.config.averaged {
                    Averaged::Logits => scores.softmax(1, Kind::Float),
                    Averaged::Probabilities => scores,
                };
                sum = Some(match sum {
                    Some(sum) => sum + scores,
                    None => scores,
                });
            }
        }
        let sum = sum.unwrap_or_default();
        best_classes(&sum.squeeze_dim(0), size)
    }
}

impl LinearSegmenter<'_> {
    /// Returns the width and height to which an image is resized at this scale.
    fn sides(&self, image: &Image, scale: f64) -> (u32, u32) {
        let long = self.config.long_side.map(|long| f64::from(long) * scale);
        fitted(image.dimensions(), f64::from(self.config.short_side) * scale, long)
    }

    /// Computes the scores `[1, K, H, W]` of all pixels of `[1, C, H, W]`, averaged over windows.
    fn slide(&self, image: &Tensor) -> Result<Tensor> {
        let size = image.size();
        let (height, width) = (size[2], size[3]);
        let (crop, stride) = (i64::from(self.config.crop), i64::from(self.config.stride));
        let (rows, columns) = (crop.min(height), crop.min(width));
        let mut places = Vec::new();
        for top in starts(height, crop, stride) {
            places.extend(starts(width, crop, stride).map(|left| (top, left)));
        }
        let mut sum: Option<Tensor> = None;
        let count = Tensor::zeros([1, 1, height, width], (Kind::Float, image.device()));
        for places in places.chunks(WINDOWS_AT_ONCE) {
            let windows: Vec<Tensor> = places
                .iter()
                .map(|&(top, left)| image.narrow(2, top, rows).narrow(3, left, columns))
                .collect();
            let scores = self.of_windows(&Tensor::f_cat(&windows, 0)?)?; // [W, K, rows, columns]
            let classes = scores.size()[1];
            let sum = sum.get_or_insert_with(|| {
                Tensor::zeros([1, classes, height, width], (Kind::Float, image.device()))
            });
            for (&(top, left), scores) in places.iter().zip(scores.split(1, 0)) {
                let _ = sum.narrow(2, top, rows).narrow(3, left, columns).f_add_(&scores)?;
                let _ = count.narrow(2, top, rows).narrow(3, left, columns).f_add_scalar_(1.0)?;
            }
        }
        Ok(sum.unwrap_or_default() / count)
    }

    /// Computes the scores `[W, K, H, W]` of the pixels of windows `[W, C, H, W]`, where the first
    /// `W` is their number.
    fn of_windows(&self, windows: &Tensor) -> Result<Tensor> {
        let size = windows.size();
        let (height, width) = (size[2], size[3]);
        let patch = i64::from(self.network.frozen.network.patch_size());
        let logits = self.head.logits(&self.network.maps(windows)?, false)?; // [W, K, h, w]
        let (h, w) = (logits.size()[2], logits.size()[3]);
        // Patches may extend beyond the window.
        let logits = logits.f_upsample_bilinear2d([h * patch, w * patch], false, None, None)?;
        let logits = logits.narrow(2, 0, height).narrow(3, 0, width);
        Ok(match self.config.averaged {
            Averaged::Logits => logits,
            Averaged::Probabilities => logits.softmax(1, Kind::Float),
        })
    }
}

/// Returns the starts of windows of length `crop` that cover `side`; the last window ends at
/// `side`.
pub(super) fn starts(side: i64, crop: i64, stride: i64) -> impl Iterator<Item = i64> {
    let count = (side - crop + stride - 1).max(0) / stride + 1;
    (0..count).map(move |i| (i * stride).min((side - crop).max(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_everything() {
        let of = |side, crop, stride| starts(side, crop, stride).collect::<Vec<_>>();
        assert_eq!(of(512, 512, 341), [0]);
        assert_eq!(of(683, 512, 341), [0, 171]);
        assert_eq!(of(1194, 512, 341), [0, 341, 682]);
        assert_eq!(of(1195, 512, 341), [0, 341, 682, 683]);
        assert_eq!(of(300, 512, 341), [0]);
    }
}
