//! The ground truth of the revisited Oxford and Paris benchmarks.

use std::fs;
use std::path::Path;

use model::weights::pth::read_plain_pickle;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result, unreadable};

/// The database images of a benchmark, and which of them show the place of each query.
#[derive(Debug, Clone, PartialEq)]
pub struct GroundTruth {
    /// Names of the database images, without extensions.
    pub images: Vec<String>,
    /// The queries.
    pub queries: Vec<Query>,
}

/// A query.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Name of its image, without the extension.
    pub name: String,
    /// The part of the image that shows the place: left, top, right, and bottom in pixels.
    pub bbox: Option<[f64; 4]>,
    /// Indices of database images that show the place well.
    pub easy: Vec<usize>,
    /// Indices of database images in which the place is hard to recognize.
    pub hard: Vec<usize>,
    /// Indices of database images that count as neither positives nor negatives.
    pub junk: Vec<usize>,
}

/// The file as pickled by the authors of the benchmark, or as equivalent JSON.
#[derive(Deserialize)]
struct Stored {
    imlist: Vec<String>,
    qimlist: Vec<String>,
    gnd: Vec<StoredQuery>,
}

#[derive(Deserialize)]
struct StoredQuery {
    #[serde(default)]
    bbx: Option<Vec<f64>>,
    #[serde(default)]
    easy: Option<Vec<f64>>,
    #[serde(default)]
    hard: Option<Vec<f64>>,
    #[serde(default)]
    junk: Option<Vec<f64>>,
}

impl GroundTruth {
    /// Reads a `gnd_*.pkl` file, without executing anything in it, or a JSON file of the same form:
    /// an object with `imlist`, `qimlist`, and `gnd`, a list of objects with `easy`, `hard`,
    /// `junk`, and optionally `bbx`.
    ///
    /// # Errors
    /// Returns an error that names the file if it cannot be read or does not have this form.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(unreadable(path))?;
        let value: Value = match bytes.first() {
            Some(b'{') => serde_json::from_slice(&bytes).map_err(unreadable(path))?,
            _ => read_plain_pickle(&bytes).map_err(unreadable(path))?,
        };
        let stored = serde_json::from_value(value).map_err(unreadable(path))?;
        Self::of(stored).map_err(|problem| Error::GroundTruth { path: path.to_owned(), problem })
    }

    fn of(stored: Stored) -> std::result::Result<Self, String> {
        let Stored { imlist: images, qimlist, gnd } = stored;
        if qimlist.len() != gnd.len() || qimlist.is_empty() {
            return Err(format!("{} queries, but labels for {}", qimlist.len(), gnd.len()));
        }
        let queries = qimlist.into_iter().zip(gnd).map(|(name, of)| {
            let indices = |list: Option<Vec<f64>>, what: &str| {
                let index = |&value: &f64| {
                    let index = value as usize;
                    (index as f64 == value && index < images.len()).then_some(index).ok_or_else(
                        || {
                            format!(
                                "query {name}: the {what} image {value} is not among the {} images",
                                images.len()
                            )
                        },
                    )
                };
                list.unwrap_or_default()
                    .iter()
                    .map(index)
                    .collect::<std::result::Result<Vec<_>, _>>()
            };
            let bbox = of.bbx.and_then(|bbox| <[f64; 4]>::try_from(bbox).ok());
            let (easy, hard) = (indices(of.easy, "easy")?, indices(of.hard, "hard")?);
            let junk = indices(of.junk, "junk")?;
            Ok::<_, String>(Query { name: name.clone(), bbox, easy, hard, junk })
        });
        let queries = queries.collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(Self { images, queries })
    }
}
