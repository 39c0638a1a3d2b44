//! Results: what a detector found.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::id::ImageId;
use super::json::{self, entry_error};
use super::regions::Segmentation;
use crate::{BBox, EntryError, Result, Rle};

/// A detected instance. It needs a box or a mask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// The image.
    pub image_id: ImageId,
    /// The class; not needed to score without classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category_id: Option<i64>,
    /// The higher, the more certain; equal scores rank in the order of the file.
    pub score: f64,
    /// The box.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bbox: Option<BBox>,
    /// The mask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segmentation: Option<Segmentation>,
}

impl Detection {
    /// A detection of this mask, and of the box around it.
    #[must_use]
    pub fn from_mask(image_id: ImageId, category_id: i64, score: f64, mask: &Rle) -> Self {
        Self {
            image_id,
            category_id: Some(category_id),
            score,
            bbox: Some(mask.bounding_box()),
            segmentation: Some(mask.into()),
        }
    }
}

/// All that a detector found in the images of a dataset.
#[derive(Debug, Clone)]
pub struct Detections {
    name: String,
    list: Vec<Detection>,
}

impl Detections {
    /// Reads a file of results: a list of detections.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Json`], [`Error::NotANumber`], and as [`Detections::new`].
    ///
    /// [`Error::Read`]: crate::Error::Read
    /// [`Error::Json`]: crate::Error::Json
    /// [`Error::NotANumber`]: crate::Error::NotANumber
    pub fn read(path: &Path) -> Result<Self> {
        Self::new(
            path.display().to_string(),
            json::read(path, "a list of detections in COCO's format")?,
        )
    }

    /// Detections in memory; errors call them `name`.
    ///
    /// # Errors
    /// [`Error::Entry`] if a score or a box is not finite, or a side of a box is negative.
    ///
    /// [`Error::Entry`]: crate::Error::Entry
    pub fn new(name: String, list: Vec<Detection>) -> Result<Self> {
        let detections = Self { name, list };
        for (index, detection) in detections.list.iter().enumerate() {
            if !detection.score.is_finite() {
                let source = EntryError::NotFinite { key: "score", value: detection.score };
                return Err(detections.error(index, source));
            }
            if let Some(bbox) = detection.bbox.filter(|bbox| !bbox.is_valid()) {
                return Err(detections.error(index, EntryError::Box { values: bbox.into() }));
            }
        }
        Ok(detections)
    }

    /// Writes the file, which pycocotools reads.
    ///
    /// # Errors
    /// [`Error::Write`].
    ///
    /// [`Error::Write`]: crate::Error::Write
    pub fn write(&self, path: &Path) -> Result<()> {
        json::write(path, &self.list)
    }

    /// The file, or what the caller named it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The detections, in the order of the file.
    #[must_use]
    pub fn list(&self) -> &[Detection] {
        &self.list
    }

    /// What is wrong with a detection.
    pub(crate) fn error(&self, index: usize, source: EntryError) -> crate::Error {
        let image =
            self.list.get(index).map(|detection| format!(" (image {})", detection.image_id));
        let entry = format!("detection [{index}]{}", image.unwrap_or_default());
        entry_error(&self.name, entry, source)
    }
}
