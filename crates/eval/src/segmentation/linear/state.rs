//! The file from which training goes on after an interruption.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::weights::{read_safetensors, write_safetensors};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tch::Tensor;

use super::config::LinearConfig;
use crate::error::{Error, Result};
use crate::segmentation::evaluate::DenseData;
use crate::segmentation::features::DenseNetwork;

/// Where the state of training is saved, and what it is the state of.
#[derive(Debug, Clone)]
pub struct StateFile {
    /// The file.
    pub path: PathBuf,
    /// Identifies network, images, and settings: a state of others is refused.
    pub identity: String,
    /// Iterations from one save to the next.
    pub every: u64,
}

impl StateFile {
    /// A file in `folder` for this training on features of `network`; `fingerprint` is that of the network. Every
    /// training has a name of its own.
    ///
    /// # Errors
    /// Returns an error if the settings cannot be written as text.
    pub fn in_folder(
        folder: &Path,
        fingerprint: &str,
        network: &DenseNetwork<'_>,
        data: &DenseData<'_>,
        config: &LinearConfig,
    ) -> Result<Self> {
        let images =
            format!("{} {:?} {:?}", data.set.fingerprint(), data.set.rules(), data.indices());
        let subject = format!("{fingerprint} {} {images}", network.frozen.seen());
        Self::of(folder, "segment", &subject, config)
    }

    /// A file `PROTOCOL-ID.safetensors` in `folder` for a training of `subject`: network and images.
    ///
    /// # Errors
    /// Returns an error if the settings cannot be written as text.
    pub(crate) fn of(
        folder: &Path,
        protocol: &str,
        subject: &str,
        config: &impl Serialize,
    ) -> Result<Self> {
        let path = folder.join(format!("{protocol}.safetensors"));
        let settings = serde_json::to_string(config);
        let settings =
            settings.map_err(|source| Error::Unwritten { path, source: source.into() })?;
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
    /// Whether the state is saved after so many of all iterations.
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
            let unwritten =
                |source| Error::Unwritten { path: folder.to_owned(), source: Box::new(source) };
            std::fs::create_dir_all(folder).map_err(unwritten)?;
        }
        write_safetensors(&self.path, &tensors, &metadata).map_err(Error::Tensors)
    }

    /// Takes the values of the saved state over into the tensors of a new one, if there is one; returns the number of
    /// iterations that it has done.
    pub(crate) fn load(&self, own: &BTreeMap<String, Tensor>) -> Result<u64> {
        if !self.path.exists() {
            return Ok(0);
        }
        let file = read_safetensors(&self.path).map_err(Error::Tensors)?;
        if file.metadata.get(IDENTITY) != Some(&self.identity) {
            return Err(other(
                &self.path,
                "has the state of another network, other images, or other settings",
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
    let problem = format!("{problem}: delete it or choose another folder");
    Error::FeatureFile { path: path.to_owned(), problem }
}
