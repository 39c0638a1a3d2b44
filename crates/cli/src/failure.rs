//! Errors that stop a command: sentences for the terminal, and the exit code.

use std::any::Any;
use std::error::Error;

use base::error_chain;

/// Exit code of a run that failed.
const FAILED: u8 = 1;
/// Exit code of wrong usage or a wrong config.
const USAGE: u8 = 2;
/// Exit code of a run that a signal stopped after its checkpoint was written.
pub const STOPPED: u8 = 3;

/// The runner's result.
pub type Result<T> = std::result::Result<T, Failure>;

/// Sentences for the user, one per line, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    code: u8,
    lines: Vec<String>,
}

impl Failure {
    /// The command failed.
    pub fn failed(sentence: impl Into<String>) -> Self {
        Self { code: FAILED, lines: vec![sentence.into()] }
    }

    /// The command line or the config is wrong.
    pub fn usage(sentence: impl Into<String>) -> Self {
        Self { code: USAGE, lines: vec![sentence.into()] }
    }

    /// All that is wrong with a config, one problem a line.
    pub fn problems(lines: Vec<String>) -> Self {
        Self { code: USAGE, lines }
    }

    /// A signal stopped the run; its checkpoint is written.
    pub fn stopped(sentence: impl Into<String>) -> Self {
        Self { code: STOPPED, lines: vec![sentence.into()] }
    }

    /// Adds a sentence.
    pub fn and(mut self, sentence: String) -> Self {
        self.lines.push(sentence);
        self
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// The sentences.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

/// An error of a library fails the command: the error and all its causes on one line. What is wrong
/// with a config, with a value of the model or with the name of a file is wrong usage.
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
        match any.downcast_ref::<eval::Error>() {
            Some(eval::Error::FeatureFormat { .. }) => Self::usage(error.to_string()),
            _ => Self::failed(error_chain(&error)),
        }
    }
}

/// Says what was being done when a lower error came.
pub trait Context<T> {
    /// Puts `what` and a colon before the error.
    ///
    /// # Errors
    /// The error, with `what` before it.
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
