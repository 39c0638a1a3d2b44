//! A backbone from any weight file: one of simdino, which says its own architecture, or one of
//! DINO, DINOv2, timm or Hugging Face, whose tensors tell it.

use std::fs;
use std::path::{Path, PathBuf};

use data::{DataConfig, PixelFormat};
use model::VisionTransformer;
use model::config::{HeadConfig, ModelConfig};
use model::normalize::Normalize;
use model::weights::{
    ImportPolicy, ImportReport, Role, Target, TensorFile, import, infer, is_index, is_part,
    networks, normalization,
};
use serde_json::Value;
use tch::{Device, nn};

use crate::console::note;
use crate::failure::{Context, Failure, Result};

/// A backbone, the variables that hold it, and what its file says about it.
pub struct Weights {
    /// The vision transformer.
    pub backbone: VisionTransformer,
    /// The architecture.
    pub model: ModelConfig,
    /// Head beside it in the file, which is not loaded.
    pub head: Option<HeadConfig>,
    /// Mean and deviation that its input is normalized with.
    pub normalize: Normalize,
    /// Which values of deeper images it takes for 0 and 255, see `data.value_range`.
    pub value_range: Vec<[f64; 2]>,
    /// Steps it was trained for; 0 where the file does not say.
    pub step: u64,
    /// What became of every tensor.
    pub report: ImportReport,
    /// What the file does not say and was assumed.
    pub assumed: Vec<String>,
    seed: i64,
    vars: nn::VarStore,
}

/// What is asked of a weight file beside its name.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Which network, and how much of it must be there.
    pub policy: ImportPolicy,
    /// Values of the section `model`, as `key=value`, in the place of what was read or assumed.
    pub model: Vec<String>,
}

impl Weights {
    /// Reads the teacher at `path`, or the network whose keys begin with `prefix`: a weight file, an
    /// exported folder, a checkpoint, or a run (its weights, or the newest checkpoint). Says what had
    /// to be assumed.
    ///
    /// # Errors
    /// There is no such file, it is damaged, or it holds no vision transformer that is known whole.
    pub fn open(path: &Path, prefix: Option<&str>, device: Device) -> Result<Self> {
        let policy = ImportPolicy { prefix: prefix.map(str::to_owned), ..ImportPolicy::default() };
        let weights =
            Self::open_with(path, &LoadOptions { policy, ..LoadOptions::default() }, device)?;
        weights.say_assumed();
        Ok(weights)
    }

    /// Says on the console what no file told.
    pub fn say_assumed(&self) {
        if !self.assumed.is_empty() {
            let (path, what) = (self.report.path.display(), self.assumed.join("; "));
            note(&format!("{path} does not say, so it is assumed: {what}"));
        }
    }

    /// [`Self::open`] with wishes.
    ///
    /// # Errors
    /// As [`Self::open`]; a wish that does not fit.
    pub fn open_with(path: &Path, options: &LoadOptions, device: Device) -> Result<Self> {
        let path = find(path, options.policy.role)?;
        let file = TensorFile::open(&path)?;
        let network = options.policy.choose(&file)?;
        let inferred = infer(&file, &network)?;
        let others: Vec<_> = networks(&file).into_iter().map(|other| other.prefix).collect();
        let model = overridden(&inferred.model, &options.model)?;
        let mut vars = nn::VarStore::new(device);
        let backbone = VisionTransformer::new(&vars.root(), &model)?;
        let target =
            Target { vars: &vars, model: &model, backbone: "", head: None, patch_head: None };
        let report = import(&file, &target, &options.policy)?;
        vars.freeze();
        // What was stated is not assumed.
        let stated = |line: &String| {
            let key = line.split(':').next().unwrap_or_default().trim_start_matches("model.");
            options.model.iter().any(|option| option.trim_start_matches("model.").starts_with(key))
        };
        let mut assumed = inferred.assumed;
        assumed.retain(|line| !stated(line));
        if others.len() > 1 && options.policy.prefix.is_none() {
            let (taken, all) = (&network.prefix, others.join(", "));
            assumed.push(format!("using the network {taken} (--prefix chooses another): {all}"));
        }
        let known = normalization(&file, inferred.model.in_channels)?;
        let normalize = known
            .filter(|known| known.mean.len() as i64 == model.in_channels)
            .unwrap_or_else(|| usual(model.in_channels, &mut assumed));
        let number = |key: &str| file.entries().get(key)?.parse().ok();
        let (step, seed) = (number("step").unwrap_or(0), number("seed").unwrap_or(0) as i64);
        let head = inferred.head;
        // Files of earlier versions do not say; they were made with the full range.
        let value_range = file.entries().get("value_range");
        let value_range = value_range.and_then(|text| serde_json::from_str(text).ok());
        Ok(Self {
            backbone,
            model,
            head,
            normalize,
            value_range: value_range.unwrap_or_default(),
            step,
            report,
            assumed,
            seed,
            vars,
        })
    }

