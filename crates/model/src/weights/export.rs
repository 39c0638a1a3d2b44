//! Exports a backbone as a folder that other libraries open as their own.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tch::Tensor;

use super::keys;
use super::native::write_safetensors;
use super::step::is_finite;
use crate::config::{Ffn, ModelConfig, PosInterpolation};
use crate::error::{Error, Result};
use crate::normalize::Normalize;

/// File name of the tensors in an exported folder, as the libraries expect it.
pub(crate) const WEIGHTS: &str = "model.safetensors";
const CONFIG: &str = "config.json";
const PREPROCESSOR: &str = "preprocessor_config.json";

/// The library whose names and files an export uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// DINOv2's own code, and DINO's if the network has none of DINOv2's additions.
    Dinov2,
    /// timm: `timm.create_model("local-dir:FOLDER", checkpoint_path="FOLDER/model.safetensors")`.
    Timm,
    /// Hugging Face: `AutoModel.from_pretrained("FOLDER")`, a `Dinov2Model` or, with registers, a
    /// `Dinov2WithRegistersModel`.
    HuggingFace,
}

/// A backbone to export.
#[derive(Debug)]
pub struct Backbone<'a> {
    /// Its tensors by our names.
    pub tensors: &'a [(String, Tensor)],
    /// Its architecture.
    pub model: &'a ModelConfig,
    /// Mean and deviation for normalizing its input.
    pub normalize: Normalize,
}

/// Writes `model.safetensors`, `config.json`, and, for Hugging Face, `preprocessor_config.json`
/// into `folder`, which is created if necessary.
///
/// If a layout requires a tensor that the network does not have, a neutral one is written:
/// a LayerScale of 1 and a mask token of 0 for Hugging Face. With registers, timm stores no
/// position for the class token, so it is added to the token.
///
/// # Errors
/// Returns an error if the library cannot compute the network (`qk_norm`) or cannot store its
/// epsilon (`norm_eps`, except Hugging Face), if a tensor is missing or not finite, if the folder
/// contains a `preprocessor_config.json` that this layout does not replace, so that readers would
/// apply it to the wrong network, or if the folder cannot be written.
pub fn export(folder: &Path, backbone: &Backbone<'_>, layout: Layout) -> Result<()> {
    let tensors = tensors(backbone, layout)?;
    let preprocessor = folder.join(PREPROCESSOR);
    if layout != Layout::HuggingFace && preprocessor.exists() {
        let problem = format!(
            "{} describes how another network preprocesses images: remove it, or export to another \
             folder",
            preprocessor.display()
        );
        return Err(Error::Export { layout: layout.name(), problem });
    }
    let io = |path: &Path, source| Error::Io { action: "write", path: path.to_path_buf(), source };
    fs::create_dir_all(folder).map_err(|source| io(folder, source))?;
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    write_safetensors(&folder.join(WEIGHTS), &tensors, &metadata)?;
    let write = |name: &str, value: &Value| {
        let path = folder.join(name);
        fs::write(&path, format!("{value:#}\n")).map_err(|source| io(&path, source))
    };
    let (model, normalize) = (backbone.model, &backbone.normalize);
    match layout {
        Layout::Dinov2 => write(CONFIG, &dinov2_config(model, normalize)),
        Layout::Timm => write(CONFIG, &timm_config(model, normalize)),
        Layout::HuggingFace => {
            write(CONFIG, &hf_config(model))?;
            write(PREPROCESSOR, &hf_preprocessor(model, normalize))
        }
    }
}

/// Returns the tensors under the names of a layout.
fn tensors(backbone: &Backbone<'_>, layout: Layout) -> Result<Vec<(String, Tensor)>> {
    let model = backbone.model;
    let refuse =
        |problem: &str| Err(Error::Export { layout: layout.name(), problem: problem.into() });
    if layout != Layout::Dinov2 && model.qk_norm {
        return refuse("model.qk_norm has no parameters here, which its networks do not support");
    }
    if layout != Layout::HuggingFace && model.norm_eps != 1e-6 {
        return refuse("model.norm_eps is not 1e-6, and its files cannot store another value");
    }
    let given: BTreeMap<&str, Tensor> =
        backbone.tensors.iter().map(|(name, t)| (name.as_str(), t.detach())).collect();
    for (name, tensor) in &given {
        if !is_finite(tensor)? {
            return refuse(&format!("{name} contains values that are not finite"));
        }
    }
    match layout {
        Layout::Dinov2 => Ok(given.into_iter().map(|(name, t)| (name.to_owned(), t)).collect()),
        Layout::Timm => timm_tensors(&given, model),
        Layout::HuggingFace => hf_tensors(&given, model),
    }
}

