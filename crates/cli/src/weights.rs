//! Opens a backbone from any weight file or run, and prints the assumptions that were made about
//! it.

use std::path::{Path, PathBuf};

use model::weights::{ImportPolicy, LoadOptions, PretrainedBackbone};
use tch::Device;

use crate::console::note;
use crate::failure::Result;

/// Reads the teacher at `path`, or the network whose keys begin with `prefix`, and says what the file
/// does not.
///
/// # Errors
/// As [`simdino::weights::open`].
pub fn open(path: &Path, prefix: Option<&str>, device: Device) -> Result<PretrainedBackbone> {
    let policy = ImportPolicy { prefix: prefix.map(str::to_owned), ..ImportPolicy::default() };
    let options = LoadOptions { policy, ..LoadOptions::default() };
    let weights = simdino::weights::open(path, &options, device)?;
    say_assumed(&weights);
    Ok(weights)
}

/// Says on the console what no file told.
pub fn say_assumed(weights: &PretrainedBackbone) {
    if !weights.assumed.is_empty() {
        let (path, what) = (weights.report.path.display(), weights.assumed.join("; "));
        note(&format!("{path} does not say, so it is assumed: {what}"));
    }
}

/// The run that weights belong to: the path itself, or a folder above a checkpoint or a file of it.
pub fn run_of(path: &Path) -> Option<PathBuf> {
    // RUN/checkpoints/step-00000010/teacher.safetensors
    let mut folders = path.ancestors().take(4);
    folders.find(|folder| folder.join("config.resolved.yaml").is_file()).map(Path::to_owned)
}
