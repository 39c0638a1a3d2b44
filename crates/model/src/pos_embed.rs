//! The learnt positional embedding and its interpolation to other grids.

use tch::{Kind, Tensor, nn};

use crate::config::PosInterpolation;
use crate::error::Result;
use crate::init;

/// Added to the number of patches before the scale is computed, as the reference does.
const OFFSET: f64 = 0.1;

/// One vector a token: the class token's, then those of an `M x M` grid of patches.
#[derive(Debug)]
pub(crate) struct PosEmbed {
    weight: Tensor, // [1, 1 + M M, D]
    side: i64,      // M
    interpolation: PosInterpolation,
}

impl PosEmbed {
    /// Parameter `pos_embed` `[1, 1 + side^2, D]` in `path` itself.
    pub(crate) fn new(
        path: &nn::Path,
        side: i64,
        embed_dim: i64,
        interpolation: PosInterpolation,
    ) -> Result<Self> {
        let weight = init::trunc_normal(path, "pos_embed", &[1, 1 + side * side, embed_dim])?;
        Ok(Self { weight, side, interpolation })
    }

    /// The embedding for a grid of `rows x cols` patches, `[1, 1 + rows * cols, D]`.
    ///
    /// The grid it was made for gets the parameter itself. Every other is a bicubic
    /// interpolation, border repeated, differentiable and recomputed at each call because the
    /// parameter moves at each step. Without antialiasing the cubic has a = -0.75, with it -0.5
    /// and a support that grows as the grid shrinks.
    ///
    /// # Source
    /// `interpolate_pos_encoding` of DINO, where the scale is `(rows + 0.1) / M`, not `rows / M`,
    /// and source coordinates follow from that scale; of DINOv2, which can do either, and
    /// antialias. Released weights go with the form that they were trained with.
    pub(crate) fn for_grid(&self, (rows, cols): (i64, i64)) -> Tensor {
        interpolate(&self.weight, self.side, (rows, cols), self.interpolation)
    }

    /// The parameter itself.
    pub(crate) fn weight(&self) -> &Tensor {
        &self.weight
    }
}

/// Positions `[1, 1 + side^2, D]` of a square grid for one of `rows x cols`; those of the same grid
/// are the weight itself.
pub(crate) fn interpolate(
    weight: &Tensor,
    side: i64,
    (rows, cols): (i64, i64),
    form: PosInterpolation,
) -> Tensor {
    if (rows, cols) == (side, side) {
        return weight.shallow_clone();
    }
    let dim = weight.size()[2];
    let scale = |patches: i64| (patches as f64 + OFFSET) / side as f64;
    let patches = weight
        .narrow(1, 1, side * side) // [1, 1 + M M, D] -> [1, M M, D]
        .reshape([1, side, side, dim]) // -> [1, M, M, D]
        .permute([0, 3, 1, 2]) // -> [1, D, M, M]
        .to_kind(Kind::Float); // as every implementation does
    let size = [rows, cols];
    let patches = match form {
        PosInterpolation::Offset => {
            patches.upsample_bicubic2d(size, false, scale(rows), scale(cols))
        }
        PosInterpolation::Size => patches.upsample_bicubic2d(size, false, None, None),
        PosInterpolation::Antialias => {
            patches.internal_upsample_bicubic2d_aa(size, false, None, None)
        }
    };
    let patches = patches // [1, D, rows, cols]
        .to_kind(weight.kind())
        .permute([0, 2, 3, 1]) // -> [1, rows, cols, D]
        .reshape([1, rows * cols, dim]); // -> [1, N, D]
    Tensor::cat(&[weight.narrow(1, 0, 1), patches], 1) // -> [1, 1 + N, D]
}