fn need(given: &BTreeMap<&str, Tensor>, name: &str) -> Result<Tensor> {
    match given.get(name) {
        Some(tensor) => Ok(tensor.shallow_clone()),
        None => Err(Error::Mismatch { summary: format!("missing {name}") }),
    }
}

fn timm_tensors(
    given: &BTreeMap<&str, Tensor>,
    model: &ModelConfig,
) -> Result<Vec<(String, Tensor)>> {
    let mut out = Vec::new();
    let registers = model.num_register_tokens > 0;
    let positions = need(given, "pos_embed")?; // [1, 1 + N, D]
    for (name, tensor) in given {
        let tensor = match *name {
            "mask_token" => continue, // timm has none
            "cls_token" if registers => tensor + positions.f_narrow(1, 0, 1)?,
            "pos_embed" if registers => tensor.f_narrow(1, 1, tensor.size()[1] - 1)?,
            _ => tensor.shallow_clone(),
        };
        out.push((keys::to_timm(name), tensor));
    }
    Ok(out)
}

fn hf_tensors(
    given: &BTreeMap<&str, Tensor>,
    model: &ModelConfig,
) -> Result<Vec<(String, Tensor)>> {
    let mut out = Vec::new();
    for (name, tensor) in given {
        let Some((block, kind)) = name.split_once(".attn.qkv.") else {
            out.push((keys::to_hf(name), tensor.shallow_clone()));
            continue;
        };
        let layer = block.trim_start_matches("blocks.");
        for (part, rows) in ["query", "key", "value"].into_iter().zip(tensor.f_chunk(3, 0)?) {
            let name = format!("encoder.layer.{layer}.attention.attention.{part}.{kind}");
            out.push((name, rows)); // [3 D, ..] -> [D, ..]
        }
    }
    let norm = need(given, "norm.weight")?; // [D]
    if model.layer_scale.is_none() {
        for layer in 0..model.arch.dimensions().depth {
            for scale in 1..=2 {
                let name = format!("encoder.layer.{layer}.layer_scale{scale}.lambda1");
                out.push((name, norm.ones_like()));
            }
        }
    }
    if !model.mask_token {
        let zeros = norm.zeros_like().f_unsqueeze(0)?; // [D] -> [1, D]
        out.push(("embeddings.mask_token".to_owned(), zeros));
    }
    Ok(out)
}

impl Layout {
    /// Returns the name for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dinov2 => "dinov2",
            Self::Timm => "timm",
            Self::HuggingFace => "Hugging Face",
        }
    }
}

/// Returns the arguments of DINOv2's `DinoVisionTransformer`, and what only simdino reads back.
fn dinov2_config(model: &ModelConfig, normalize: &Normalize) -> Value {
    let dims = model.arch.dimensions();
    json!({
        "img_size": model.image_size,
        "patch_size": model.patch_size,
        "in_chans": model.in_channels,
        "embed_dim": dims.embed_dim,
        "depth": dims.depth,
        "num_heads": model.heads(),
        "mlp_ratio": mlp_ratio(model),
        "init_values": model.layer_scale,
        "ffn_layer": if model.ffn == Ffn::Swiglu { "swiglufused" } else { "mlp" },
        "block_chunks": 0,
        "num_register_tokens": model.num_register_tokens,
        "qk_norm": model.qk_norm,
        "interpolate_antialias": model.pos_interpolation == PosInterpolation::Antialias,
        "interpolate_offset": if model.pos_interpolation == PosInterpolation::Offset { 0.1 } else { 0.0 },
        "image_mean": decimals(&normalize.mean),
        "image_std": decimals(&normalize.std),
    })
}

/// Formats single-precision numbers in their short form: 0.485, not 0.48500001430511475.
fn decimals(values: &[f32]) -> Vec<f64> {
    let decimal = |&value: &f32| value.to_string().parse().unwrap_or_else(|_| f64::from(value));
    values.iter().map(decimal).collect()
}

/// Returns the ratio of the hidden width of the plain feed-forward network to the width. It is
/// slightly larger where truncating the product could otherwise give one less.
fn mlp_ratio(model: &ModelConfig) -> f64 {
    let dims = model.arch.dimensions();
    let ratio = dims.mlp_hidden as f64 / dims.embed_dim as f64;
    if ratio.fract() == 0.0 {
        ratio
    } else {
        (dims.mlp_hidden as f64 + 0.5) / dims.embed_dim as f64
    }
}

