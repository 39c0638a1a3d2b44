//! Infers the architecture of a network from the shapes of its tensors.

use std::collections::BTreeMap;

use super::beside::Beside;
use super::file::TensorFile;
use super::keys::{KeyStyle, Recipe};
use super::networks::NetworkInFile;
use super::{shorten, unknown};
use crate::config::{Arch, Ffn, HeadConfig, ModelConfig, PosInterpolation};
use crate::error::{Error, Result};

mod positions;

pub(super) use positions::check_positions;

/// The initial value of a LayerScale if no file states it: the one in DINOv2's code.
const USUAL_LAYER_SCALE: f64 = 1e-5;

/// An architecture inferred from tensors.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Inferred {
    /// The backbone.
    pub model: ModelConfig,
    /// The head, if the file has one.
    pub head: Option<HeadConfig>,
    /// Values that the tensors do not determine and that were assumed, each with the key that sets
    /// it.
    pub assumed: Vec<String>,
}

/// Infers the architecture of a network in a file. A file written by simdino states it in its
/// entries; for all others, it follows from shapes and from the `config.json` of Hugging Face or
/// timm beside the file.
///
/// The tensors do not determine the number of heads, the epsilon of the norms, the interpolation
/// of positions, the initial value of a LayerScale, or whether queries and keys are normalized.
/// Without a config, they are assumed to be, in this order, the number of heads of the [`Arch`],
/// 1e-6, the form of the library whose key names the file uses (for DINO: offset, or antialiased
/// with registers), 1e-5, and not normalized.
///
/// # Errors
/// Returns an error if required tensors are missing or do not match, if no [`Arch`] has this
/// width, depth, and hidden width, if a config describes a different or unsupported network, or if
/// what a file of simdino states about its network cannot be parsed.
pub fn infer(file: &TensorFile, network: &NetworkInFile) -> Result<Inferred> {
    if let Some(stated) = stated(file, network)? {
        return Ok(stated);
    }
    let shapes = Shapes { file, recipes: &network.backbone, network };
    let model = shapes.model().map_err(|error| of_parts(file, network, error))?;
    let beside = Beside::of(file)?;
    let model = beside.complete(model)?;
    let doubt = shapes.check_positions(&beside)?;
    let mut assumed = assumed(&model, &beside, network.style, file);
    assumed.extend(doubt);
    let shapes = Shapes { recipes: &network.head, ..shapes };
    let head = shapes.head();
    let separate_patch_head = network.has_patch_head();
    let of_patches = Shapes { recipes: &network.patch_head, ..shapes }.head();
    let head = head.map(|head| {
        let patch_out_dim = of_patches.map(|patches| patches.out_dim);
        let patch_out_dim = patch_out_dim.filter(|&width| width != head.out_dim);
        HeadConfig { separate_patch_head, patch_out_dim, ..head }
    });
    Ok(Inferred { model, head, assumed })
}

/// Adds the unsupported parts of the network to an error about its architecture.
fn of_parts(file: &TensorFile, network: &NetworkInFile, error: Error) -> Error {
    let strange = network.unknown();
    let Error::Architecture { problem, .. } = &error else { return error };
    if strange.is_empty() {
        return error;
    }
    let hint = unknown::hint(&strange).filter(|hint| !problem.contains(hint));
    let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
    let names = shorten(&strange);
    let problem = format!("{problem}; it has parts of another kind of network: {names}{hint}");
    Error::Architecture { path: file.path().to_path_buf(), problem }
}

/// Lists the values that neither the tensors nor a file beside them determine.
fn assumed(
    model: &ModelConfig,
    beside: &Beside,
    style: KeyStyle,
    file: &TensorFile,
) -> Vec<String> {
    let mut assumed = Vec::new();
    if beside.num_heads.is_none() {
        assumed.push(format!("model.num_heads: {} attention heads", model.heads()));
    }
    if beside.norm_eps.is_none() {
        assumed.push(format!("model.norm_eps: {:e}", model.norm_eps));
    }
    if let (Some(value), None) = (model.layer_scale, beside.layer_scale) {
        assumed.push(format!(
            "model.layer_scale: {value:e} before training, which matters only for the same network \
             untrained"
        ));
    }
    if beside.pos_interpolation.is_none() {
        let form = match (style, model.pos_interpolation) {
            (KeyStyle::Timm, _) => "antialias, as in timm",
            (_, PosInterpolation::Antialias) => "antialias, as in DINOv2 with registers",
            (_, PosInterpolation::Size) => "size, as in transformers",
            (_, PosInterpolation::Offset) => "offset, as in DINO and DINOv2",
        };
        assumed.push(format!("model.pos_interpolation: {form}"));
    }
    let says_norm = |(key, value): (&String, &String)| {
        let key = key.rsplit('.').next().unwrap_or(key);
        ["qknorm", "qk_norm"].contains(&key) && value.eq_ignore_ascii_case("true")
    };
    if beside.qk_norm.is_none() && file.entries().iter().any(says_norm) {
        assumed.push(
            "model.qk_norm: false, although the file's config sets it: SimDINOv2's code skips the \
             norm when xformers computes attention; set model.qk_norm=true if yours did not"
                .to_owned(),
        );
    }
    assumed
}

