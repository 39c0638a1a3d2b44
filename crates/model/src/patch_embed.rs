//! Converts images to patch tokens.

use tch::{Tensor, nn};

use crate::error::{Error, Result};
use crate::init;

/// Cuts images into squares of `P` pixels and maps each to a token.
///
/// # Source
/// DINO's `PatchEmbed`: a convolution with kernel and stride `P`, with torch's default
/// initialization of a convolution: weight and bias are uniform within `1 / sqrt(C P^2)`.
///
/// # Deviations
/// It is computed as a matrix product over flattened patches, which gives `[B, N, D]` directly.
/// The parameters keep the shapes of the convolution.
#[derive(Debug)]
pub(crate) struct PatchEmbed {
    weight: Tensor,
    bias: Tensor,
    patch_size: i64,
    in_channels: i64,
}

impl PatchEmbed {
    /// Creates the parameters `proj.weight` `[D, C, P, P]` and `proj.bias` `[D]`.
    pub(crate) fn new(
        path: &nn::Path,
        in_channels: i64,
        patch_size: i64,
        embed_dim: i64,
    ) -> Result<Self> {
        let proj = path / "proj";
        let fan_in = in_channels * patch_size * patch_size;
        // kaiming_uniform with a = sqrt(5) has gain sqrt(1/3), so its bound is 1 / sqrt(fan_in).
        let bound = 1.0 / (fan_in as f64).sqrt();
        let dims = [embed_dim, in_channels, patch_size, patch_size];
        let weight = init::uniform(&proj, "weight", &dims, bound)?;
        let bias = init::uniform(&proj, "bias", &[embed_dim], bound)?;
        Ok(Self { weight, bias, patch_size, in_channels })
    }

    /// Returns the rows and columns of the patch grid for images `[B, C, height, width]`.
    ///
    /// # Errors
    /// Returns an error if the number of dimensions or channels is wrong, there is no image, or a
    /// side is not a multiple of `P`.
    pub(crate) fn grid(&self, images: &Tensor) -> Result<(i64, i64)> {
        let size = images.size();
        let &[batch, channels, height, width] = size.as_slice() else {
            return Err(Error::InputShape { channels: self.in_channels, got: size });
        };
        if batch < 1 || channels != self.in_channels || height < 1 || width < 1 {
            return Err(Error::InputShape { channels: self.in_channels, got: size });
        }
        let patch_size = self.patch_size;
        if height % patch_size != 0 || width % patch_size != 0 {
            return Err(Error::NotMultiple { height, width, patch_size });
        }
        Ok((height / patch_size, width / patch_size))
    }

    /// Computes the patch tokens, `[B, C, rows * P, cols * P]` to `[B, N, D]`.
    pub(crate) fn forward(&self, images: &Tensor, (rows, cols): (i64, i64)) -> Tensor {
        let (batch, c, p) = (images.size()[0], self.in_channels, self.patch_size);
        let patches = images
            .reshape([batch, c, rows, p, cols, p]) // [B, C, h P, w P] -> [B, C, h, P, w, P]
            .permute([0, 2, 4, 1, 3, 5]) // -> [B, h, w, C, P, P]
            .reshape([batch, rows * cols, c * p * p]); // -> [B, N, C P P]
        let weight = self.weight.flatten(1, -1); // [D, C, P, P] -> [D, C P P]
        patches.linear(&weight, Some(&self.bias)) // -> [B, N, D]
    }
}
