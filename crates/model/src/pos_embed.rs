//! The learned positional embedding and its interpolation to other grids.

use std::sync::{Mutex, PoisonError};

use tch::{Device, Kind, Tensor, nn};

use crate::config::PosInterpolation;
use crate::error::Result;
use crate::init;
use crate::precision::{without_autocast, working_kind};

/// Added to the number of patches before the scale is computed, as the reference does.
const OFFSET: f64 = 0.1;
/// Number of cached matrices: training needs one or two, and pictures of arbitrary shapes a few
/// more.
const KEPT: usize = 8;

/// One vector per token: first that of the class token, then those of an `M x M` grid of patches.
#[derive(Debug)]
pub(crate) struct PosEmbed {
    weight: Tensor, // [1, 1 + M M, D]
    interpolation: Interpolation,
}

impl PosEmbed {
    /// Creates the parameter `pos_embed`, `[1, 1 + side^2, D]`, directly in `path`.
    pub(crate) fn new(
        path: &nn::Path,
        side: i64,
        embed_dim: i64,
        form: PosInterpolation,
    ) -> Result<Self> {
        let weight = init::trunc_normal(path, "pos_embed", &[1, 1 + side * side, embed_dim])?;
        Ok(Self { weight, interpolation: Interpolation::new(side, form) })
    }

    /// Returns the embedding for a grid of `rows x cols` patches, `[1, 1 + rows * cols, D]`.
    ///
    /// For the grid that it was made for, this is the parameter itself. Other grids use a bicubic
    /// interpolation with repeated borders, which is differentiable and recomputed at each call,
    /// because the parameter changes at each step. Without antialiasing, the cubic has a = -0.75;
    /// with it, it has a = -0.5 and a support that grows as the grid shrinks.
    ///
    /// # Source
    /// `interpolate_pos_encoding` of DINO, where the scale is `(rows + 0.1) / M`, not `rows / M`,
    /// and source coordinates follow from that scale; of DINOv2, which supports either, and
    /// antialiasing. Use released weights with the form that they were trained with.
    pub(crate) fn for_grid(&self, grid: (i64, i64)) -> Tensor {
        self.interpolation.apply(&self.weight, grid)
    }

    /// Returns the tensors other than the parameter that recent passes have read.
    pub(crate) fn constants(&self) -> Vec<Tensor> {
        self.interpolation.matrices()
    }

    /// Returns the parameter itself.
    pub(crate) fn weight(&self) -> &Tensor {
        &self.weight
    }
}

/// Interpolation from a grid of `M x M` positions to other grids.
///
/// It consists of two products with constant matrices, one along each axis. They are the same on
/// every device and in every run, whereas a GPU's own kernel has one thread per patch and
/// accumulates gradients in arbitrary order.
#[derive(Debug)]
pub(crate) struct Interpolation {
    side: i64, // M
    form: PosInterpolation,
    /// Recently used matrices `[patches, M]`, on the device of the weight.
    matrices: Mutex<Vec<Tensor>>,
}

impl Interpolation {
    /// Creates the interpolation from a grid of `side x side`.
    pub(crate) fn new(side: i64, form: PosInterpolation) -> Self {
        Self { side, form, matrices: Mutex::default() }
    }

    /// Interpolates positions `[1, 1 + M M, D]` to a grid of `rows x cols`; for the original grid,
    /// returns the weight itself. Computes in fp32, as the reference does, or in fp64 if the
    /// weight is fp64.
    pub(crate) fn apply(&self, weight: &Tensor, (rows, cols): (i64, i64)) -> Tensor {
        let (side, dim) = (self.side, weight.size()[2]);
        if (rows, cols) == (side, side) {
            return weight.shallow_clone();
        }
        let kind = working_kind(weight);
        let [along_rows, along_cols] =
            [rows, cols].map(|patches| self.matrix(patches, (kind, weight.device())));
        let patches = without_autocast(weight.device(), || {
            let patches = weight.narrow(1, 1, side * side).to_kind(kind); // -> [1, M M, D]
            let patches = along_rows.matmul(&patches.reshape([side, side * dim])); // -> [rows, M D]
            along_cols.matmul(&patches.view([rows, side, dim])) // -> [rows, cols, D]
        });
        let patches = patches.to_kind(weight.kind()).view([1, rows * cols, dim]); // -> [1, N, D]
        Tensor::cat(&[weight.narrow(1, 0, 1), patches], 1) // -> [1, 1 + N, D]
    }

    /// Returns the cached matrices.
    pub(crate) fn matrices(&self) -> Vec<Tensor> {
        let kept = self.matrices.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().map(Tensor::shallow_clone).collect()
    }

    /// Returns the cached or new matrix `[patches, M]` that interpolates the `M` positions of an
    /// axis to `patches`.
    fn matrix(&self, patches: i64, (kind, device): (Kind, Device)) -> Tensor {
        let mut kept = self.matrices.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |m: &Tensor| m.size()[0] == patches && m.kind() == kind && m.device() == device;
        if let Some(matrix) = kept.iter().find(|matrix| fits(matrix)) {
            return matrix.shallow_clone();
        }
        let matrix = tch::no_grad(|| self.interpolated_identity(patches));
        let matrix = matrix.to_kind(kind).to_device(device);
        if kept.len() == KEPT {
            drop(kept.remove(0));
        }
        kept.push(matrix.shallow_clone());
        matrix
    }

