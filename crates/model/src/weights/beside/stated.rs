//! What a network description states, and how it completes a network.

use std::path::PathBuf;

use super::grid::Grid;
use crate::config::{ModelConfig, PosInterpolation};
use crate::error::{Error, Result};

/// What a file beside the weights states; `None` where it does not.
#[derive(Debug, Default)]
pub(in super::super) struct Beside {
    pub(in super::super) num_heads: Option<i64>,
    /// Whether the number of heads is the library's default because its file states none.
    pub(super) heads_by_default: bool,
    pub(in super::super) norm_eps: Option<f64>,
    pub(in super::super) qk_norm: Option<bool>,
    /// The value that the factors of a LayerScale have before training.
    pub(in super::super) layer_scale: Option<f64>,
    pub(in super::super) pos_interpolation: Option<PosInterpolation>,
    /// Sizes that the tensors determine, too, by key; they reveal a file of a different network.
    pub(super) sizes: Vec<(&'static str, i64, Size)>,
    /// The image size that the positions belong to.
    pub(in super::super) grid: Option<Grid>,
    /// Whether positions begin with that of the class token.
    pub(in super::super) class_has_position: Option<bool>,
    pub(super) path: PathBuf,
}

/// A size of the network that the tensors determine.
#[derive(Debug, Clone, Copy)]
pub(super) enum Size {
    Width,
    Depth,
    Patch,
    Channels,
    Registers,
}

impl Beside {
    /// Completes `model`, as inferred from tensors, with values that they do not determine.
    ///
    /// # Errors
    /// Returns an error if the file describes a network of a different size, or an impossible one.
    pub(in super::super) fn complete(&self, model: ModelConfig) -> Result<ModelConfig> {
        let dims = model.arch.dimensions();
        for &(key, stated, size) in &self.sizes {
            let found = match size {
                Size::Width => dims.embed_dim,
                Size::Depth => dims.depth,
                Size::Patch => model.patch_size,
                Size::Channels => model.in_channels,
                Size::Registers => model.num_register_tokens,
            };
            if stated != found {
                return Err(self.error(format!(
                    "{key} is {stated} in it, but {found} in the tensors next to it: if it \
                     describes another network, move the weights to a folder of their own"
                )));
            }
        }
        if let Some(grid) = &self.grid {
            let side = model.image_size / model.patch_size;
            grid.check(model.patch_size, side).map_err(|problem| self.error(problem))?;
        }
        let model = ModelConfig {
            num_heads: self.num_heads.filter(|&heads| heads != dims.num_heads),
            norm_eps: self.norm_eps.unwrap_or(model.norm_eps),
            qk_norm: self.qk_norm.unwrap_or(model.qk_norm),
            // The tensors tell whether there is one.
            layer_scale: model.layer_scale.map(|assumed| self.layer_scale.unwrap_or(assumed)),
            pos_interpolation: self.pos_interpolation.unwrap_or(model.pos_interpolation),
            ..model
        };
        match model.validate().first() {
            Some(("num_heads", _)) if self.heads_by_default => Err(self.error(format!(
                "it lacks num_attention_heads, and the library's default of {} does not divide the \
                 width of {}: add num_attention_heads",
                model.heads(),
                dims.embed_dim
            ))),
            Some((key, problem)) => Err(self.error(format!("{key} {problem}"))),
            None => Ok(model),
        }
    }

    pub(in super::super) fn error(&self, problem: String) -> Error {
        Error::Beside { path: self.path.clone(), problem }
    }
}
