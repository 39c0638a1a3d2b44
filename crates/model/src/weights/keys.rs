//! Key styles of other projects, and the style of this crate's parameters.
//!
//! Ours is DINOv2's: `blocks.0.attn.qkv.weight`. The table is in `docs/EXPORT.md`.

use std::collections::BTreeMap;

/// Components that training code adds to keys, at any position.
const WRAPPERS: [&str; 4] =
    ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

/// The project whose names a file uses for its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyStyle {
    /// DINO, DINOv2, SimDINO, SimDINOv2, and simdino; also timm's plain transformers.
    Dino,
    /// timm's names where they differ: with registers, SwiGLU, or no position for the class token.
    Timm,
    /// Hugging Face `Dinov2Model` and `Dinov2WithRegistersModel`.
    HfDinov2,
    /// Hugging Face `ViTModel`.
    HfVit,
}

impl KeyStyle {
    /// Returns the name for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dino => "DINO / DINOv2",
            Self::Timm => "timm",
            Self::HfDinov2 => "Hugging Face Dinov2",
            Self::HfVit => "Hugging Face ViT",
        }
    }
}

/// Removes wrappers from `key`, and the number of a chunk of blocks (`blocks.<chunk>.<block>.`).
pub(super) fn cleaned(key: &str) -> String {
    let mut parts: Vec<&str> = key.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
    let number = |part: Option<&&str>| part.is_some_and(|part| part.parse::<u32>().is_ok());
    if let Some(at) = parts.iter().position(|&part| part == "blocks")
        && number(parts.get(at + 1))
        && number(parts.get(at + 2))
    {
        parts.remove(at + 1);
    }
    parts.join(".")
}

/// How one of our tensors is assembled from tensors of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Recipe {
    /// Unchanged; a different shape with the same number of elements is viewed as ours.
    Whole(String),
    /// Concatenated along the first dimension: queries, keys, values.
    Stacked([String; 3]),
    /// Positions of patches only. The position of the class token is zero, because the file has
    /// already added it to that token.
    WithoutClass(String),
}

impl Recipe {
    /// Returns the keys of the file that the recipe uses.
    pub(super) fn keys(&self) -> &[String] {
        match self {
            Self::Whole(key) | Self::WithoutClass(key) => std::slice::from_ref(key),
            Self::Stacked(keys) => keys,
        }
    }
}

/// What the shapes of a network reveal about its names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traits {
    /// The key style.
    pub(super) style: KeyStyle,
    /// Whether the positions begin with that of the class token.
    pub(super) class_has_position: bool,
    /// Whether the feed-forward network is gated but has the names of a plain one.
    pub(super) gated: bool,
}

/// Returns recipes by our names for the tensors of one network, given a map from its own (cleaned)
/// keys to those of the file.
pub(super) fn recipes(traits: Traits, keys: &BTreeMap<String, String>) -> BTreeMap<String, Recipe> {
    let style = traits.style;
    let mut recipes = BTreeMap::new();
    for (key, original) in keys {
        let whole = |name: String| (name, Recipe::Whole(original.clone()));
        let (name, recipe) = match style {
            KeyStyle::Dino => whole(key.clone()),
            KeyStyle::Timm => whole(from_timm(key, traits.gated)),
            KeyStyle::HfDinov2 | KeyStyle::HfVit => match from_hf(style, key) {
                Hf::Named(name) => whole(name),
                Hf::Part { name, index, sibling } => {
                    let parts = ["query", "key", "value"].map(|part| keys.get(&sibling(part)));
                    match parts {
                        // Without one of the three, the other two are unused.
                        [Some(q), Some(k), Some(v)] if index == 0 => {
                            (name, Recipe::Stacked([q, k, v].map(String::clone)))
                        }
                        [Some(_), Some(_), Some(_)] => continue, // taken together with the queries
                        _ => whole(key.clone()),
                    }
                }
            },
        };
        let name = layer_scale(&name).unwrap_or(name);
        let recipe = match recipe {
            Recipe::Whole(key) if name == "pos_embed" && !traits.class_has_position => {
                Recipe::WithoutClass(key)
            }
            other => other,
        };
        // A second tensor for the same parameter is still accounted for, but not under one of our
        // names.
        let name = if recipes.contains_key(&name) { format!("second {name} {key}") } else { name };
        recipes.insert(name, recipe);
    }
    recipes
}

