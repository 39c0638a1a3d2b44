//! Reads `config.json` as written by Hugging Face, timm, or simdino's exports.

use serde_json::Value;

use super::grid::Grid;
use super::json::Json;
use super::stated::{Beside, Size};
use crate::config::PosInterpolation;
use crate::error::Result;

/// The supported model types of Hugging Face, with the default epsilon of their norms.
const HF_TYPES: [(&str, f64); 5] = [
    ("vit", 1e-12),
    ("vit_mae", 1e-12),
    ("vit_msn", 1e-6),
    ("dinov2", 1e-6),
    ("dinov2_with_registers", 1e-6),
];
/// The default number of attention heads of all of these types.
const HF_HEADS: i64 = 12;

/// Prefixes of the timm architectures that are supported if their tensors and arguments are.
const TIMM_ARCHITECTURES: [&str; 5] = ["vit_", "deit_", "deit3_", "flexivit_", "test_vit"];
/// timm arguments that do not affect features outside of training, or that the tensors determine.
const TIMM_NEUTRAL: [&str; 25] = [
    "img_size",
    "num_classes",
    "global_pool",
    "drop_rate",
    "pos_drop_rate",
    "patch_drop_rate",
    "proj_drop_rate",
    "attn_drop_rate",
    "drop_path_rate",
    "weight_init",
    "fix_init",
    "dynamic_img_size",
    "dynamic_img_pad",
    "strict_img_size",
    "no_embed_class",
    "init_values",
    "mlp_ratio",
    "qkv_bias",
    "class_token",
    "pre_norm",
    "final_norm",
    "fc_norm",
    "pretrained",
    "pretrained_strict",
    "features_only",
];

/// Reads a config of any of the known forms.
pub(super) fn read(json: &Json) -> Result<Beside> {
    let beside = if json.get("architecture").is_some() {
        timm(json)?
    } else if ["model_type", "hidden_size", "num_attention_heads", "hidden_act", "layer_norm_eps"]
        .iter()
        .any(|key| json.get(key).is_some())
    {
        hugging_face(json)?
    } else if json.get("embed_dim").is_some() {
        dinov2(json)?
    } else {
        Beside::default() // this file describes something else
    };
    Ok(Beside { path: json.path.clone(), ..beside })
}

