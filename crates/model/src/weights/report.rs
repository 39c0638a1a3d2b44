//! The account of an import.

use std::fmt;
use std::path::PathBuf;

use super::keys::KeyStyle;
use super::shorten;

/// A tensor that was made to fit.
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

/// A tensor whose shape in the file is another and cannot be made to fit.
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

/// What became of every tensor. Names of variables are whole, keys of the file as written there;
/// all lists are sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportReport {
    /// The file.
    pub path: PathBuf,
    /// What stands before the keys of the network that was taken.
    pub prefix: String,
    /// Whose names they are.
    pub style: KeyStyle,
    /// Variables loaded as they are.
    pub matched: Vec<String>,
    /// Variables loaded after they were made to fit.
    pub resized: Vec<Resized>,
    /// Variables that the file has nothing for; they keep their values.
    pub missing: Vec<String>,
    /// Variables of another shape; they keep their values.
    pub other_shape: Vec<OtherShape>,
    /// Keys of the network in the file that have no place here.
    pub unexpected: Vec<String>,
    /// Keys of the file beside or behind the network that have no part in its features, and are not
    /// loaded: classifiers, decoders.
    pub behind: Vec<String>,
    /// Variables that the network was made without and that are 0: biases of queries, keys and
    /// values.
    pub zero: Vec<String>,
    /// Whether heads were asked for and all of them found.
    pub head_loaded: bool,
    /// Tensors of the backbone that were found, and all of them.
    pub backbone: (usize, usize),
}

impl fmt::Display for ImportReport {
    /// One line.
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
