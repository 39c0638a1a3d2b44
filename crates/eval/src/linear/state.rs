//! The state of a probe in a file, with which it continues.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest, Sha256};
use tch::{Device, Tensor};

use super::{Best, LinearProbe};
use crate::error::{Error, Result};
use crate::store::short;

impl LinearProbe<'_> {
    /// The file for the state of this probe in `folder`.
    pub fn state_file(&self, folder: &Path, identity: &str) -> PathBuf {
        let name = short(Sha256::new_with_prefix(self.identity(identity)));
        folder.join(format!("linear-{name}.safetensors"))
    }

    /// Writes the state. A file with the same name is replaced; it is complete or unchanged.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn save(&self, path: &Path, identity: &str) -> Result<()> {
        if let Some(folder) = path.parent() {
            let unwritten =
                |source| Error::Unwritten { path: path.to_owned(), source: Box::new(source) };
            std::fs::create_dir_all(folder).map_err(unwritten)?;
        }
        let tensors = self.heads.tensors().into_iter();
        let tensors: Vec<(String, Tensor)> =
            tensors.map(|(name, tensor)| (name, tensor.to_device(Device::Cpu))).collect();
        let header = BTreeMap::from([
            ("identity".to_owned(), self.identity(identity)),
            ("steps".to_owned(), self.heads.steps().to_string()),
            ("best".to_owned(), json!(self.best).to_string()),
        ]);
        model::weights::write_safetensors(path, &tensors, &header).map_err(Error::Tensors)
    }

    /// Continues from a file of [`Self::save`]. Returns whether it did: a file that is missing,
    /// damaged, or of other settings or features changes nothing.
    pub fn restore(&mut self, path: &Path, identity: &str) -> bool {
        self.read(path, identity).is_some()
    }

    fn read(&mut self, path: &Path, identity: &str) -> Option<()> {
        if !path.is_file() {
            return None;
        }
        let file = model::weights::read_safetensors(path).ok()?;
        let entry = |name: &str| file.metadata.get(name).map(String::as_str);
        if entry("identity")? != self.identity(identity) {
            return None;
        }
        let steps: u64 = entry("steps")?.parse().ok()?;
        let best: Option<Best> = serde_json::from_str(entry("best")?).ok()?;
        if steps > self.order.steps() as u64 {
            return None;
        }
        self.heads.restore(steps, &file.tensors)?;
        self.best = best;
        Some(())
    }

    /// What a state must agree with.
    fn identity(&self, of_features: &str) -> String {
        let images = [self.labels.size()[0], self.test.len()];
        let classes = self.classes;
        let fresh = matches!(self.source, super::Source::Fresh(_));
        json!([1, self.config, of_features, images, classes, fresh]).to_string()
    }
}