/// Reads what a simdino file states about itself. If that cannot be parsed, it is an error, because
/// an architecture inferred instead could be a different one.
fn stated(file: &TensorFile, network: &NetworkInFile) -> Result<Option<Inferred>> {
    let entry = |key: &str| file.entries().get(key).map(String::as_str);
    let (Some("simdino"), Some(model)) = (entry("format"), entry("model")) else {
        return Ok(None);
    };
    let unread = |key: &str, error: serde_json::Error| Error::Architecture {
        path: file.path().to_path_buf(),
        problem: format!(
            "the file's description of its {key} cannot be read ({error}): open it with the \
             version of simdino that wrote it"
        ),
    };
    let model = serde_json::from_str(model).map_err(|error| unread("model", error))?;
    let head = entry("head").filter(|_| network.has_head());
    let head = head.map(serde_json::from_str).transpose();
    Ok(Some(Inferred { model, head: head.map_err(|e| unread("head", e))?, assumed: Vec::new() }))
}

struct Shapes<'a> {
    file: &'a TensorFile,
    recipes: &'a BTreeMap<String, Recipe>,
    network: &'a NetworkInFile,
}

impl Shapes<'_> {
    /// Returns the shape in the file of the tensor that has this name in our model.
    fn get(&self, name: &str) -> Option<&[i64]> {
        let key = self.recipes.get(name)?.keys().first()?;
        Some(self.file.info(key)?.shape)
    }

    fn need<const N: usize>(&self, name: &str) -> Result<[i64; N]> {
        let Some(shape) = self.get(name) else {
            return Err(self.error(format!("there is no {name} in the file")));
        };
        shape.try_into().map_err(|_| {
            self.error(format!(
                "{name} should have {N} dimensions, but has the shape {shape:?} in the file"
            ))
        })
    }

    fn error(&self, problem: String) -> Error {
        Error::Architecture { path: self.file.path().to_path_buf(), problem }
    }

    fn model(&self) -> Result<ModelConfig> {
        let [_, _, embed_dim] = self.need::<3>("cls_token")?;
        if self.get("pos_embed").is_none() {
            return Err(self.error(self.network.without_positions()));
        }
        let [kernels, in_channels, patch_size, other] = self.need("patch_embed.proj.weight")?;
        if kernels != embed_dim || patch_size != other || patch_size < 1 {
            let got = [kernels, in_channels, patch_size, other];
            return Err(self.error(format!(
                "a patch embedding of shape {got:?} for a width of {embed_dim} is not supported"
            )));
        }
        let depth = self.depth();
        let swiglu = self.get("blocks.0.mlp.w12.weight").is_some();
        let ffn = if swiglu { Ffn::Swiglu } else { Ffn::Mlp };
        let hidden = self.hidden();
        if hidden == 0 {
            let problem = "its first block has no feed-forward network of a known name".to_owned();
            return Err(self.error(problem));
        }
        let arch = arch(embed_dim, depth, ffn, hidden).ok_or_else(|| {
            self.error(format!(
                "no supported architecture has width {embed_dim}, {depth} blocks, and feed-forward \
                 width {hidden}; those supported are, as width x blocks (feed-forward width): {}",
                table(ffn)
            ))
        })?;
        let side = self.side()?;
        let registers = self.get("register_tokens").and_then(|s| s.get(1)).copied();
        let model = ModelConfig {
            arch,
            patch_size,
            image_size: side.saturating_mul(patch_size),
            in_channels,
            num_register_tokens: registers.unwrap_or(0),
            mask_token: self.get("mask_token").is_some(),
            layer_scale: self.get("blocks.0.ls1.gamma").map(|_| USUAL_LAYER_SCALE),
            ffn,
            pos_interpolation: match (self.network.style, registers) {
                (_, Some(_)) | (KeyStyle::Timm, _) => PosInterpolation::Antialias,
                (KeyStyle::HfDinov2 | KeyStyle::HfVit, None) => PosInterpolation::Size,
                (KeyStyle::Dino, None) => PosInterpolation::Offset,
            },
            drop_path_rate: 0.0,
            ..ModelConfig::default()
        };
        match model.validate().first() {
            Some((key, problem)) => Err(self.error(format!("model.{key} {problem}"))),
            None => Ok(model),
        }
    }

    /// Returns the number of blocks in the file.
    fn depth(&self) -> i64 {
        let indices = self.recipes.keys().filter_map(|name| {
            name.strip_prefix("blocks.")?.split('.').next()?.parse::<i64>().ok()
        });
        indices.max().map_or(0, |last| last.saturating_add(1))
    }

    /// Returns the hidden width of the feed-forward network in the first block; 0 if there is none.
    fn hidden(&self) -> i64 {
        let weights = ["blocks.0.mlp.fc2.weight", "blocks.0.mlp.w3.weight"]; // [D, hidden]
        let found = weights.into_iter().find_map(|name| self.get(name)?.get(1).copied());
        found.unwrap_or(0)
    }

    /// Returns the side of the grid that the positions belong to.
    fn side(&self) -> Result<i64> {
        let [one, count, _] = self.need::<3>("pos_embed")?;
        if one != 1 {
            return Err(
                self.error(format!("{one} sets of positions instead of one are not supported"))
            );
        }
        let class = !matches!(self.recipes.get("pos_embed"), Some(Recipe::WithoutClass(_)));
        let patches = count - i64::from(class);
        let side = (patches.max(0) as f64).sqrt().round() as i64;
        if side < 1 || side.checked_mul(side) != Some(patches) {
            return Err(self.error(format!(
                "positions for {patches} patches, which do not form a square grid, are not \
                 supported"
            )));
        }
        Ok(side)
    }

    /// Returns the projection head, if there is a supported one.
    fn head(&self) -> Option<HeadConfig> {
        let mut linear: Vec<(i64, [i64; 2])> = self
            .recipes
            .keys()
            .filter_map(|name| {
                let rest = name.strip_prefix("mlp.")?;
                let index = match rest {
                    "weight" => 0,
                    _ => rest.strip_suffix(".weight")?.parse().ok()?,
                };
                Some((index, self.get(name)?.try_into().ok()?)) // norms have one dimension
            })
            .collect();
        linear.sort_unstable();
        let (&(_, first), &(_, last)) = (linear.first()?, linear.last()?);
        let prototypes = self.get("last_layer.weight_v").and_then(|s| s.first()).copied();
        let config = HeadConfig {
            hidden_dim: if linear.len() > 1 { first[0] } else { HeadConfig::default().hidden_dim },
            out_dim: last[0],
            num_layers: linear.len() as i64,
            use_bn: self.recipes.keys().any(|name| name.ends_with(".running_mean")),
            prototypes: prototypes.unwrap_or(0),
            ..HeadConfig::default()
        };
        config.validate().is_empty().then_some(config)
    }
}

