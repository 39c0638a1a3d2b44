//! What the JSON files beside weights say about the network: `config.json` of Hugging Face, timm
//! and this program's exports, and `preprocessor_config.json`.
//!
//! What no tensor tells is taken from them; what cannot be computed here is refused by its key.

mod configs;
mod pixels;

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use serde_json::Value;

use super::file::TensorFile;
use crate::config::{ModelConfig, PosInterpolation};
use crate::error::{Error, Result};
use crate::normalize::Normalize;

/// The description of a network, of any library.
const CONFIG: &str = "config.json";

/// What the files say. Absent: not a word of it.
#[derive(Debug, Default)]
pub(super) struct Beside {
    pub(super) num_heads: Option<i64>,
    pub(super) norm_eps: Option<f64>,
    pub(super) qk_norm: Option<bool>,
    pub(super) pos_interpolation: Option<PosInterpolation>,
    /// Sizes that the tensors have too, by key: another network's file is noticed by them.
    sizes: Vec<(&'static str, i64, Size)>,
    path: PathBuf,
}

/// A size of the network that tensors tell.
#[derive(Debug, Clone, Copy)]
enum Size {
    Width,
    Depth,
    Patch,
    Channels,
    Registers,
}

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

    /// `model`, as its tensors told it, with what they do not tell.
    ///
    /// # Errors
    /// The file describes a network of another size, or one that cannot be.
    pub(super) fn complete(&self, model: ModelConfig) -> Result<ModelConfig> {
        let dims = model.arch.dimensions();
        for &(key, stated, size) in &self.sizes {
            let found = match size {
                Size::Width => dims.embed_dim,
                Size::Depth => dims.depth,
                Size::Patch => model.patch_size,
                Size::Channels => model.in_channels,
                Size::Registers => model.num_register_tokens,
            };
            if stated != found {
                return Err(self.error(format!(
                    "{key} is {stated} there and {found} in the tensors beside it: if it describes \
                     another network, move the weights to a folder of their own"
                )));
            }
        }
        let model = ModelConfig {
            num_heads: self.num_heads.filter(|&heads| heads != dims.num_heads),
            norm_eps: self.norm_eps.unwrap_or(model.norm_eps),
            qk_norm: self.qk_norm.unwrap_or(model.qk_norm),
            pos_interpolation: self.pos_interpolation.unwrap_or(model.pos_interpolation),
            ..model
        };
        match model.validate().first() {
            Some((key, problem)) => Err(self.error(format!("{key} {problem}"))),
            None => Ok(model),
        }
    }

    fn error(&self, problem: String) -> Error {
        Error::Beside { path: self.path.clone(), problem }
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

/// An object of JSON, and the file that it stands in.
struct Json {
    path: PathBuf,
    value: Value,
}

impl Json {
    /// The file of this name beside weights, if there is one.
    fn beside(file: &TensorFile, name: &str) -> Result<Option<Self>> {
        let path = file.path().with_file_name(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Io { action: "read", path, source }),
        };
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(Self { path, value })),
            Err(error) => {
                let problem = format!("is no JSON ({error}): fetch it again, or move it away");
                Err(Error::Beside { path, problem })
            }
        }
    }

    /// The value of a key; null is none.
    fn get(&self, key: &str) -> Option<&Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    /// The object at a key, as if it were a file.
    fn inner(&self, key: &str) -> Option<Self> {
        Some(Self { path: self.path.clone(), value: self.get(key)?.clone() })
    }

    fn integer(&self, key: &str) -> Result<Option<i64>> {
        self.typed(key, "a whole number", Value::as_i64)
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    fn text(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "text", Value::as_str)
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        what: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(self.error(format!("{key} should be {what} (got {value})"))),
        }
    }

    fn error(&self, problem: String) -> Error {
        Error::Beside { path: self.path.clone(), problem }
    }

    /// The error of a value that is not computed here.
    fn refused<T>(&self, key: &str, supported: &str) -> Result<T> {
        let value = self.get(key).unwrap_or(&Value::Null);
        Err(self.error(format!("{key} is {value}, which is not supported here: {supported}")))
    }
}
