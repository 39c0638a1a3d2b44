//! Weight files where a run may stand for them: its weights, or its newest checkpoint.

use std::path::{Path, PathBuf};

use data::DataConfig;
use data::decode::PixelFormat;
use model::weights::{self, LoadOptions, PretrainedBackbone, Role};
use tch::Device;

use crate::error::{Error, Result};

/// The weight file that a path stands for: what [`model::weights::find`] finds, or where a run has no
/// weights yet, those of its newest intact checkpoint.
///
/// # Errors
/// There is nothing at this path, no weights in it, or every checkpoint is damaged.
pub fn find(path: &Path, role: Role) -> Result<PathBuf> {
    match weights::find(path, role) {
        Err(model::Error::NoWeights { path }) => {
            let newest = trainer::checkpoint::newest_intact(&path.join("checkpoints"))?.path;
            let checkpoint = newest.ok_or(model::Error::NoWeights { path })?;
            Ok(weights::find(&checkpoint, role)?)
        }
        found => found.map_err(Error::from),
    }
}

/// Opens the backbone of any weight file, exported folder, checkpoint, or run.
///
/// # Errors
/// As [`find`]; the file is damaged, or holds no vision transformer that is known whole; an option
/// does not fit.
pub fn open(path: &Path, options: &LoadOptions, device: Device) -> Result<PretrainedBackbone> {
    let file = find(path, options.policy.role)?;
    Ok(PretrainedBackbone::open_with(&file, options, device)?)
}

/// How the images of `path` are read for this network.
pub fn data_config(pretrained: &PretrainedBackbone, path: &str) -> DataConfig {
    let channels = usize::try_from(pretrained.model.in_channels).unwrap_or_default();
    let pixels = PixelFormat { channels, value_range: pretrained.value_range.clone() };
    DataConfig { path: path.to_owned(), ..DataConfig::default() }.with_pixels(pixels)
}