    /// Computes the matrix of libtorch's interpolation along one axis, `[patches, M]`, in fp64. The
    /// interpolation is linear, so its values at the unit vectors are the columns of the matrix.
    fn interpolated_identity(&self, patches: i64) -> Tensor {
        let side = self.side;
        let positions = Tensor::eye(side, (Kind::Double, Device::Cpu)).view([1, 1, side, side]);
        let size = [patches, side];
        let interpolated = match self.form {
            PosInterpolation::Offset => {
                let scale = (patches as f64 + OFFSET) / side as f64;
                positions.upsample_bicubic2d(size, false, scale, 1.0)
            }
            PosInterpolation::Size => positions.upsample_bicubic2d(size, false, None, None),
            PosInterpolation::Antialias => {
                positions.internal_upsample_bicubic2d_aa(size, false, None, None)
            }
        };
        interpolated.view([patches, side])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMS: [PosInterpolation; 3] =
        [PosInterpolation::Offset, PosInterpolation::Size, PosInterpolation::Antialias];

    /// Interpolates all positions with libtorch's own kernel, in two dimensions.
    fn by_kernel(
        weight: &Tensor,
        side: i64,
        (rows, cols): (i64, i64),
        form: PosInterpolation,
    ) -> Tensor {
        let dim = weight.size()[2];
        let patches = weight.narrow(1, 1, side * side).reshape([1, side, side, dim]);
        let patches = patches.permute([0, 3, 1, 2]); // -> [1, D, M, M]
        let size = [rows, cols];
        let scale = |patches: i64| (patches as f64 + OFFSET) / side as f64;
        let patches = match form {
            PosInterpolation::Offset => {
                patches.upsample_bicubic2d(size, false, scale(rows), scale(cols))
            }
            PosInterpolation::Size => patches.upsample_bicubic2d(size, false, None, None),
            PosInterpolation::Antialias => {
                patches.internal_upsample_bicubic2d_aa(size, false, None, None)
            }
        };
        let patches = patches.permute([0, 2, 3, 1]).reshape([1, rows * cols, dim]);
        Tensor::cat(&[weight.narrow(1, 0, 1), patches], 1)
    }

    /// Returns the positions that `f` computes, and the gradient of a fixed weighted sum of them.
    fn with_gradient(weight: &Tensor, f: impl Fn(&Tensor) -> Tensor) -> [Tensor; 2] {
        let weight = weight.detach().copy().set_requires_grad(true);
        let positions = f(&weight);
        let factors = Tensor::arange(positions.numel() as i64, (Kind::Double, Device::Cpu)).sin();
        (&positions * factors.to_kind(positions.kind()).view_as(&positions)).sum(None).backward();
        [positions.detach(), weight.grad()]
    }

    fn difference(a: &Tensor, b: &Tensor) -> f64 {
        assert_eq!(a.size(), b.size());
        let [a, b] = [a, b].map(|x| x.to_kind(Kind::Double));
        ((a - &b).abs().max() / b.abs().max()).double_value(&[])
    }

    #[test]
    fn matrices_give_what_the_kernel_gives() {
        // The kernel computes source positions in the type of the weight; we use fp64.
        for (kind, exact, alike) in [(Kind::Double, 1e-13, 1e-13), (Kind::Float, 1e-6, 1e-5)] {
            let grids = [(14, (6, 6)), (14, (9, 21)), (4, (7, 2)), (37, (16, 7)), (5, (5, 3))];
            for ((side, grid), form) in grids.iter().flat_map(|of| FORMS.map(|form| (*of, form))) {
                let weight = Tensor::randn([1, 1 + side * side, 8], (kind, Device::Cpu));
                let ours = Interpolation::new(side, form);
                let ours = with_gradient(&weight, |w| ours.apply(w, grid));
                let kernel =
                    |kind| with_gradient(&weight.to_kind(kind), |w| by_kernel(w, side, grid, form));
                for (expected, allowed) in [(kernel(Kind::Double), exact), (kernel(kind), alike)] {
                    for (ours, expected) in ours.iter().zip(&expected) {
                        let error = difference(ours, expected);
                        assert!(error < allowed, "{kind:?} {side} {grid:?} {form:?}: {error:e}");
                    }
                }
            }
        }
    }

    #[test]
    fn autocast_leaves_positions_as_precise_as_they_are() {
        let weight = Tensor::randn([1, 1 + 14 * 14, 8], (Kind::Float, Device::Cpu));
        let positions = Interpolation::new(14, PosInterpolation::Offset);
        let plain = positions.apply(&weight, (6, 6));
        let region = || positions.apply(&weight, (6, 6));
        assert_eq!(torch_ext::autocast(Device::Cpu, Some(Kind::BFloat16), region).unwrap(), plain);
    }

    #[test]
    fn matrices_are_made_once_and_follow_the_weight() {
        let positions = Interpolation::new(4, PosInterpolation::Size);
        let kept = || positions.matrices.lock().unwrap().len();
        let weight = Tensor::randn([1, 17, 2], (Kind::Float, Device::Cpu));
        for _ in 0..3 {
            let _ = positions.apply(&weight, (3, 3));
        }
        assert_eq!(kept(), 1);
        assert_eq!(positions.apply(&weight.to_kind(Kind::Double), (3, 2)).kind(), Kind::Double);
        assert_eq!(kept(), 3, "[3, 4] in fp32, [3, 4] and [2, 4] in fp64");
        for cols in 1..40 {
            let _ = positions.apply(&weight, (3, cols));
        }
        assert_eq!(kept(), KEPT);
        assert_eq!(positions.apply(&weight.to_kind(Kind::BFloat16), (3, 3)).kind(), Kind::BFloat16);
    }
}
