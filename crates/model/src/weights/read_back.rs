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
    /// Largest relative difference between tensors; infinite if a value read back is not a number.
    /// If timm's layout stores only the sum of the class token and its position, the sums are
    /// compared.
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
    let merged = given.num_register_tokens > 0 && network.style == KeyStyle::Timm;
    let mut worst = 0f64;
    for (name, tensor) in backbone.tensors {
        if name == "mask_token" && !network.backbone.contains_key(name) {
            continue;
        }
        let ours = match merged {
            true => with_merged_class(name, backbone)?,
            false => tensor.shallow_clone(),
        };
        let ours = ours.detach().f_to_device(Device::Cpu)?;
        let recipe = network.backbone.get(name);
        let recipe =
            recipe.ok_or_else(|| Error::Mismatch { summary: format!("missing {name}") })?;
        let theirs = read(&file, recipe)?.f_view_as(&ours)?;
        worst = worst.max(difference(&ours, &theirs)?);
    }
    Ok(ReadBack { difference: worst, pos_interpolation })
}

/// Returns a tensor of a backbone as timm's layout represents it with registers: the class token
/// includes its position, which is 0.
fn with_merged_class(name: &str, backbone: &Backbone<'_>) -> Result<Tensor> {
    let of = |name: &str| {
        let found = backbone.tensors.iter().find(|(other, _)| other == name);
        let found = found.ok_or_else(|| Error::Mismatch { summary: format!("missing {name}") })?;
        Ok::<_, Error>(found.1.detach())
    };
    let tensor = of(name)?;
    Ok(match name {
        "cls_token" => tensor.f_add(&of("pos_embed")?.f_narrow(1, 0, 1)?)?, // [1, 1, D]
        "pos_embed" => {
            let patches = tensor.f_narrow(1, 1, tensor.size()[1] - 1)?; // [1, N, D]
            let class = patches.f_narrow(1, 0, 1)?.f_zeros_like()?; // [1, 1, D]
            Tensor::f_cat(&[class, patches], 1)?
        }
        _ => tensor,
    })
}

/// Returns the largest difference between tensors of the same shape relative to the largest value
/// of the first one; infinite if it is not a number.
fn difference(ours: &Tensor, theirs: &Tensor) -> Result<f64> {
    let (ours, theirs) = (ours.f_to_kind(Kind::Double)?, theirs.f_to_kind(Kind::Double)?);
    let largest = ours.f_abs()?.f_max()?.f_double_value(&[])?.max(f64::MIN_POSITIVE);
    let difference = ours.f_sub(&theirs)?.f_abs()?.f_max()?.f_double_value(&[])? / largest;
    Ok(if difference.is_nan() { f64::INFINITY } else { difference })
}
