//! Opens a backbone from a weight file or a run, and prints the assumptions made about it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use model::weights::{ImportPolicy, LoadOptions, PretrainedBackbone};
use tch::Device;

use crate::console::note;
use crate::failure::Result;

/// Reads the teacher at `path`, or the network whose keys begin with `prefix`, and prints what had
/// to be assumed because the file does not state it.
///
/// # Errors
/// Same as for [`simdino::weights::open`].
pub fn open(path: &Path, prefix: Option<&str>, device: Device) -> Result<PretrainedBackbone> {
    let weights = read(path, prefix, device)?;
    say_assumed(&weights);
    Ok(weights)
}

/// [`open`] without printing.
///
/// # Errors
/// Same as for [`open`].
pub fn read(path: &Path, prefix: Option<&str>, device: Device) -> Result<PretrainedBackbone> {
    let policy = ImportPolicy { prefix: prefix.map(str::to_owned), ..ImportPolicy::default() };
    let options = LoadOptions { policy, ..LoadOptions::default() };
    Ok(simdino::weights::open(path, &options, device)?)
}

/// Prints what had to be assumed about the network because no file states it, once per file.
pub fn say_assumed(weights: &PretrainedBackbone) {
    static SAID: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if !weights.assumed.is_empty() && said.insert(weights.report.path.clone()) {
        let (path, what) = (weights.report.path.display(), weights.assumed.join("; "));
        note(&format!("{path} does not specify everything; assumed: {what}"));
    }
}

/// Returns the folder of the run that the weights at `path` belong to: the path itself, or the
/// nearest run up to three folders above it.
pub fn run_of(path: &Path) -> Option<PathBuf> {
    // The deepest path is RUN/checkpoints/step-00000010/teacher.safetensors.
    let mut folders = path.ancestors().take(4);
    folders.find(|folder| folder.join("config.resolved.yaml").is_file()).map(Path::to_owned)
}
