//! Resizes tensors to another image size, patch size, or number of channels.

use tch::{Device, Kind, Tensor};

use crate::config::PosInterpolation;
use crate::error::Result;
use crate::pos_embed::Interpolation;

/// Singular values below this fraction of the largest count as zero.
const PINV_CUTOFF: f64 = 1e-10;

/// Resizes positions `[1, 1 + M M, D]` to a grid of `side x side`, as the network itself would
/// interpolate them, so that its features on images of that size do not change.
pub(super) fn positions(weight: &Tensor, side: i64, form: PosInterpolation) -> Tensor {
    let from = ((weight.size()[1] - 1) as f64).sqrt().round() as i64;
    Interpolation::new(from, form).apply(weight, (side, side))
}

/// Resizes kernels `[D, C, P, P]` of a patch embedding to patches of `side`, so that an image that
/// is resized along with its patches gets the same tokens as closely as possible.
///
/// Resizing a patch is linear, `B x`; the new kernel is `pinv(B^T) w`, so that `<B x, w'>` is as
/// close to `<x, w>` as the sizes allow, and equal if the patch grows.
///
/// # Source
/// FlexiViT (arXiv 2212.08013, section 3.4); bicubic with antialiasing as in timm's
/// `resample_patch_embed`.
pub(super) fn patch_kernel(weight: &Tensor, side: i64) -> Result<Tensor> {
    let from = weight.size()[3];
    let basis = Tensor::f_eye(from * from, (Kind::Double, Device::Cpu))?; // one patch per row
    let basis = basis.view([from * from, 1, from, from]);
    let resized = basis.f_internal_upsample_bicubic2d_aa([side, side], false, None, None)?;
    let b_transposed = resized.view([from * from, side * side]); // [P^2, P'^2] = B^T
    let inverse = b_transposed.f_linalg_pinv(PINV_CUTOFF, false)?; // -> [P'^2, P^2]
    let kind = weight.kind();
    let size = weight.size();
    let flat = weight.to_kind(Kind::Double).view([-1, from * from]); // [D C, P^2]
    let kernels = flat.matmul(&inverse.tr()); // -> [D C, P'^2]
    Ok(kernels.view([size[0], size[1], side, side]).to_kind(kind))
}

/// Converts kernels `[D, C, P, P]` to a different number of channels. For one channel, they are
/// summed, so that a gray image gives the same result as one with equal channels; otherwise, they
/// are repeated cyclically and scaled by the ratio of the numbers.
pub(super) fn channels(weight: &Tensor, count: i64) -> Tensor {
    let from = weight.size()[1];
    if count == 1 {
        return weight.sum_dim_intlist([1].as_slice(), true, weight.kind());
    }
    let turns: Vec<i64> = (0..count).map(|channel| channel % from).collect();
    let repeated = weight.index_select(1, &Tensor::from_slice(&turns));
    repeated * (from as f64 / count as f64)
}

/// Returns whether this number of patches is a square number, at least 1.
pub(super) fn is_square(patches: i64) -> bool {
    let side = (patches.max(0) as f64).sqrt().round() as i64;
    side > 0 && side.checked_mul(side) == Some(patches)
}
