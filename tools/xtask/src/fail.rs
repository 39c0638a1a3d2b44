//! Errors of commands, each with one sentence for the user.

use std::fmt;

/// The reason why a command failed.
#[derive(Debug)]
pub enum Fail {
    /// The command line is invalid; exit code 2.
    Usage(String),
    /// Something failed; exit code 1.
    Failed(String),
}

/// Result type of this program.
pub type Result<T> = std::result::Result<T, Fail>;

impl Fail {
    /// Returns the exit code of the process.
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Failed(_) => 1,
        }
    }
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(sentence) | Self::Failed(sentence) => f.write_str(sentence),
        }
    }
}

/// Returns a failure with this sentence.
pub fn failed<T>(sentence: impl Into<String>) -> Result<T> {
    Err(Fail::Failed(sentence.into()))
}

/// Returns an error about the command line with this sentence.
pub fn usage<T>(sentence: impl Into<String>) -> Result<T> {
    Err(Fail::Usage(sentence.into()))
}

/// Adds context to an error.
pub trait Context<T> {
    /// Puts `what` in front of an error: what failed, and on which path, as in "cannot write /x/y".
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.or_else(|error| failed(format!("{}: {error}", what())))
    }
}