/// Returns our name for a LayerScale under any of its common names: `blocks.0.gamma_1`,
/// `blocks.0.ls1.weight`, `blocks.0.layer_scale_1.scale_factor`.
fn layer_scale(name: &str) -> Option<String> {
    const VALUES: [&str; 7] =
        ["gamma", "weight", "scale", "scale_factor", "lambda", "lambda1", "lambda2"];
    let (block, rest) = name.strip_prefix("blocks.")?.split_once('.')?;
    let (module, value) = rest.split_once('.').map_or((rest, None), |(m, v)| (m, Some(v)));
    if value.is_some_and(|value| !VALUES.contains(&value)) {
        return None;
    }
    let which = match module.replace('_', "").as_str() {
        "ls1" | "layerscale1" | "gamma1" | "lambda1" => 1,
        "ls2" | "layerscale2" | "gamma2" | "lambda2" => 2,
        _ => return None,
    };
    Some(format!("blocks.{block}.ls{which}.gamma"))
}

/// Returns whether our backbone can have a tensor with this name.
pub(super) fn is_ours(name: &str) -> bool {
    const ALONE: [&str; 4] = ["cls_token", "pos_embed", "register_tokens", "mask_token"];
    const LAYERS: [&str; 8] =
        ["norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "mlp.w12", "mlp.w3"];
    fn layer(name: &str) -> Option<&str> {
        name.strip_suffix(".weight").or_else(|| name.strip_suffix(".bias"))
    }
    match name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')) {
        Some((index, rest)) => {
            let known = |rest: &str| layer(rest).is_some_and(|layer| LAYERS.contains(&layer));
            let scale = ["ls1.gamma", "ls2.gamma"].contains(&rest);
            index.parse::<u32>().is_ok() && (scale || known(rest))
        }
        None => {
            let known = |layer| ["norm", "patch_embed.proj"].contains(&layer);
            ALONE.contains(&name) || layer(name).is_some_and(known)
        }
    }
}

fn from_timm(key: &str, gated: bool) -> String {
    match key {
        "reg_token" => "register_tokens".to_owned(),
        _ if gated => key.replace(".mlp.fc1.", ".mlp.w12.").replace(".mlp.fc2.", ".mlp.w3."),
        _ => key.to_owned(),
    }
}

/// The meaning of a Hugging Face key.
enum Hf<'a> {
    Named(String),
    /// One of queries, keys, and values, which form one tensor here.
    Part {
        name: String,
        index: usize,
        sibling: Box<dyn Fn(&str) -> String + 'a>,
    },
}

/// Pairs of their and our names inside a layer, for both Hugging Face families.
const HF_LAYER: [(&str, &str); 12] = [
    ("norm1", "norm1"),
    ("norm2", "norm2"),
    ("attention.output.dense", "attn.proj"),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
    ("mlp.fc1", "mlp.fc1"),
    ("mlp.fc2", "mlp.fc2"),
    ("mlp.weights_in", "mlp.w12"),
    ("mlp.weights_out", "mlp.w3"),
    // ViTModel
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
    ("intermediate.dense", "mlp.fc1"),
];

/// Pairs of their and our names outside of layers.
const HF_OUTSIDE: [(&str, &str); 6] = [
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.mask_token", "mask_token"),
    ("embeddings.register_tokens", "register_tokens"),
    ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("layernorm", "norm"),
];

fn from_hf(style: KeyStyle, key: &str) -> Hf<'_> {
    let Some(rest) = key.strip_prefix("encoder.layer.") else {
        return Hf::Named(renamed(key, &HF_OUTSIDE));
    };
    let Some((layer, rest)) = rest.split_once('.') else { return Hf::Named(key.to_owned()) };
    let ours = |rest: &str| format!("blocks.{layer}.{rest}");
    if let Some(part) = rest.strip_prefix("attention.attention.") {
        let (which, kind) = part.split_once('.').unwrap_or((part, ""));
        let index = ["query", "key", "value"].iter().position(|name| *name == which);
        let Some(index) = index else { return Hf::Named(key.to_owned()) };
        let sibling =
            move |part: &str| format!("encoder.layer.{layer}.attention.attention.{part}.{kind}");
        let name = ours(&format!("attn.qkv.{kind}"));
        return Hf::Part { name, index, sibling: Box::new(sibling) };
    }
    // `output.dense` is the end of the feed-forward network in ViTModel, and does not exist in
    // Dinov2Model.
    match rest.strip_prefix("output.dense.") {
        Some(kind) if style == KeyStyle::HfVit => Hf::Named(ours(&format!("mlp.fc2.{kind}"))),
        _ => Hf::Named(ours(&renamed(rest, &HF_LAYER))),
    }
}

