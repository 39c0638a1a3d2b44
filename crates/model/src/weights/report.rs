//! The report of an import.

use std::fmt;
use std::path::PathBuf;

use super::keys::KeyStyle;
use super::shorten;

/// A tensor that was resized.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resized {
    /// Name of the variable.
    pub name: String,
    /// Its shape in the file.
    pub from: Vec<i64>,
    /// Its shape in the network.
    pub to: Vec<i64>,
}

/// A tensor whose shape in the file differs and cannot be resized.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OtherShape {
    /// Name of the variable.
    pub name: String,
    /// Its shape in the file.
    pub in_file: Vec<i64>,
    /// Its shape in the network.
    pub here: Vec<i64>,
}

/// What happened to every tensor. Names of variables are complete, and keys of the file are as
/// written there; all lists are sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportReport {
    /// The file.
    pub path: PathBuf,
    /// Key prefix of the network that was loaded.
    pub prefix: String,
    /// Key style of the file.
    pub style: KeyStyle,
    /// Variables loaded unchanged.
    pub matched: Vec<String>,
    /// Variables loaded after resizing.
    pub resized: Vec<Resized>,
    /// Variables that are not in the file; they keep their values.
    pub missing: Vec<String>,
    /// Variables with a different shape; they keep their values.
    pub other_shape: Vec<OtherShape>,
    /// Keys of the network in the file that have no counterpart here.
    pub unexpected: Vec<String>,
    /// Keys of the file beside or after the network that do not affect its features and are not
    /// loaded: classifiers, decoders.
    pub behind: Vec<String>,
    /// Variables that the network in the file does not have and that are therefore 0: biases of
    /// queries, keys, and values.
    pub zero: Vec<String>,
    /// Whether heads were requested and all of them were found.
    pub head_loaded: bool,
    /// Number of backbone tensors that were found, and their total number.
    pub backbone: (usize, usize),
}

impl fmt::Display for ImportReport {
    /// Writes the report as one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (found, total) = self.backbone;
        write!(f, "{} ({} keys", self.path.display(), self.style.name())?;
        if !self.prefix.is_empty() {
            write!(f, " under {}", self.prefix.trim_end_matches('.'))?;
        }
        write!(f, "): {found} of {total} tensors of the backbone")?;
        if !self.resized.is_empty() {
            let names: Vec<_> = self.resized.iter().map(|r| r.name.clone()).collect();
            write!(f, ", resized {}", shorten(&names))?;
        }
        for (what, names) in [("missing", &self.missing), ("unexpected", &self.unexpected)] {
            if !names.is_empty() {
                write!(f, ", {what} {}", shorten(names))?;
            }
        }
        if !self.zero.is_empty() {
            f.write_str(", without biases of queries, keys and values")?;
        }
        let other: Vec<_> = self.other_shape.iter().map(|o| o.name.clone()).collect();
        if !other.is_empty() {
            write!(f, ", of another shape {}", shorten(&other))?;
        }
        f.write_str(if self.head_loaded { ", and its head" } else { "; no head loaded" })
    }
}
