//! The state file from which interrupted training resumes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::weights::{read_safetensors, write_safetensors};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tch::Tensor;

use super::config::LinearConfig;
use crate::error::{Error, Result, invalid, unwritten};
use crate::segmentation::evaluate::DenseData;
use crate::segmentation::features::DenseNetwork;

/// The file that stores the state of a training, and the identity of that training.
#[derive(Debug, Clone)]
pub struct StateFile {
    /// Path of the file.
    pub path: PathBuf,
    /// Identifies the network, images, and settings. The state of another training is refused.
    pub identity: String,
    /// Number of iterations between saves.
    pub every: u64,
}

impl StateFile {
    /// Returns the state file in `folder` for training on features of `network`, whose weights have
    /// this `fingerprint`. Every training gets its own file name.
    ///
    /// # Errors
    /// Returns an error if the settings cannot be serialized.
    pub fn in_folder(
        folder: &Path,
        fingerprint: &str,
        network: &DenseNetwork<'_>,
        data: &DenseData<'_>,
        config: &LinearConfig,
    ) -> Result<Self> {
        let images =
            format!("{} {:?} {:?}", data.set.fingerprint(), data.set.rules(), data.indices());
        let subject = format!("{fingerprint} {} {images}", network.frozen.preparation());
        Self::of(folder, "segment", &subject, &config.of_training())
    }

    /// Returns the state file `PROTOCOL-ID.safetensors` in `folder` for a training of `subject`,
    /// which describes the network and images.
    ///
    /// # Errors
    /// Returns an error if the settings cannot be serialized.
    pub(crate) fn of(
        folder: &Path,
        protocol: &str,
        subject: &str,
        config: &impl Serialize,
    ) -> Result<Self> {
        let path = folder.join(format!("{protocol}.safetensors"));
        let settings = serde_json::to_string(config).map_err(unwritten(&path))?;
        let identity = format!("{subject} {settings}");
        let hash = Sha256::digest(identity.as_bytes());
        let identity: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let path = folder.join(format!("{protocol}-{identity}.safetensors"));
        Ok(Self { path, identity, every: 1000 })
    }
}

const IDENTITY: &str = "identity";
const ITERATION: &str = "iteration";

impl StateFile {
    /// Returns whether the state is to be saved after `done` of `iterations` iterations.
    pub(crate) fn is_due(&self, done: u64, iterations: u64) -> bool {
        done.is_multiple_of(self.every.max(1)) || done == iterations
    }

    /// Writes the state after `iteration` iterations.
    pub(crate) fn save(&self, tensors: BTreeMap<String, Tensor>, iteration: u64) -> Result<()> {
        let tensors: Vec<(String, Tensor)> = tensors.into_iter().collect();
        let metadata = BTreeMap::from([
            (IDENTITY.to_owned(), self.identity.clone()),
            (ITERATION.to_owned(), iteration.to_string()),
        ]);
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(unwritten(folder))?;
        }
        write_safetensors(&self.path, &tensors, &metadata).map_err(Error::Tensors)
    }

    /// Copies the saved state, if any, into the tensors of a new one. Returns the number of
    /// iterations that it has completed, or 0.
    pub(crate) fn load(&self, own: &BTreeMap<String, Tensor>) -> Result<u64> {
        if !self.path.exists() {
            return Ok(0);
        }
        let file = read_safetensors(&self.path).map_err(|error| match error {
            model::Error::Io { .. } => Error::Tensors(error),
            _ => other(&self.path, "is damaged"),
        })?;
        if file.metadata.get(IDENTITY) != Some(&self.identity) {
            return Err(other(
                &self.path,
                "contains the state of a different network, images, or settings",
            ));
        }
        let iteration = file.metadata.get(ITERATION).and_then(|text| text.parse().ok());
        let saved = |name: &String| file.tensors.get(name);
        let fits = |(name, tensor): (&String, &Tensor)| {
            saved(name).is_some_and(|saved| saved.size() == tensor.size())
        };
        match iteration {
            Some(iteration) if file.tensors.len() == own.len() && own.iter().all(fits) => {
                tch::no_grad(|| {
                    own.iter().for_each(|(name, tensor)| {
                        if let Some(saved) = saved(name) {
                            tensor.shallow_clone().copy_(saved);
                        }
                    });
                });
                Ok(iteration)
            }
            _ => Err(other(&self.path, "is damaged")),
        }
    }
}

fn other(path: &Path, problem: &str) -> Error {
    invalid(path, format!("{problem}: delete it or choose another folder"))
}
