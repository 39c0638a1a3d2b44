//! Tokens on their way from block to block.

use tch::{Kind, Tensor};
use torch_ext::fused::{self, Branch, Norm};

use crate::error::Result;
use crate::tokens::Mode;

/// How the blocks of a network compute by fused steps in one pass, see [`torch_ext::fused`].
#[derive(Debug)]
pub(crate) struct FusedPlan {
    /// The type of activations.
    pub kind: Kind,
    pub mode: Mode,
    /// What the two branches of each block are multiplied by, `[depth, 2, B]`; none for 1.
    pub factors: Option<Tensor>,
}

/// Tokens `[B, T, D]`, and the last residual branch where it has not been added yet: the norm that comes
/// next does both in one pass over memory.
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
    /// The tokens with a branch that is to be added.
    pub(crate) fn with(self, branch: Branch) -> Self {
        Self { x: self.added(), branch: Some(branch) }
    }

    /// Adds the branch: the norm of the sum in type `kind`, and the sum.
    pub(crate) fn normed(self, norm: Norm<'_>, kind: Kind) -> Result<(Tensor, Self)> {
        let Some(branch) = &self.branch else {
            return Ok((fused::norm(&self.x, norm, kind)?, self));
        };
        let (normed, x) = fused::add_norm(&self.x, branch, norm, kind)?;
        Ok((normed, Self::from(x)))
    }

    /// The tokens with everything added.
    pub(crate) fn added(self) -> Tensor {
        let Some(Branch { output, bias, gamma, factor }) = self.branch else { return self.x };
        // Not in place: autograd keeps what gamma was multiplied by.
        let kind = self.x.kind();
        let value = output.to_kind(kind);
        let value = bias.map_or_else(|| value.shallow_clone(), |bias| &value + bias);
        let value = gamma.map_or_else(|| value.shallow_clone(), |gamma| &value * gamma);
        let per_image = |factor: Tensor| &value * factor.to_kind(kind).view([-1, 1, 1]);
        let value = factor.map_or_else(|| value.shallow_clone(), per_image);
        self.x + value
    }
}
