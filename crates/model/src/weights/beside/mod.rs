//! What the JSON files beside weights say about the network: `config.json` of Hugging Face, timm
//! and this program's exports, and `preprocessor_config.json`.
//!
//! What no tensor tells is taken from them; what cannot be computed here is refused by its key.

mod configs;
mod grid;
mod json;
mod pixels;
mod stated;

use self::json::Json;
pub(super) use self::stated::Beside;
use super::file::TensorFile;
use crate::error::Result;
use crate::normalize::Normalize;

/// The description of a network, of any library.
const CONFIG: &str = "config.json";

impl Beside {
    /// Reads `config.json` beside `file`, if there is one.
    ///
    /// # Errors
    /// A file that cannot be read, or that describes a network which is not computed here.
    pub(super) fn of(file: &TensorFile) -> Result<Self> {
        match Json::beside(file, CONFIG)? {
            Some(json) => configs::read(&json),
            None => Ok(Self::default()),
        }
    }
}

/// Mean and deviation of the input that a network of `file` with so many channels is made for: from
/// the file's own entries, as this program writes them, or the files that libraries put beside
/// theirs. Absent: nothing says them.
///
/// # Errors
/// A file beside it that cannot be read, asks for what is not done here, or is for another number of
/// channels.
pub fn normalization(file: &TensorFile, channels: i64) -> Result<Option<Normalize>> {
    let entry = |key: &str| serde_json::from_str(file.entries().get(key)?).ok();
    if let (Some(mean), Some(std)) = (entry("mean"), entry("std")) {
        return Ok(Some(Normalize { mean, std }));
    }
    for (name, read) in READERS {
        let Some(json) = Json::beside(file, name)? else { continue };
        if let Some(found) = read(&json)? {
            let Normalize { mean, std } = found;
            let mean = of_each(&json, "mean", mean, channels)?;
            return Ok(Some(Normalize { mean, std: of_each(&json, "std", std, channels)? }));
        }
    }
    Ok(None)
}

type Reader = fn(&Json) -> Result<Option<Normalize>>;

/// The files that say how pixels become input, the one to be believed first.
const READERS: [(&str, Reader); 2] =
    [("preprocessor_config.json", pixels::of_preprocessor), (CONFIG, pixels::of_config)];

/// As many values as channels; a single one stands for all.
fn of_each(json: &Json, what: &str, values: Vec<f32>, channels: i64) -> Result<Vec<f32>> {
    let channels = usize::try_from(channels).unwrap_or_default();
    match values.len() {
        1 => Ok(vec![values[0]; channels]),
        count if count == channels => Ok(values),
        count => Err(json
            .error(format!("says the {what} of {count} channels, and the network has {channels}"))),
    }
}