    /// The same backbone with the weights that its training began with.
    pub fn untrained(&self) -> Result<VisionTransformer> {
        tch::manual_seed(self.seed);
        let vars = nn::VarStore::new(self.vars.device());
        Ok(VisionTransformer::new(&vars.root(), &self.model)?)
    }

    /// How the images of `path` are read for this network.
    pub fn data(&self, path: &str) -> DataConfig {
        let channels = usize::try_from(self.model.in_channels).unwrap_or_default();
        let pixels = PixelFormat { channels, value_range: self.value_range.clone() };
        DataConfig { path: path.to_owned(), ..DataConfig::default() }.with_pixels(pixels)
    }

    /// Tensors of the backbone by name.
    pub fn tensors(&self) -> Vec<(String, tch::Tensor)> {
        model::weights::named_variables(&self.vars)
    }
}

/// Normalization where no file says one: that of ImageNet for color, as in nearly all public
/// backbones; for other channels one that brings [0, 1] near the same range.
fn usual(channels: i64, assumed: &mut Vec<String>) -> Normalize {
    if channels == 3 {
        assumed.push("mean and std of the input: those of ImageNet".to_owned());
        return Normalize { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] };
    }
    let of_each = |value: f32| vec![value; usize::try_from(channels).unwrap_or_default()];
    assumed.push("mean and std of the input: 0.5 and 0.25 for each channel".to_owned());
    Normalize { mean: of_each(0.5), std: of_each(0.25) }
}

/// `model` with some values replaced, `key=value` each; the prefix `model.` may stand before.
fn overridden(model: &ModelConfig, options: &[String]) -> Result<ModelConfig> {
    let mut section = serde_json::to_value(model)?;
    for option in options {
        let Some((key, value)) = option.split_once('=') else {
            return Err(Failure::usage(format!("'{option}': expected model.KEY=VALUE")));
        };
        let key = key.strip_prefix("model.").unwrap_or(key);
        section[key] = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        if let Err(error) = serde_json::from_value::<ModelConfig>(section.clone()) {
            return Err(Failure::usage(format!("model.{key}: {error}")));
        }
    }
    Ok(serde_json::from_value(section)?)
}

/// Files of libraries in a folder of their own, the one to be taken first.
const FILES: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// The weight file, or the index of several, that a path stands for.
pub fn find(path: &Path, role: Role) -> Result<PathBuf> {
    if path.is_file() {
        if is_part(path) {
            return Err(Failure::failed(format!(
                "{}: is one of several parts; give their index (*.index.json) or the folder",
                path.display()
            )));
        }
        return Ok(path.to_owned());
    }
    if !path.exists() {
        return Err(Failure::failed(format!("{}: no such file or folder", path.display())));
    }
    let of_checkpoint = match role {
        Role::Teacher => "teacher.safetensors",
        Role::Student => "student.safetensors",
    };
    let of_run = PathBuf::from("weights").join(of_checkpoint);
    let names = [&of_run, Path::new(of_checkpoint)].into_iter().chain(FILES.map(Path::new));
    if let Some(file) = names.map(|name| path.join(name)).find(|file| file.is_file()) {
        return Ok(file);
    }
    if let Some(index) = other_index(path)? {
        return Ok(index);
    }
    let newest = trainer::checkpoint::newest_intact(&path.join("checkpoints"))
        .context(|| path.display().to_string())?
        .path;
    newest.map(|checkpoint| checkpoint.join(of_checkpoint)).ok_or_else(|| {
        Failure::failed(format!("{}: holds neither weights nor a checkpoint", path.display()))
    })
}

/// The only index of a folder, under whatever name; parts without one are an error.
fn other_index(folder: &Path) -> Result<Option<PathBuf>> {
    let entries = fs::read_dir(folder).context(|| folder.display().to_string())?;
    let files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let mut indexes: Vec<&PathBuf> = files.iter().filter(|file| is_index(file)).collect();
    indexes.sort();
    match indexes[..] {
        [index] => Ok(Some(index.clone())),
        [] if files.iter().any(|file| is_part(file)) => Err(Failure::failed(format!(
            "{}: holds parts of weights without their index (*.index.json); fetch it too",
            folder.display()
        ))),
        [] => Ok(None),
        _ => Err(Failure::failed(format!(
            "{}: holds several indexes of weights; name one of them",
            folder.display()
        ))),
    }
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
        assert_eq!(changed.pos_interpolation, model::PosInterpolation::Size);
        for wrong in ["qk_norm", "model.qk_norms=true", "model.arch=vit_huge"] {
            assert_eq!(overridden(&model, &[wrong.to_owned()]).unwrap_err().code(), 2, "{wrong}");
        }
    }
}
