//! Opens a backbone from any weight file in one call: a file of simdino, which states its own
//! architecture, or one of DINO, DINOv2, timm, or Hugging Face, whose tensors determine it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tch::{Device, Tensor, nn};

use super::architecture::infer;
use super::beside::normalization;
use super::file::TensorFile;
use super::import::{ImportPolicy, Target, import};
use super::locate::find;
use super::named_variables;
use super::native::write_safetensors;
use super::networks::networks;
use super::report::ImportReport;
use super::roles::Role;
use crate::config::{HeadConfig, ModelConfig};
use crate::error::{Error, Result};
use crate::normalize::Normalize;
use crate::vit::VisionTransformer;

/// A backbone, the variables that store it, and the information from its file.
///
/// ```
/// use model::weights::{PretrainedBackbone, named_variables, write_safetensors};
/// use model::{Arch, Mode, ModelConfig, VisionTransformer};
/// use tch::{Device, Kind, Tensor, nn};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("model.safetensors");
/// # let made = nn::VarStore::new(Device::Cpu);
/// # let config = ModelConfig { arch: Arch::VitNano, image_size: 64, ..ModelConfig::default() };
/// # VisionTransformer::new(&made.root(), &config)?;
/// # write_safetensors(&path, &named_variables(&made), &[].into())?;
/// // A .pth or safetensors file, or the folder of one.
/// let pretrained = PretrainedBackbone::open(&path, Device::Cpu)?;
/// assert_eq!((pretrained.model.arch, pretrained.model.patch_size), (Arch::VitNano, 16));
/// for assumption in &pretrained.assumed {
///     println!("the file does not say, so it is assumed: {assumption}");
/// }
///
/// let pixels = vec![128; 2 * 64 * 64 * 3]; // two images
/// let images = pretrained.normalize.apply(&pixels, [2, 64, 64], Device::Cpu)?;
/// let cls = tch::no_grad(|| pretrained.backbone.forward_cls(&images, Mode::Eval))?;
/// assert_eq!(cls.size(), [2, 128]);
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct PretrainedBackbone {
    /// The vision transformer. Its parameters take no gradients.
    pub backbone: VisionTransformer,
    /// The architecture.
    pub model: ModelConfig,
    /// Architecture of the projection head in the file, which is not loaded.
    pub head: Option<HeadConfig>,
    /// Mean and standard deviation for normalizing its input.
    pub normalize: Normalize,
    /// For images of more than 8 bits: the values of each channel that became 0 and 255 in
    /// training, given once if they are the same for all channels; empty if they were the whole
    /// range.
    pub value_range: Vec<[f64; 2]>,
    /// Number of training steps; 0 if the file does not state it.
    pub step: u64,
    /// What happened to every tensor.
    pub report: ImportReport,
    /// Assumptions about values that the file does not state, one sentence each.
    pub assumed: Vec<String>,
    seed: i64,
    vars: nn::VarStore,
}

/// Options for opening a weight file.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Which network to load, and how much of it must be present.
    pub policy: ImportPolicy,
    /// Values of [`ModelConfig`] as `key=value`, with or without the prefix `model.`: they
    /// override values that were read or assumed.
    pub model: Vec<String>,
}

impl PretrainedBackbone {
    /// Loads the teacher at `path`: a weight file, the index of several, or a folder with one of
    /// them (see [`find`]).
    ///
    /// # Errors
    /// Returns an error if there is no such file, it is damaged, or it contains no vision
    /// transformer that is completely supported.
    pub fn open(path: &Path, device: Device) -> Result<Self> {
        Self::open_with(path, &LoadOptions::default(), device)
    }

