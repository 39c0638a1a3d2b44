//! The residual stream: tokens that are passed from block to block with fused kernels.

use tch::{Kind, Tensor};
use torch_ext::fused::{self, Branch, Norm, Subset};

use crate::drop_path::BranchDraw;
use crate::error::Result;
use crate::precision::working_kind;
use crate::tokens::Mode;

/// How the blocks of a network use the kernels of [`torch_ext::fused`] in one pass.
#[derive(Debug)]
pub(crate) struct FusedPlan {
    /// The type of activations.
    pub kind: Kind,
    pub mode: Mode,
    /// Stochastic depth of the two branches of each block.
    pub draws: Vec<[BranchDraw; 2]>,
}

/// Tokens `[B, T, D]`, and the last residual branch if it has not been added yet: the next norm
/// adds it and normalizes in one pass over memory.
#[derive(Debug)]
pub(crate) struct Stream {
    x: Tensor,
    branch: Option<Branch>,
}

impl From<Tensor> for Stream {
    fn from(x: Tensor) -> Self {
        Self { x, branch: None }
    }
}

impl Stream {
    /// Adds the pending branch, if any, and makes `branch` the pending one.
    pub(crate) fn with(self, branch: Branch) -> Self {
        Self { x: self.added(), branch: Some(branch) }
    }

    /// Adds the pending branch; returns the layer norm of the sum in type `kind` for the images of
    /// `subset`, and the sum.
    pub(crate) fn normed(
        self,
        norm: Norm<'_>,
        kind: Kind,
        subset: Option<&Subset>,
    ) -> Result<(Tensor, Self)> {
        let Some(branch) = &self.branch else {
            return Ok((fused::norm(&self.x, norm, kind, subset)?, self));
        };
        let (normed, x) = fused::add_norm(&self.x, branch, norm, kind, subset)?;
        Ok((normed, Self::from(x)))
    }

    /// Returns the tokens with the pending branch added.
    pub(crate) fn added(self) -> Tensor {
        match self.branch {
            Some(branch) => add(&self.x, &branch),
            None => self.x,
        }
    }
}

/// Adds `branch` to the images of `x`, `[B, T, D]`, or to those of its subset.
pub(crate) fn add(x: &Tensor, Branch { output, bias, gamma, factor, subset }: &Branch) -> Tensor {
    // Not in place, because autograd keeps the tensor that gamma was multiplied by.
    let kind = working_kind(x);
    let value = output.to_kind(kind);
    let value = bias.as_ref().map_or_else(|| value.shallow_clone(), |bias| &value + bias);
    let value = gamma.as_ref().map_or_else(|| value.shallow_clone(), |gamma| &value * gamma);
    let images = subset.as_ref().map(Subset::images);
    let of_images = |factor: &Tensor| match &images {
        Some(images) => factor.index_select(0, images),
        None => factor.shallow_clone(),
    };
    let scaled = |factor: &Tensor| &value * of_images(factor).to_kind(kind).view([-1, 1, 1]);
    let value = factor.as_ref().map_or_else(|| value.shallow_clone(), scaled);
    match &images {
        Some(images) => x.index_add(0, images, &value.to_kind(x.kind())),
        None => (x + value).to_kind(x.kind()),
    }
}