/// Replaces the prefix of `key` that is listed in `table`.
fn renamed(key: &str, table: &[(&str, &str)]) -> String {
    for (theirs, ours) in table {
        if let Some(rest) = key.strip_prefix(theirs)
            && (rest.is_empty() || rest.starts_with('.'))
        {
            return format!("{ours}{rest}");
        }
    }
    key.to_owned()
}

/// Returns the Hugging Face name of one of our tensors that is a single tensor there, too.
pub(super) fn to_hf(name: &str) -> String {
    let Some(rest) = name.strip_prefix("blocks.") else {
        return inverse(name, &HF_OUTSIDE);
    };
    match rest.split_once('.') {
        Some((layer, rest)) => format!("encoder.layer.{layer}.{}", inverse(rest, &HF_LAYER[..9])),
        None => name.to_owned(),
    }
}

fn inverse(name: &str, table: &[(&str, &str)]) -> String {
    for (theirs, ours) in table {
        if let Some(rest) = name.strip_prefix(ours)
            && (rest.is_empty() || rest.starts_with('.'))
        {
            return format!("{theirs}{rest}");
        }
    }
    name.to_owned()
}

/// Returns timm's name for one of our tensors.
pub(super) fn to_timm(name: &str) -> String {
    match name {
        "register_tokens" => "reg_token".to_owned(),
        _ => name.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_and_chunks_are_removed_wherever_they_stand() {
        for (key, expected) in [
            ("norm.weight", "norm.weight"),
            ("module._orig_mod.module.norm.weight", "norm.weight"),
            (
                "teacher.module.backbone.blocks.0._fsdp_wrapped_module.norm1.bias",
                "teacher.backbone.blocks.0.norm1.bias",
            ),
            ("blocks.3.11.attn.qkv.weight", "blocks.11.attn.qkv.weight"),
            ("blocks.3.attn.qkv.weight", "blocks.3.attn.qkv.weight"),
            ("backbone.blocks.0.2.mlp.w12.bias", "backbone.blocks.2.mlp.w12.bias"),
        ] {
            assert_eq!(cleaned(key), expected);
        }
    }

    #[test]
    fn a_layer_scale_is_known_by_all_its_names() {
        let names = ["gamma_1", "gamma1", "ls1", "ls1.gamma", "ls1.weight", "ls1.scale_factor"];
        let more = ["lambda_1", "lambda1", "layer_scale_1.scale", "layer_scale1.lambda1"];
        for name in names.iter().chain(&more) {
            let found = layer_scale(&format!("blocks.3.{name}"));
            assert_eq!(found.as_deref(), Some("blocks.3.ls1.gamma"), "{name}");
        }
        assert_eq!(layer_scale("blocks.3.gamma_2").as_deref(), Some("blocks.3.ls2.gamma"));
        for name in ["blocks.3.norm1.weight", "gamma_1", "blocks.3.ls1.bias", "blocks.3.gamma_3"] {
            assert_eq!(layer_scale(name), None, "{name}");
        }
    }

    #[test]
    fn names_of_ours_are_told_from_others() {
        for name in ["cls_token", "norm.bias", "blocks.11.attn.qkv.bias", "blocks.0.ls2.gamma"] {
            assert!(is_ours(name), "{name}");
        }
        for name in ["norm_pre.weight", "blocks.0.attn.q_norm.weight", "blocks.0.gamma_1", "head"] {
            assert!(!is_ours(name), "{name}");
        }
    }

    #[test]
    fn hugging_face_names_go_both_ways() {
        for (ours, theirs) in [
            ("cls_token", "embeddings.cls_token"),
            ("patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight"),
            ("norm.bias", "layernorm.bias"),
            ("blocks.7.norm1.weight", "encoder.layer.7.norm1.weight"),
            ("blocks.7.attn.proj.bias", "encoder.layer.7.attention.output.dense.bias"),
            ("blocks.7.ls2.gamma", "encoder.layer.7.layer_scale2.lambda1"),
            ("blocks.7.mlp.w12.weight", "encoder.layer.7.mlp.weights_in.weight"),
            ("blocks.7.mlp.fc2.weight", "encoder.layer.7.mlp.fc2.weight"),
        ] {
            assert_eq!(to_hf(ours), theirs);
            let Hf::Named(back) = from_hf(KeyStyle::HfDinov2, theirs) else { unreachable!() };
            assert_eq!(back, ours);
        }
        let Hf::Named(fc2) = from_hf(KeyStyle::HfVit, "encoder.layer.0.output.dense.weight") else {
            unreachable!()
        };
        assert_eq!(fc2, "blocks.0.mlp.fc2.weight");
    }
}
