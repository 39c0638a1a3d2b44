//! Conversion of errors to Python exceptions, with the names of Python arguments in their messages.

use base::check::Problem;
use pyo3::PyErr;
use pyo3::exceptions::{PyFileNotFoundError, PyOSError, PyRuntimeError, PyValueError};
use serde::de::DeserializeOwned;

/// Keys of a config file, and the corresponding Python arguments.
const ARGUMENTS: [(&str, &str); 8] = [
    ("train.batch_size", "batch_size"),
    ("data.max_bad_fraction", "max_bad_fraction"),
    ("data.prefetch", "prefetch"),
    ("data.path", "source"),
    ("data.mix", "source"),
    ("augment.saturation", "saturation"),
    ("augment.hue", "hue"),
    ("augment.gray_prob", "gray_prob"),
];

/// Replaces config keys in a message with the names of arguments.
fn with_arguments(text: &str) -> String {
    ARGUMENTS.iter().fold(text.to_owned(), |text, (key, name)| text.replace(key, name))
}

/// Returns the exception for an error of the crate `data`.
pub(crate) fn of_data(error: data::Error) -> PyErr {
    use data::Error as E;
    let text = with_arguments(&error.chain());
    match error {
        E::Config { .. } | E::BatchTooLarge { .. } | E::List { .. } => PyValueError::new_err(text),
        E::Path { path, .. } if !path.exists() => PyFileNotFoundError::new_err(text),
        E::Path { .. } => PyValueError::new_err(text),
        E::Io { .. } | E::Shard { .. } => PyOSError::new_err(text),
        E::Augment(_) => PyValueError::new_err(text),
        _ => PyRuntimeError::new_err(text),
    }
}

/// Returns the exception for an error of the crate `augment`.
pub(crate) fn of_augment(error: augment::Error) -> PyErr {
    PyValueError::new_err(with_arguments(&error.to_string()))
}

/// Parses options; `what` is their name in error messages.
pub(crate) fn options<T: DeserializeOwned>(what: &str, json: &str) -> Result<T, PyErr> {
    serde_json::from_str(json).map_err(|error| {
        // Omits the line and column, which refer to JSON that the user has never seen.
        let text = error.to_string();
        let text = text.split(" at line ").next().unwrap_or_default();
        PyValueError::new_err(format!("{what}: {text}"))
    })
}

/// Returns an exception that lists all problems, if there are any.
pub(crate) fn check(problems: Vec<Problem>) -> Result<(), PyErr> {
    if problems.is_empty() {
        return Ok(());
    }
    let text = |(key, problem): &Problem| {
        // Both keys are set by the argument `source`.
        let key = if matches!(*key, "path" | "mix") { "source" } else { key };
        format!("{key}: {}", with_arguments(problem))
    };
    Err(PyValueError::new_err(problems.iter().map(text).collect::<Vec<_>>().join("; ")))
}

/// Returns a `ValueError` with this message.
pub(crate) fn wrong(text: impl Into<String>) -> PyErr {
    PyValueError::new_err(text.into())
}