    /// Loads a network like [`Self::open`], with options.
    ///
    /// # Errors
    /// Same as [`Self::open`]. Also returns [`Error::ModelValue`] for an invalid value.
    pub fn open_with(path: &Path, options: &LoadOptions, device: Device) -> Result<Self> {
        let file = TensorFile::open(&find(path, options.policy.role)?)?;
        let network = options.policy.choose(&file)?;
        let inferred = infer(&file, &network)?;
        let model = overridden(&inferred.model, &options.model)?;
        let mut vars = nn::VarStore::new(device);
        let backbone = VisionTransformer::new(&vars.root(), &model)?;
        let target =
            Target { vars: &vars, model: &model, backbone: "", head: None, patch_head: None };
        let report = import(&file, &target, &options.policy)?;
        vars.freeze();
        let mut assumed = inferred.assumed;
        assumed.retain(|line| !is_stated(line, &options.model));
        if options.policy.prefix.is_none() {
            assumed.extend(chosen_among(&file, &network.prefix));
        }
        let known = normalization(&file, inferred.model.in_channels)?;
        let normalize = known
            .filter(|known| known.mean.len() as i64 == model.in_channels)
            .unwrap_or_else(|| usual(model.in_channels, &mut assumed));
        let number = |key: &str| file.entries().get(key)?.parse::<u64>().ok();
        // Files of earlier versions do not state it; they were made with the full range.
        let value_range = file.entries().get("value_range");
        let value_range = value_range.and_then(|text| serde_json::from_str(text).ok());
        Ok(Self {
            backbone,
            model,
            head: inferred.head,
            normalize,
            value_range: value_range.unwrap_or_default(),
            step: number("step").unwrap_or(0),
            report,
            assumed,
            seed: number("seed").unwrap_or(0) as i64,
            vars,
        })
    }

    /// Returns the same backbone with random weights. For a run of simdino, these are the initial
    /// weights of its training, because its files state the seed.
    ///
    /// # Errors
    /// Returns an error if a libtorch operation fails.
    pub fn untrained(&self) -> Result<VisionTransformer> {
        tch::manual_seed(self.seed);
        let vars = nn::VarStore::new(self.vars.device());
        VisionTransformer::new(&vars.root(), &self.model)
    }

    /// Writes the backbone as a weight file of simdino, with everything that is known about it.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn save(&self, path: &Path, role: Role) -> Result<()> {
        let tensors = self.tensors().into_iter();
        let tensors: Vec<_> =
            tensors.map(|(name, tensor)| (format!("backbone.{name}"), tensor)).collect();
        let header = |source| Error::WeightsHeader { path: path.to_owned(), source };
        write_safetensors(path, &tensors, &self.metadata(role).map_err(header)?)
    }

    /// Returns the metadata of the file, in the form in which the trainer writes it.
    fn metadata(&self, role: Role) -> serde_json::Result<BTreeMap<String, String>> {
        Ok(BTreeMap::from([
            ("format".into(), "simdino".into()),
            ("role".into(), role.name().into()),
            ("step".into(), self.step.to_string()),
            ("seed".into(), (self.seed as u64).to_string()),
            ("model".into(), serde_json::to_string(&self.model)?),
            ("mean".into(), serde_json::to_string(&self.normalize.mean)?),
            ("std".into(), serde_json::to_string(&self.normalize.std)?),
            ("value_range".into(), serde_json::to_string(&self.value_range)?),
            ("imported_from".into(), self.report.path.display().to_string()),
        ]))
    }

    /// Returns the tensors of the backbone, sorted by name.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        named_variables(&self.vars)
    }
}

/// Returns whether the options set the value that was assumed.
fn is_stated(assumption: &str, options: &[String]) -> bool {
    let key = assumption.split(':').next().unwrap_or_default().trim_start_matches("model.");
    options.iter().any(|option| option.trim_start_matches("model.").starts_with(key))
}

/// Describes which network was chosen if a file has several.
fn chosen_among(file: &TensorFile, taken: &str) -> Option<String> {
    let all: Vec<_> = networks(file).into_iter().map(|network| network.prefix).collect();
    let all = (all.len() > 1).then(|| all.join(", "))?;
    Some(format!("using the network {taken} (--prefix chooses another): {all}"))
}

