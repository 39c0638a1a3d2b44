//! Information about the network in the JSON files beside weights: `config.json` of Hugging Face,
//! timm, and simdino's exports, and `preprocessor_config.json`.
//!
//! They supply values that the tensors do not determine. Unsupported values are refused with an
//! error that names the key.

mod configs;
mod grid;
mod json;
mod pixels;
mod stated;

use std::path::Path;

use self::json::Json;
pub(super) use self::stated::Beside;
use super::file::TensorFile;
use crate::error::{Error, Result};
use crate::normalize::Normalize;

/// The description of a network, for any library.
const CONFIG: &str = "config.json";

impl Beside {
    /// Reads `config.json` beside `file`, if there is one.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read or describes an unsupported network.
    pub(super) fn of(file: &TensorFile) -> Result<Self> {
        match Json::beside(file, CONFIG)? {
            Some(json) => configs::read(&json),
            None => Ok(Self::default()),
        }
    }
}

/// Returns the mean and deviation of the input for which a network of `file` with this number of
/// channels was made: from the entries of the file itself, as simdino writes them, or from the
/// files that libraries write beside theirs. `None` if nothing states them.
///
/// # Errors
/// Returns an error if a file beside it cannot be read or requests something unsupported, or if the
/// values are for a different number of channels.
pub fn normalization(file: &TensorFile, channels: i64) -> Result<Option<Normalize>> {
    let entry = |key: &str| serde_json::from_str(file.entries().get(key)?).ok();
    if let (Some(mean), Some(std)) = (entry("mean"), entry("std")) {
        let of_each = |what, values| of_each(file.path(), what, values, channels);
        return Ok(Some(Normalize { mean: of_each("mean", mean)?, std: of_each("std", std)? }));
    }
    for (name, read) in READERS {
        let Some(json) = Json::beside(file, name)? else { continue };
        if let Some(found) = read(&json)? {
            let Normalize { mean, std } = found;
            let of_each = |what, values| of_each(&json.path, what, values, channels);
            return Ok(Some(Normalize { mean: of_each("mean", mean)?, std: of_each("std", std)? }));
        }
    }
    Ok(None)
}

type Reader = fn(&Json) -> Result<Option<Normalize>>;

/// The files that describe the preprocessing of pixels, in order of precedence.
const READERS: [(&str, Reader); 2] =
    [("preprocessor_config.json", pixels::of_preprocessor), (CONFIG, pixels::of_config)];

/// Expands values to one per channel; a single value applies to all.
fn of_each(path: &Path, what: &str, values: Vec<f32>, channels: i64) -> Result<Vec<f32>> {
    let channels = usize::try_from(channels).unwrap_or_default();
    match values.len() {
        1 => Ok(vec![values[0]; channels]),
        count if count == channels => Ok(values),
        count => {
            let problem =
                format!("gives the {what} of {count} channels, but the network has {channels}");
            Err(Error::Beside { path: path.to_owned(), problem })
        }
    }
}
