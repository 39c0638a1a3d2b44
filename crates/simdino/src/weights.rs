//! Locates weight files, including those of runs: the final weights, or else the newest checkpoint.

use std::path::{Path, PathBuf};

use model::weights::{self, LoadOptions, PretrainedBackbone, Role};
use tch::Device;

use crate::error::{Error, Result};

/// If `path` is the file `checkpoints/latest` of a run, returns the checkpoint that it points to.
pub fn pointed_to(path: &Path) -> Option<PathBuf> {
    if path.file_name()? != "latest" || !path.is_file() {
        return None;
    }
    let name = std::fs::read_to_string(path).ok()?;
    let checkpoint = path.with_file_name(name.trim());
    (name.starts_with("step-") && checkpoint.is_dir()).then_some(checkpoint)
}

/// Returns the weight file for a path: the result of [`model::weights::find`] or, if a run has no
/// final weights yet, that of its newest intact checkpoint. `checkpoints/latest` stands for the
/// checkpoint that it points to.
///
/// # Errors
/// Returns an error if there is nothing at this path, it contains no weights, or every checkpoint
/// is damaged.
pub fn find(path: &Path, role: Role) -> Result<PathBuf> {
    let checkpoint = pointed_to(path);
    match weights::find(checkpoint.as_deref().unwrap_or(path), role) {
        Err(model::Error::NoWeights { path }) => {
            let newest = trainer::checkpoint::newest_intact(&path.join("checkpoints"))?.path;
            let checkpoint = newest.ok_or(model::Error::NoWeights { path })?;
            Ok(weights::find(&checkpoint, role)?)
        }
        found => found.map_err(Error::from),
    }
}

/// Opens the backbone of any weight file, exported folder, checkpoint, or run. The files of a
/// checkpoint are compared with its manifest.
///
/// # Errors
/// Same as [`find`]. Also returns an error if the file is damaged, if it contains no fully
/// supported vision transformer, or if an option does not fit.
pub fn open(path: &Path, options: &LoadOptions, device: Device) -> Result<PretrainedBackbone> {
    let file = find(path, options.policy.role)?;
    trainer::checkpoint::verify_file(&file)?;
    Ok(PretrainedBackbone::open_with(&file, options, device)?)
}
