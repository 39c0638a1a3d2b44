//! JSON files beside weights, and access to their values by key.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use serde_json::Value;

use super::super::file::TensorFile;
use crate::error::{Error, Result};

/// A JSON object, and the file that contains it.
pub(super) struct Json {
    pub(super) path: PathBuf,
    pub(super) value: Value,
}

impl Json {
    /// Opens the file with this name beside the weights, if there is one.
    pub(super) fn beside(file: &TensorFile, name: &str) -> Result<Option<Self>> {
        let path = file.path().with_file_name(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Io { action: "read", path, source }),
        };
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(Self { path, value })),
            Err(error) => {
                let problem = format!("is not valid JSON ({error}): fetch it again or remove it");
                Err(Error::Beside { path, problem })
            }
        }
    }

    /// Returns the value of a key; null counts as absent.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    /// Returns the object at a key, as if it were a file.
    pub(super) fn inner(&self, key: &str) -> Option<Self> {
        Some(Self { path: self.path.clone(), value: self.get(key)?.clone() })
    }

    pub(super) fn integer(&self, key: &str) -> Result<Option<i64>> {
        self.typed(key, "an integer", Value::as_i64)
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", Value::as_str)
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
            None => Err(self.error(format!("{key} must be {what} (got {value})"))),
        }
    }

    pub(super) fn error(&self, problem: String) -> Error {
        Error::Beside { path: self.path.clone(), problem }
    }

    /// Returns the error for an unsupported value.
    pub(super) fn refused<T>(&self, key: &str, supported: &str) -> Result<T> {
        let value = self.get(key).unwrap_or(&Value::Null);
        Err(self.error(format!("{key} is {value}, but only {supported} supported")))
    }
}
