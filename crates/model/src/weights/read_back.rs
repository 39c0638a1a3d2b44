//! Compares an exported backbone with what is read back from its folder.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::architecture::infer;
use super::beside::normalization;
use super::export::{Backbone, WEIGHTS};
use super::file::TensorFile;
use super::keys::KeyStyle;
use super::networks::choose;
use super::roles::Role;
use super::step::read;
use crate::config::{ModelConfig, PosInterpolation};
use crate::error::{Error, Result};

/// What differs between a backbone and what is read back from an exported folder.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ReadBack {
    /// Largest relative difference between tensors. If timm's layout stores only the sum of the
    /// class token and its position, the class token and the positions are not compared.
    pub difference: f64,
    /// How the library interpolates positions for images of another size than
    /// [`ModelConfig::image_size`], which may differ from [`ModelConfig::pos_interpolation`].
    pub pos_interpolation: PosInterpolation,
}

/// Compares a backbone with what is read back from an exported folder.
///
/// # Errors
/// Returns an error if the folder cannot be read, lacks a tensor, or states a different
/// architecture or normalization.
pub fn verify(folder: &Path, backbone: &Backbone<'_>) -> Result<ReadBack> {
    let file = TensorFile::open(&folder.join(WEIGHTS))?;
    let network = choose(&file, Role::Teacher)?;
    let (back, given) = (infer(&file, &network)?.model, backbone.model);
    let said = |m: &ModelConfig| (m.arch, m.patch_size, m.heads(), m.norm_eps, m.qk_norm, m.ffn);
    if said(&back) != said(given) {
        let (back, given) = (said(&back), said(given));
        let summary = format!("read back as {back:?}, exported as {given:?}");
        return Err(Error::Mismatch { summary });
    }
    let normalize = normalization(&file, given.in_channels)?;
    if normalize.as_ref() != Some(&backbone.normalize) {
        let summary = format!(
            "normalization read back as {normalize:?}, exported as {:?}",
            backbone.normalize
        );
        return Err(Error::Mismatch { summary });
    }
    let pos_interpolation = back.pos_interpolation;
    let merged = backbone.model.num_register_tokens > 0 && network.style == KeyStyle::Timm;
    let mut worst = 0f64;
    for (name, tensor) in backbone.tensors {
        let ours = match name.as_str() {
            "mask_token" if !network.backbone.contains_key(name) => continue,
            // Only their sum is stored.
            "cls_token" | "pos_embed" if merged => continue,
            _ => tensor.detach().f_to_device(Device::Cpu)?,
        };
        let recipe = network.backbone.get(name);
        let recipe =
            recipe.ok_or_else(|| Error::Mismatch { summary: format!("missing {name}") })?;
        let theirs = read(&file, recipe)?.f_view_as(&ours)?;
        let wide = |t: &Tensor| t.to_kind(Kind::Double);
        let largest = wide(&ours).abs().max().double_value(&[]).max(f64::MIN_POSITIVE);
        let difference = (wide(&ours) - wide(&theirs)).abs().max().double_value(&[]);
        worst = worst.max(difference / largest);
    }
    Ok(ReadBack { difference: worst, pos_interpolation })
}