/// All architectures.
const ARCHS: [Arch; 10] = [
    Arch::VitNano,
    Arch::VitTiny,
    Arch::VitSmall,
    Arch::VitBase,
    Arch::VitLarge,
    Arch::VitSo150m,
    Arch::VitSo150m2,
    Arch::VitSo300m,
    Arch::VitSo400m,
    Arch::VitGiant2,
];

fn arch(embed_dim: i64, depth: i64, ffn: Ffn, hidden: i64) -> Option<Arch> {
    ARCHS.into_iter().find(|&arch| {
        let dims = arch.dimensions();
        (dims.embed_dim, dims.depth, ffn.hidden(arch)) == (embed_dim, depth, hidden)
    })
}

fn table(ffn: Ffn) -> String {
    let sizes = ARCHS.map(|arch| {
        let dims = arch.dimensions();
        format!("{} x {} ({})", dims.embed_dim, dims.depth, ffn.hidden(arch))
    });
    sizes.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_architecture_is_known() {
        // The error about an unknown name lists all names.
        let error = serde_json::from_str::<Arch>("\"\"").unwrap_err().to_string();
        let names = ARCHS
            .map(|arch| format!("`{}`", serde_json::to_value(arch).unwrap().as_str().unwrap()));
        assert!(error.contains(&format!("expected one of {}", names.join(", "))), "{error}");
        assert!(error.contains(&format!("{} at", names[names.len() - 1])), "{error}");
    }

    #[test]
    fn architectures_of_one_width_and_depth_are_told_by_their_feed_forward_network() {
        assert_eq!(arch(1024, 24, Ffn::Mlp, 4096), Some(Arch::VitLarge));
        assert_eq!(arch(1024, 24, Ffn::Mlp, 3456), Some(Arch::VitSo300m));
        assert_eq!(arch(1024, 24, Ffn::Swiglu, 2736), Some(Arch::VitLarge));
        assert_eq!(arch(1024, 24, Ffn::Mlp, 2736), None);
        for ffn in [Ffn::Mlp, Ffn::Swiglu] {
            for known in ARCHS {
                let dims = known.dimensions();
                let found = arch(dims.embed_dim, dims.depth, ffn, ffn.hidden(known));
                assert_eq!(found, Some(known));
            }
        }
    }
}
