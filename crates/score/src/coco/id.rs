//! Image ids.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The id of an image: a number in COCO, a name in some other datasets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged, expecting = "the id of an image must be an integer or a text")]
pub enum ImageId {
    /// A number.
    Number(i64),
    /// A name.
    Name(String),
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => write!(f, "{name:?}"),
        }
    }
}

impl From<i64> for ImageId {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}
