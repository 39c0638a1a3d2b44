//! The saved state of a probe, from which it resumes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use tch::{Device, Tensor};

use crate::error::{Error, Result, unwritten};
use crate::store::short;

/// The best head so far, and the scores of all heads when it was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Best {
    pub head: usize,
    pub epoch: usize,
    /// Number of test images whose class ranks first, and among the first five.
    pub test: [i64; 2],
    /// For each head, the number of images whose class ranks first, among those that choose the
    /// head.
    pub heads: Vec<i64>,
}

/// The state of a probe.
pub(super) struct State {
    /// The identity that must match when the state is restored.
    pub identity: String,
    /// Number of steps so far.
    pub steps: u64,
    pub best: Option<Best>,
    /// The tensors of the heads by name.
    pub tensors: BTreeMap<String, Tensor>,
}

/// Returns the file in `folder` for a state with this identity.
pub(super) fn file_in(folder: &Path, identity: &str) -> PathBuf {
    let name = short(Sha256::new_with_prefix(identity));
    folder.join(format!("linear-{name}.safetensors"))
}

impl State {
    /// Writes the state atomically, creating the folder if needed.
    pub(super) fn write(self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(unwritten(folder))?;
        }
        let tensors = self.tensors.into_iter();
        let tensors: Vec<(String, Tensor)> =
            tensors.map(|(name, tensor)| (name, tensor.to_device(Device::Cpu))).collect();
        let header = BTreeMap::from([
            ("identity".to_owned(), self.identity),
            ("steps".to_owned(), self.steps.to_string()),
            ("best".to_owned(), json!(self.best).to_string()),
        ]);
        model::weights::write_safetensors(path, &tensors, &header).map_err(Error::Tensors)
    }

    /// Reads a state; returns `None` if the file is missing, damaged, or of another identity.
    pub(super) fn read(path: &Path, identity: &str) -> Option<Self> {
        if !path.is_file() {
            return None;
        }
        let file = model::weights::read_safetensors(path).ok()?;
        let entry = |name: &str| file.metadata.get(name).cloned();
        let found = entry("identity").filter(|found| found == identity)?;
        Some(Self {
            identity: found,
            steps: entry("steps")?.parse().ok()?,
            best: serde_json::from_str(&entry("best")?).ok()?,
            tensors: file.tensors,
        })
    }
}