/// Writes a number without a fraction as an integer, as transformers 5 requires for integer
/// fields.
fn whole(value: f64) -> Value {
    if value.fract() == 0.0 { json!(value as i64) } else { json!(value) }
}

fn timm_config(model: &ModelConfig, normalize: &Normalize) -> Value {
    let dims = model.arch.dimensions();
    let registers = model.num_register_tokens > 0;
    let swiglu = model.ffn == Ffn::Swiglu;
    let mut arguments = json!({
        "img_size": model.image_size,
        "patch_size": model.patch_size,
        "in_chans": model.in_channels,
        "embed_dim": dims.embed_dim,
        "depth": dims.depth,
        "num_heads": model.heads(),
        "mlp_ratio": mlp_ratio(model),
        "init_values": model.layer_scale,
        "reg_tokens": model.num_register_tokens,
        "no_embed_class": registers,
        "dynamic_img_size": true,
        "global_pool": "token",
        "num_classes": 0,
    });
    if swiglu {
        // timm counts both halves of the gated layer, and rounds the product down.
        let both = 2 * model.ffn_hidden();
        arguments["mlp_ratio"] = json!((both as f64 + 0.5) / dims.embed_dim as f64);
    }
    json!({
        // The arguments above set all sizes, so one architecture of timm serves for every network
        // except gated ones.
        "architecture": if swiglu { "vit_giant_patch14_dinov2" } else { "vit_base_patch16_224" },
        "num_classes": 0,
        "num_features": dims.embed_dim,
        "global_pool": "token",
        "model_args": arguments,
        "pretrained_cfg": {
            "tag": "simdino",
            "custom_load": false,
            "input_size": [model.in_channels, model.image_size, model.image_size],
            "fixed_input_size": false,
            "interpolation": "bicubic",
            "crop_pct": 0.875,
            "crop_mode": "center",
            "mean": decimals(&normalize.mean),
            "std": decimals(&normalize.std),
            "num_classes": 0,
            "pool_size": null,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    })
}

fn hf_config(model: &ModelConfig) -> Value {
    let dims = model.arch.dimensions();
    let registers = model.num_register_tokens > 0;
    let mut config = json!({
        "architectures": [if registers { "Dinov2WithRegistersModel" } else { "Dinov2Model" }],
        "model_type": if registers { "dinov2_with_registers" } else { "dinov2" },
        "hidden_size": dims.embed_dim,
        "num_hidden_layers": dims.depth,
        "num_attention_heads": model.heads(),
        "mlp_ratio": whole(mlp_ratio(model)),
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": model.norm_eps,
        "image_size": model.image_size,
        "patch_size": model.patch_size,
        "num_channels": model.in_channels,
        "qkv_bias": true,
        "layerscale_value": model.layer_scale.unwrap_or(1.0),
        "drop_path_rate": 0.0,
        "use_swiglu_ffn": model.ffn == Ffn::Swiglu,
        "apply_layernorm": true,
        "reshape_hidden_states": true,
        "torch_dtype": "float32",
    });
    if registers {
        config["num_register_tokens"] = model.num_register_tokens.into();
    } else {
        config["use_mask_token"] = true.into();
    }
    config
}

fn hf_preprocessor(model: &ModelConfig, normalize: &Normalize) -> Value {
    let side = model.image_size;
    json!({
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": model.in_channels == 3,
        "do_resize": true,
        "size": {"shortest_edge": side * 8 / 7},
        "resample": 3, // bicubic
        "do_center_crop": true,
        "crop_size": {"height": side, "width": side},
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": decimals(&normalize.mean),
        "image_std": decimals(&normalize.std),
    })
}

/// Returns the Python code that opens an exported folder.
pub fn loading_lines(folder: &Path, layout: Layout) -> [String; 2] {
    let folder = folder.display();
    match layout {
        Layout::Dinov2 => [
            "from safetensors.torch import load_file".to_owned(),
            // DINOv2's code has no function that reads its arguments from a file.
            format!(
                "model.load_state_dict(load_file(\"{folder}/{WEIGHTS}\"))  # model: a \
                 DinoVisionTransformer with the arguments in config.json"
            ),
        ],
        Layout::Timm => [
            "import timm".to_owned(),
            // With `pretrained=True`, timm 1.0.22 treats every file in a folder as a pickle.
            format!(
                "model = timm.create_model(\"local-dir:{folder}\", \
                 checkpoint_path=\"{folder}/{WEIGHTS}\").eval()"
            ),
        ],
        Layout::HuggingFace => [
            "from transformers import AutoModel".to_owned(),
            format!("model = AutoModel.from_pretrained(\"{folder}\").eval()"),
        ],
    }
}
