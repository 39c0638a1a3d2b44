//! Errors as Python exceptions: the same sentences, with the names that arguments have in Python.

use base::check::Problem;
use pyo3::PyErr;
use pyo3::exceptions::{PyFileNotFoundError, PyOSError, PyRuntimeError, PyValueError};
use serde::de::DeserializeOwned;

/// What a key of a config file is called as an argument.
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

/// The sentence with the names of arguments.
fn with_arguments(text: &str) -> String {
    ARGUMENTS.iter().fold(text.to_owned(), |text, (key, name)| text.replace(key, name))
}

/// The exception for an error of the crate `data`.
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

/// The exception for an error of the crate `augment`.
pub(crate) fn of_augment(error: augment::Error) -> PyErr {
    PyValueError::new_err(with_arguments(&error.to_string()))
}

/// Reads options; `what` is their name in the sentence about a wrong one.
pub(crate) fn options<T: DeserializeOwned>(what: &str, json: &str) -> Result<T, PyErr> {
    serde_json::from_str(json).map_err(|error| {
        // The line and column are those of text that the user has never seen.
        let text = error.to_string();
        let text = text.split(" at line ").next().unwrap_or_default();
        PyValueError::new_err(format!("{what}: {text}"))
    })
}

/// An exception that lists all wrong values, if there are any.
pub(crate) fn check(problems: Vec<Problem>) -> Result<(), PyErr> {
    if problems.is_empty() {
        return Ok(());
    }
    let text = |(key, problem): &Problem| {
        // The key of the path is that of the argument.
        let key = if matches!(*key, "path" | "mix") { "source" } else { key };
        format!("{key}: {}", with_arguments(problem))
    };
    Err(PyValueError::new_err(problems.iter().map(text).collect::<Vec<_>>().join("; ")))
}

/// The exception for a count that does not fit.
pub(crate) fn wrong(text: impl Into<String>) -> PyErr {
    PyValueError::new_err(text.into())
}
