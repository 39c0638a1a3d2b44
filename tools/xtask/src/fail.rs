//! Why a command stopped, in one sentence for the person who typed it.

use std::fmt;

/// Why a command stopped.
#[derive(Debug)]
pub enum Fail {
    /// The command line was wrong; exit code 2.
    Usage(String),
    /// Something did not work; exit code 1.
    Failed(String),
}

/// What every step here gives.
pub type Result<T> = std::result::Result<T, Fail>;

impl Fail {
    /// Exit code of the process.
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

/// A failure with this sentence.
pub fn failed<T>(sentence: impl Into<String>) -> Result<T> {
    Err(Fail::Failed(sentence.into()))
}

/// A wrong command line, with this sentence.
pub fn usage<T>(sentence: impl Into<String>) -> Result<T> {
    Err(Fail::Usage(sentence.into()))
}

/// Turns an error of the file system into a sentence.
pub trait Context<T> {
    /// `what` says what was tried, on which path: "cannot write /x/y".
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.or_else(|error| failed(format!("{}: {error}", what())))
    }
}
