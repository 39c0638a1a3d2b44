//! The network of a student or teacher: backbone and heads.

use tch::{Tensor, nn};

use crate::config::{HeadConfig, ModelConfig};
use crate::error::Result;
use crate::head::ProjectionHead;
use crate::tokens::Mode;
use crate::vit::VisionTransformer;

/// A backbone and its projection heads, with keys `backbone.*`, `head.*`, and `patch_head.*`.
#[derive(Debug)]
pub struct Network {
    /// The vision transformer.
    pub backbone: VisionTransformer,
    /// The projection head for the class token.
    pub head: ProjectionHead,
    /// The projection head for masked patches, if they do not share `head`.
    pub patch_head: Option<ProjectionHead>,
}

impl Network {
    /// Creates all parameters in `vs`. Draws from torch's generator, so seed it first.
    ///
    /// # Errors
    /// Returns an error if a value in one of the configurations is invalid.
    pub fn new(vs: &nn::VarStore, model: &ModelConfig, head: &HeadConfig) -> Result<Self> {
        let root = vs.root();
        let backbone = VisionTransformer::new(&(&root / "backbone"), model)?;
        let width = backbone.embed_dim();
        let patch_head = head.of_patches();
        let patch_head =
            patch_head.map(|head| ProjectionHead::new(&(&root / "patch_head"), width, &head));
        let head = ProjectionHead::new(&(&root / "head"), width, head)?;
        Ok(Self { backbone, head, patch_head: patch_head.transpose()? })
    }

    /// Computes projected class tokens, `[B, C, height, width]` to unit rows `[B, d]`, or to
    /// scores `[B, K]` if the head has prototypes.
    ///
    /// # Errors
    /// Same as [`VisionTransformer::forward`].
    pub fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        self.head.forward(&self.backbone.forward_cls(images, mode)?)
    }

    /// Applies the heads to class tokens `[B, D]` and patches `[m, D]`, in one pass if they share
    /// a head.
    ///
    /// # Errors
    /// Returns an error if the tokens have the wrong width.
    pub fn project(&self, cls: &Tensor, patches: &Tensor) -> Result<(Tensor, Tensor)> {
        if let Some(patch_head) = &self.patch_head {
            return Ok((self.head.forward(cls)?, patch_head.forward(patches)?));
        }
        let counts = [cls.size()[0], patches.size()[0]];
        let rows = self.head.forward(&Tensor::cat(&[cls, patches], 0))?; // [B + m, d]
        Ok((rows.narrow(0, 0, counts[0]), rows.narrow(0, counts[0], counts[1])))
    }
}
