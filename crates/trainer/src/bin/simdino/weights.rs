//! A backbone from a weight file that simdino wrote: the file says its own architecture.

use std::path::{Path, PathBuf};

use data::{DataConfig, PixelFormat};
use model::Network;
use model::config::{HeadConfig, ModelConfig};
use model::normalize::Normalize;
use model::weights::{KeyRules, WeightsFile};
use serde::de::DeserializeOwned;
use tch::{Device, nn};

use crate::failure::{Context, Failure, Result};

/// A network, the variables that hold it, and what its file says about it.
pub struct Weights {
    /// Backbone and head.
    pub network: Network,
    /// The architecture.
    pub model: ModelConfig,
    /// Mean and deviation that its input is normalised with.
    pub normalize: Normalize,
    /// Which values of deeper images it takes for 0 and 255, see `data.value_range`.
    pub value_range: Vec<[f64; 2]>,
    /// Steps it was trained for.
    pub step: u64,
    head: HeadConfig,
    seed: i64,
    vars: nn::VarStore,
}

impl Weights {
    /// Reads `path`: a weight file, a checkpoint (its teacher), or a run (its weights, or the
    /// newest checkpoint).
    ///
    /// # Errors
    /// There is no such file, it is damaged, or simdino did not write it.
    pub fn open(path: &Path, device: Device) -> Result<Self> {
        let path = find(path)?;
        let file = model::weights::read_safetensors(&path)?;
        let mut weights = Self::fresh(&path, &file, device)?;
        let rules = KeyRules::default();
        model::weights::load_into(&mut weights.vars, &file, &rules)?
            .require_complete()
            .context(|| path.display().to_string())?;
        weights.vars.freeze();
        Ok(weights)
    }

    /// The same network with the weights that its training began with.
    pub fn untrained(&self) -> Result<Self> {
        tch::manual_seed(self.seed);
        let vars = nn::VarStore::new(self.vars.device());
        let network = Network::new(&vars, &self.model, &self.head)?;
        Ok(Self {
            network,
            model: self.model.clone(),
            head: self.head.clone(),
            normalize: self.normalize.clone(),
            value_range: self.value_range.clone(),
            step: 0,
            seed: self.seed,
            vars,
        })
    }

    /// How the images of `path` are read for this network.
    pub fn data(&self, path: &str) -> DataConfig {
        let channels = usize::try_from(self.model.in_channels).unwrap_or_default();
        let pixels = PixelFormat { channels, value_range: self.value_range.clone() };
        DataConfig { path: path.to_owned(), ..DataConfig::default() }.with_pixels(pixels)
    }

    fn fresh(path: &Path, file: &WeightsFile, device: Device) -> Result<Self> {
        let model: ModelConfig = entry(path, file, "model")?;
        let head: HeadConfig = entry(path, file, "head")?;
        let vars = nn::VarStore::new(device);
        let network = Network::new(&vars, &model, &head)?;
        Ok(Self {
            network,
            normalize: Normalize {
                mean: entry(path, file, "mean")?,
                std: entry(path, file, "std")?,
            },
            // Files of earlier versions do not say; they were made with the full range.
            value_range: entry(path, file, "value_range").unwrap_or_default(),
            step: entry(path, file, "step")?,
            seed: entry(path, file, "seed")?,
            model,
            head,
            vars,
        })
    }
}

/// One entry of a file's metadata, written as JSON.
fn entry<T: DeserializeOwned>(path: &Path, file: &WeightsFile, key: &str) -> Result<T> {
    file.metadata.get(key).and_then(|text| serde_json::from_str(text).ok()).ok_or_else(|| {
        Failure::failed(format!(
            "{}: does not say its '{key}': only weights that simdino wrote can be read so far",
            path.display()
        ))
    })
}

/// The weight file that a path stands for.
fn find(path: &Path) -> Result<PathBuf> {
    if path.is_file() {
        return Ok(path.to_owned());
    }
    if !path.exists() {
        return Err(Failure::failed(format!("{}: no such file or folder", path.display())));
    }
    let direct = ["weights/teacher.safetensors", "teacher.safetensors"].map(|name| path.join(name));
    if let Some(file) = direct.into_iter().find(|file| file.is_file()) {
        return Ok(file);
    }
    let newest = trainer::checkpoint::newest_intact(&path.join("checkpoints"))?.path;
    newest.map(|checkpoint| checkpoint.join("teacher.safetensors")).ok_or_else(|| {
        Failure::failed(format!("{}: holds neither weights nor a checkpoint", path.display()))
    })
}