fn sizes(json: &Json, keys: &[(&'static str, Size)]) -> Result<Vec<(&'static str, i64, Size)>> {
    let mut sizes = Vec::new();
    for &(key, size) in keys {
        let value = match json.get(key) {
            None => continue,
            // The sides of a patch, listed separately.
            Some(Value::Array(sides)) if sides.iter().all(|side| Some(side) == sides.first()) => {
                sides.first().and_then(Value::as_i64)
            }
            Some(value) => value.as_i64(),
        };
        match value {
            Some(value) => sizes.push((key, value, size)),
            None => return json.refused(key, "an integer is"),
        }
    }
    Ok(sizes)
}

/// Returns the initial value of a LayerScale. The features of trained weights do not depend on it,
/// so an invalid value is ignored.
fn layer_scale(json: &Json, key: &str) -> Option<f64> {
    json.get(key)?.as_f64().filter(|value| *value > 0.0 && value.is_finite())
}

fn hugging_face(json: &Json) -> Result<Beside> {
    for key in ["quantization_config", "auto_map"] {
        if json.get(key).is_some() {
            return json.refused(key, "plain weights of the library's own classes are");
        }
    }
    let mut eps = json.number("layer_norm_eps")?;
    let mut heads = json.integer("num_attention_heads")?;
    let mut form = None;
    let mut heads_by_default = false;
    if let Some(kind) = json.text("model_type")? {
        let Some((_, usual)) = HF_TYPES.iter().find(|(name, _)| *name == kind) else {
            let known = HF_TYPES.map(|(name, _)| name).join(", ");
            return json.refused("model_type", &format!("{known} and timm's networks are"));
        };
        eps = eps.or(Some(*usual));
        heads_by_default = heads.is_none();
        heads = heads.or(Some(HF_HEADS));
        // The default of each of their classes.
        form = Some(match kind {
            "dinov2_with_registers" => PosInterpolation::Antialias,
            _ => PosInterpolation::Size,
        });
    }
    let swiglu = json.flag("use_swiglu_ffn")?.unwrap_or(false);
    let exact = ["gelu", "gelu_python"]; // that of the error function
    if json.text("hidden_act")?.is_some_and(|act| !swiglu && !exact.contains(&act)) {
        return json.refused("hidden_act", "the exact GELU (\"gelu\") is");
    }
    let sizes = sizes(
        json,
        &[
            ("hidden_size", Size::Width),
            ("num_hidden_layers", Size::Depth),
            ("patch_size", Size::Patch),
            ("num_channels", Size::Channels),
            ("num_register_tokens", Size::Registers),
        ],
    )?;
    Ok(Beside {
        num_heads: heads,
        heads_by_default,
        grid: Grid::at(json, "image_size")?,
        norm_eps: eps,
        layer_scale: layer_scale(json, "layerscale_value"),
        pos_interpolation: form,
        sizes,
        ..Beside::default()
    })
}

fn timm(json: &Json) -> Result<Beside> {
    let name = json.text("architecture")?.unwrap_or_default();
    let known = TIMM_ARCHITECTURES.iter().any(|front| name.starts_with(front));
    if !known || name.contains("quickgelu") {
        return json.refused("architecture", "plain vision transformers of timm are");
    }
    let mut beside =
        Beside { pos_interpolation: Some(PosInterpolation::Antialias), ..Beside::default() };
    beside.grid = fixed_grid(json)?;
    let Some(arguments) = json.inner("model_args") else { return Ok(beside) };
    let checked = [
        ("embed_dim", Size::Width),
        ("depth", Size::Depth),
        ("patch_size", Size::Patch),
        ("in_chans", Size::Channels),
        ("reg_tokens", Size::Registers),
    ];
    beside.sizes = sizes(&arguments, &checked)?;
    beside.num_heads = arguments.integer("num_heads")?;
    beside.layer_scale = layer_scale(&arguments, "init_values");
    beside.grid = Grid::at(&arguments, "img_size")?.or(beside.grid);
    beside.class_has_position = arguments.flag("no_embed_class")?.map(|without| !without);
    let keys = arguments.value.as_object().into_iter().flat_map(|object| object.keys());
    for key in keys.filter(|key| arguments.get(key).is_some()) {
        let text = arguments.get(key).and_then(Value::as_str).map(str::to_lowercase);
        let fine = match key.as_str() {
            "num_heads" => true,
            "act_layer" => text.as_deref() == Some("gelu"),
            "norm_layer" => text.as_deref() == Some("layernorm"),
            "pos_embed" => text.as_deref() == Some("learn"),
            "qk_norm" | "scale_attn_norm" | "scale_mlp_norm" => {
                arguments.get(key) == Some(&Value::Bool(false))
            }
            key => {
                TIMM_NEUTRAL.contains(&key) || checked.iter().any(|(checked, _)| *checked == key)
            }
        };
        if !fine {
            return arguments.refused(key, "timm's plain vision transformer is");
        }
    }
    Ok(beside)
}

/// Returns the image size of a timm network that accepts only one size. Its arguments take
/// precedence over this.
fn fixed_grid(json: &Json) -> Result<Option<Grid>> {
    let inner = json.inner("pretrained_cfg"); // older files have everything in one object
    let config = inner.as_ref().unwrap_or(json);
    match config.flag("fixed_input_size")? {
        Some(true) => Grid::at(config, "input_size"),
        _ => Ok(None),
    }
}

/// Reads the config that simdino exports for DINOv2's own code.
fn dinov2(json: &Json) -> Result<Beside> {
    let antialias = json.flag("interpolate_antialias")?;
    let offset = json.number("interpolate_offset")?;
    let form = match (antialias, offset) {
        (Some(true), _) => Some(PosInterpolation::Antialias),
        (_, Some(offset)) if offset > 0.0 => Some(PosInterpolation::Offset),
        (None, None) => None,
        _ => Some(PosInterpolation::Size),
    };
    let checked = [
        ("embed_dim", Size::Width),
        ("depth", Size::Depth),
        ("patch_size", Size::Patch),
        ("in_chans", Size::Channels),
        ("num_register_tokens", Size::Registers),
    ];
    Ok(Beside {
        num_heads: json.integer("num_heads")?,
        grid: Grid::at(json, "img_size")?,
        qk_norm: json.flag("qk_norm")?,
        layer_scale: layer_scale(json, "init_values"),
        pos_interpolation: form,
        sizes: sizes(json, &checked)?,
        ..Beside::default()
    })
}
