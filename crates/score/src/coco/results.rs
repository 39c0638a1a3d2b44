//! Results: the detections of a model.

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
    /// The class, which class-agnostic scores do not need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category_id: Option<i64>,
    /// The confidence. Equal scores rank in the order of the file.
    pub score: f64,
    /// The box.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bbox: Option<BBox>,
    /// The mask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segmentation: Option<Segmentation>,
}

impl Detection {
    /// Creates a detection of a mask and of the box around it.
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

/// All detections of a model on a dataset.
#[derive(Debug, Clone)]
pub struct Detections {
    name: String,
    list: Vec<Detection>,
}

impl Detections {
    /// Reads detections from a JSON file, which contains a list of them.
    ///
    /// # Errors
    /// Returns [`Error::Read`], [`Error::Json`], or [`Error::NotANumber`], and fails like
    /// [`Detections::new`].
    ///
    /// [`Error::Read`]: crate::Error::Read
    /// [`Error::Json`]: crate::Error::Json
    /// [`Error::NotANumber`]: crate::Error::NotANumber
    pub fn read(path: &Path) -> Result<Self> {
        Self::new(
            path.display().to_string(),
            json::read(path, "a list of detections in COCO format")?,
        )
    }

    /// Creates detections from a list. Errors refer to them as `name`.
    ///
    /// # Errors
    /// Returns [`Error::Entry`] if a score or a box is not finite, or if a box has a negative side.
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

    /// Writes the detections to a JSON file, which pycocotools can read.
    ///
    /// # Errors
    /// Returns [`Error::Write`] if the file cannot be written.
    ///
    /// [`Error::Write`]: crate::Error::Write
    pub fn write(&self, path: &Path) -> Result<()> {
        json::write(path, &self.list)
    }

    /// Returns the path of the file, or the name that the caller chose.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the detections, in the order of the file.
    #[must_use]
    pub fn list(&self) -> &[Detection] {
        &self.list
    }

    /// Returns the error for the detection at `index`.
    pub(crate) fn error(&self, index: usize, source: EntryError) -> crate::Error {
        let image =
            self.list.get(index).map(|detection| format!(" (image {})", detection.image_id));
        let entry = format!("detection [{index}]{}", image.unwrap_or_default());
        entry_error(&self.name, entry, source)
    }
}
