//! The error type of commands: sentences for the terminal, and an exit code.

use std::any::Any;
use std::error::Error;

use base::error_chain;

/// Exit code of a command that failed.
const FAILED: u8 = 1;
/// Exit code of a wrong command line or an invalid config.
const USAGE: u8 = 2;
/// Exit code of a run that a signal stopped after its checkpoint was written.
pub const STOPPED: u8 = 3;

/// Result type of this crate.
pub type Result<T> = std::result::Result<T, Failure>;

/// An error that stops a command: sentences for the user, one per line, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    code: u8,
    lines: Vec<String>,
}

impl Failure {
    /// Creates the failure of a command that was called correctly.
    pub fn failed(sentence: impl Into<String>) -> Self {
        Self { code: FAILED, lines: vec![sentence.into()] }
    }

    /// Creates the failure of a wrong command line or an invalid config.
    pub fn usage(sentence: impl Into<String>) -> Self {
        Self { code: USAGE, lines: vec![sentence.into()] }
    }

    /// Creates a failure that lists all problems of a config, one per line.
    pub fn problems(lines: Vec<String>) -> Self {
        Self { code: USAGE, lines }
    }

    /// Creates the failure of a run that a signal stopped after its checkpoint was written.
    pub fn stopped(sentence: impl Into<String>) -> Self {
        Self { code: STOPPED, lines: vec![sentence.into()] }
    }

    /// Appends a sentence.
    pub fn and(mut self, sentence: String) -> Self {
        self.lines.push(sentence);
        self
    }

    /// Returns the exit code.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// Returns the sentences.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

/// Settings of evaluations that options of the same names set.
const OPTIONS: [&str; 10] = [
    "batch",
    "blocks",
    "cache_gb",
    "k",
    "lr",
    "memory",
    "rates",
    "scored",
    "stride",
    "temperature",
];

/// Converts an error of a library to a failure that shows the error and all its causes on one line.
/// An invalid config, an invalid value of the model, and an unknown file extension count as usage
/// errors.
impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let any = &error as &dyn Any;
        match any.downcast_ref::<simdino::Error>() {
            Some(simdino::Error::Config(problems)) => return Self::problems(problems.clone()),
            Some(simdino::Error::Model(model::Error::ModelValue(what))) => {
                return Self::usage(what);
            }
            _ => {}
        }
        match any.downcast_ref::<protocols::Error>() {
            // Settings are named like the options that set them.
            Some(protocols::Error::Setting { name, problem }) => {
                return Self::usage(format!("--{}: {problem}", name.replace('_', "-")));
            }
            Some(protocols::Error::Labels { set, .. }) => {
                return Self::failed(format!("--{set} {}", error_chain(&error)));
            }
            Some(protocols::Error::Eval(eval::Error::Setting { key, problem }))
                if OPTIONS.contains(key) =>
            {
                return Self::usage(format!("--{}: {problem}", key.replace('_', "-")));
            }
            Some(protocols::Error::Features { .. }) => {
                return Self::failed(format!("--features {}", error_chain(&error)));
            }
            _ => {}
        }
        match any.downcast_ref::<eval::Error>() {
            Some(eval::Error::FeatureFormat { .. }) => Self::usage(error.to_string()),
            _ => Self::failed(error_chain(&error)),
        }
    }
}

/// Adds context to an error: what was being done when it occurred.
pub trait Context<T> {
    /// Prefixes the error with `what` and a colon.
    ///
    /// # Errors
    /// Returns the original error as a failure, with the prefix.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Error> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Failure::failed(format!("{}: {}", what(), error_chain(&error))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no such file\nstack of calls")]
    struct Inner;

    #[test]
    fn a_value_of_the_model_is_wrong_usage() {
        let wrong = || model::Error::ModelValue("model.arch: unknown".into());
        let failure = Failure::from(simdino::Error::from(wrong()));
        assert_eq!(
            (failure.code(), failure.lines()),
            (2, ["model.arch: unknown".into()].as_slice())
        );
    }

    #[test]
    fn context_comes_first() {
        let result: std::result::Result<(), Inner> = Err(Inner);
        let failure = result.context(|| "cannot make the report".into()).unwrap_err();
        assert_eq!(failure.lines(), ["cannot make the report: no such file"]);
    }
}