/// Returns the normalization to use if no file states one: that of ImageNet for color, as in nearly
/// all public backbones; for other numbers of channels, one that maps [0, 1] to about the same
/// range.
fn usual(channels: i64, assumed: &mut Vec<String>) -> Normalize {
    if channels == 3 {
        assumed.push("mean and std of the input: those of ImageNet".to_owned());
        return Normalize { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] };
    }
    let of_each = |value: f32| vec![value; usize::try_from(channels).unwrap_or_default()];
    assumed.push("mean and std of the input: 0.5 and 0.25 for each channel".to_owned());
    Normalize { mean: of_each(0.5), std: of_each(0.25) }
}

/// Returns a copy of `model` with the values that `options` set as `key=value`, with or without the
/// prefix `model.`.
fn overridden(model: &ModelConfig, options: &[String]) -> Result<ModelConfig> {
    let mut overridden = model.clone();
    for option in options {
        let Some((key, value)) = option.split_once('=') else {
            return Err(Error::ModelValue(format!("'{option}': expected model.KEY=VALUE")));
        };
        let name = key.strip_prefix("model.").unwrap_or(key);
        let wrong = |error: &serde_json::Error| Error::ModelValue(wrong_value(name, error));
        let mut section = serde_json::to_value(&overridden).map_err(|error| wrong(&error))?;
        let Some(place) = section.get_mut(name) else {
            return Err(Error::ModelValue(unknown_key(option, name, &section)));
        };
        *place = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        overridden = serde_json::from_value(section).map_err(|error| wrong(&error))?;
    }
    Ok(overridden)
}

/// Describes a key that the network does not have.
fn unknown_key(option: &str, name: &str, section: &Value) -> String {
    if name.contains('.') {
        return format!("'{option}': expected model.KEY=VALUE, a value of the network");
    }
    let keys = section.as_object().into_iter().flatten().map(|(key, _)| key.as_str());
    format!("unknown key 'model.{name}': the keys are {}", keys.collect::<Vec<_>>().join(", "))
}

/// Describes a value of the wrong type without the words of Rust's types.
fn wrong_value(name: &str, error: &serde_json::Error) -> String {
    let mut text = error.to_string();
    for front in ["invalid type: ", "invalid value: ", "unknown variant "] {
        text = text.strip_prefix(front).map_or_else(|| text.clone(), |rest| format!("got {rest}"));
    }
    for (rust, plain) in [("i64", "an integer"), ("u32", "an integer"), ("f64", "a number")] {
        text = text.replace(&format!("expected {rust}"), &format!("expected {plain}"));
    }
    format!("model.{name}: {}", text.replace('`', "'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_the_model_are_replaced() {
        let model = ModelConfig::default();
        let options = ["model.pos_interpolation=size", "qk_norm=true", "layer_scale=0.5"];
        let changed = overridden(&model, &options.map(str::to_owned)).unwrap();
        assert!(changed.qk_norm && changed.layer_scale == Some(0.5));
        assert_eq!(changed.pos_interpolation, crate::PosInterpolation::Size);
        for wrong in ["qk_norm", "model.qk_norms=true", "model.arch=vit_huge"] {
            let error = overridden(&model, &[wrong.to_owned()]).unwrap_err();
            assert!(matches!(error, Error::ModelValue(_)), "{wrong}: {error}");
        }
        for (wrong, expected) in [
            (
                "train.epochs=1",
                "'train.epochs=1': expected model.KEY=VALUE, a value of the network",
            ),
            ("foo=1", "unknown key 'model.foo': the keys are arch, "),
            ("num_heads=many", "model.num_heads: got string \"many\", expected an integer"),
            ("model.arch=vit_huge", "model.arch: got 'vit_huge', expected one of 'vit_nano', "),
        ] {
            let error = overridden(&model, &[wrong.to_owned()]).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
