//! Ground truth: images, categories, and annotated instances.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::id::ImageId;
use super::json::{self, entry_error};
use super::regions::Segmentation;
use crate::{BBox, EntryError, Result, Rle};

/// An image of a dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// Its id.
    pub id: ImageId,
    /// Path of its file, relative to the folder of images.
    #[serde(default)]
    pub file_name: String,
    /// Height in pixels.
    pub height: u32,
    /// Width in pixels.
    pub width: u32,
}

/// A class of instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Category {
    /// Its id.
    pub id: i64,
    /// Its name.
    #[serde(default)]
    pub name: String,
}

/// An annotated instance. The evaluation decides which of the optional keys are needed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Annotation {
    /// Its id.
    pub id: i64,
    /// The image that shows it.
    pub image_id: ImageId,
    /// Its class.
    pub category_id: i64,
    /// Whether it is a region of many instances, which detections may hit without reward or penalty.
    #[serde(default, deserialize_with = "flag", serialize_with = "as_number")]
    pub iscrowd: bool,
    /// Area in pixels, which decides whether it is small, medium, or large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub area: Option<f64>,
    /// Its box.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bbox: Option<BBox>,
    /// Its mask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segmentation: Option<Segmentation>,
}

impl Annotation {
    /// Creates an instance with this mask, and with the mask's bounding box and area.
    #[must_use]
    pub fn from_mask(id: i64, image_id: ImageId, category_id: i64, mask: &Rle) -> Self {
        Self {
            id,
            image_id,
            category_id,
            iscrowd: false,
            area: Some(mask.area() as f64),
            bbox: Some(mask.bounding_box()),
            segmentation: Some(mask.into()),
        }
    }
}

fn flag<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<bool, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "iscrowd must be 0, 1, true, or false")]
    enum Flag {
        Bool(bool),
        Number(u8),
    }
    Ok(match Flag::deserialize(deserializer)? {
        Flag::Bool(value) => value,
        Flag::Number(value) => value != 0,
    })
}

fn as_number<S: serde::Serializer>(
    flag: &bool,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_u8((*flag).into())
}

/// The annotated instances of a dataset.
#[derive(Debug, Clone)]
pub struct GroundTruth {
    name: String,
    images: Vec<Image>,
    categories: Vec<Category>,
    annotations: Vec<Annotation>,
}

/// The parts of the file that are used.
#[derive(Serialize, Deserialize)]
struct File<I, C, A> {
    images: I,
    annotations: A,
    categories: C,
}

impl GroundTruth {
    /// Reads an `instances` file.
    ///
    /// # Errors
    /// Returns [`Error::Read`], [`Error::Json`], or [`Error::NotANumber`], and fails like
    /// [`GroundTruth::new`].
    ///
    /// [`Error::Read`]: crate::Error::Read
    /// [`Error::Json`]: crate::Error::Json
    /// [`Error::NotANumber`]: crate::Error::NotANumber
    pub fn read(path: &Path) -> Result<Self> {
        let file: File<Vec<Image>, Vec<Category>, Vec<Annotation>> =
            json::read(path, "a COCO annotation file")?;
        Self::new(path.display().to_string(), file.images, file.categories, file.annotations)
    }

    /// Creates ground truth from lists. Errors refer to it as `name`.
    ///
    /// # Errors
    /// Returns [`Error::Entry`] if an id occurs twice, or if an annotation refers to an image or a
    /// category that is not listed.
    ///
    /// [`Error::Entry`]: crate::Error::Entry
    pub fn new(
        name: String,
        images: Vec<Image>,
        categories: Vec<Category>,
        annotations: Vec<Annotation>,
    ) -> Result<Self> {
        distinct(&name, "images", images.iter().map(|image| &image.id))?;
        distinct(&name, "categories", categories.iter().map(|category| category.id))?;
        distinct(&name, "annotations", annotations.iter().map(|annotation| annotation.id))?;
        let truth = Self { name, images, categories, annotations };
        let (images, categories) = (truth.image_indices(), truth.category_indices());
        for (index, annotation) in truth.annotations.iter().enumerate() {
            let failed = |source| Err(truth.error(index, source));
            let (image, category) = (&annotation.image_id, annotation.category_id);
            let name = || truth.name.clone();
            if !images.contains_key(image) {
                let image = image.clone();
                return failed(EntryError::UnknownImage { image, truth: name() });
            }
            if !categories.contains_key(&category) {
                return failed(EntryError::UnknownCategory { category, truth: name() });
            }
        }
        Ok(truth)
    }

    /// Returns the ground truth of only these of its images.
    ///
    /// # Errors
    /// Returns [`Error::Entry`] if an image occurs twice.
    ///
    /// [`Error::Entry`]: crate::Error::Entry
    pub fn of_images(&self, images: &[Image]) -> Result<Self> {
        let ids: HashSet<&ImageId> = images.iter().map(|image| &image.id).collect();
        let annotations =
            self.annotations.iter().filter(|annotation| ids.contains(&annotation.image_id));
        let (annotations, categories) = (annotations.cloned().collect(), self.categories.clone());
        Self::new(self.name.clone(), images.to_vec(), categories, annotations)
    }

    /// Writes the ground truth to a JSON file, which pycocotools and CutLER's training code can
    /// read.
    ///
    /// # Errors
    /// Returns [`Error::Write`] if the file cannot be written.
    ///
    /// [`Error::Write`]: crate::Error::Write
    pub fn write(&self, path: &Path) -> Result<()> {
        let Self { images, categories, annotations, .. } = self;
        json::write(path, &File { images, categories, annotations })
    }

    /// Returns the path of the file, or the name that the caller chose.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the images, in the order of the file.
    #[must_use]
    pub fn images(&self) -> &[Image] {
        &self.images
    }

    /// Returns the categories, in the order of the file.
    #[must_use]
    pub fn categories(&self) -> &[Category] {
        &self.categories
    }

    /// Returns the instances, in the order of the file.
    #[must_use]
    pub fn annotations(&self) -> &[Annotation] {
        &self.annotations
    }

    /// Maps the id of each image to its index in [`GroundTruth::images`].
    pub(crate) fn image_indices(&self) -> HashMap<&ImageId, usize> {
        self.images.iter().enumerate().map(|(index, image)| (&image.id, index)).collect()
    }

    /// Maps the id of each category to its index in [`GroundTruth::categories`].
    pub(super) fn category_indices(&self) -> HashMap<i64, usize> {
        self.categories.iter().enumerate().map(|(index, category)| (category.id, index)).collect()
    }

    /// Returns the error for the annotation at `index`.
    pub(crate) fn error(&self, index: usize, source: EntryError) -> crate::Error {
        let entry = match self.annotations.get(index) {
            Some(annotation) => format!("annotations[{index}] (id {})", annotation.id),
            None => format!("annotations[{index}]"),
        };
        entry_error(&self.name, entry, source)
    }
}

fn distinct<T: Hash + Eq>(name: &str, list: &str, ids: impl Iterator<Item = T>) -> Result<()> {
    let mut seen = HashSet::new();
    for (index, id) in ids.enumerate() {
        if !seen.insert(id) {
            return Err(entry_error(name, format!("{list}[{index}]"), EntryError::Repeated));
        }
    }
    Ok(())
}
