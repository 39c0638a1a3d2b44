//! Tokens that are passed from block to block.

use tch::{Kind, Tensor};
use torch_ext::fused::{self, Branch, Norm};

use crate::error::Result;
use crate::tokens::Mode;

/// How the blocks of a network use fused kernels in one pass, see [`torch_ext::fused`].
#[derive(Debug)]
pub(crate) struct FusedPlan {
    /// The type of activations.
    pub kind: Kind,
    pub mode: Mode,
    /// Factors for the two branches of each block, `[depth, 2, B]`; `None` means 1.
    pub factors: Option<Tensor>,
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
    /// Attaches a branch to be added.
    pub(crate) fn with(self, branch: Branch) -> Self {
        Self { x: self.added(), branch: Some(branch) }
    }

    /// Adds the branch; returns the norm of the sum in type `kind`, and the sum.
    pub(crate) fn normed(self, norm: Norm<'_>, kind: Kind) -> Result<(Tensor, Self)> {
        let Some(branch) = &self.branch else {
            return Ok((fused::norm(&self.x, norm, kind)?, self));
        };
        let (normed, x) = fused::add_norm(&self.x, branch, norm, kind)?;
        Ok((normed, Self::from(x)))
    }

    /// Returns the tokens with everything added.
    pub(crate) fn added(self) -> Tensor {
        let Some(Branch { output, bias, gamma, factor }) = self.branch else { return self.x };
        // Not in place, because autograd keeps the tensor that gamma was multiplied by.
        let kind = self.x.kind();
        let value = output.to_kind(kind);
        let value = bias.map_or_else(|| value.shallow_clone(), |bias| &value + bias);
        let value = gamma.map_or_else(|| value.shallow_clone(), |gamma| &value * gamma);
        let per_image = |factor: Tensor| &value * factor.to_kind(kind).view([-1, 1, 1]);
        let value = factor.map_or_else(|| value.shallow_clone(), per_image);
        self.x + value
    }
}
