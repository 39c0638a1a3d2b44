//! Backbone and head together: what the student and the teacher are.

use tch::{Tensor, nn};

use crate::config::{HeadConfig, ModelConfig};
use crate::error::Result;
use crate::head::ProjectionHead;
use crate::tokens::Mode;
use crate::vit::VisionTransformer;

/// A backbone and its projection head, with keys `backbone.*` and `head.*`.
#[derive(Debug)]
pub struct Network {
    /// The vision transformer.
    pub backbone: VisionTransformer,
    /// The projection head on its class token.
    pub head: ProjectionHead,
}

impl Network {
    /// Creates all parameters in `vs`. Draws from torch's generator: seed it before.
    ///
    /// # Errors
    /// A wrong value in one of the configurations.
    pub fn new(vs: &nn::VarStore, model: &ModelConfig, head: &HeadConfig) -> Result<Self> {
        let root = vs.root();
        let backbone = VisionTransformer::new(&(&root / "backbone"), model)?;
        let head = ProjectionHead::new(&(&root / "head"), backbone.embed_dim(), head)?;
        Ok(Self { backbone, head })
    }

    /// Projected class tokens, `[B, C, height, width]` to unit rows `[B, d]`.
    ///
    /// # Errors
    /// As [`VisionTransformer::forward`].
    pub fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        self.head.forward(&self.backbone.forward_cls(images, mode)?)
    }
}
