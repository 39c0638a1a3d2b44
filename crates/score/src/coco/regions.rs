//! The forms in which a COCO file stores a mask.

use serde::{Deserialize, Serialize};

use crate::{MaskError, Rle};

/// A mask as stored in a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a segmentation must be polygons [[x, y, ...], ...] or run lengths {\"size\": [h, w], \"counts\": ...}"
)]
pub enum Segmentation {
    /// Run lengths.
    Runs {
        /// Height and width.
        size: [u32; 2],
        /// The lengths.
        counts: Counts,
    },
    /// Polygons, whose union is the mask.
    Polygons(Vec<Vec<f64>>),
}

/// Run lengths as stored in a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Counts {
    /// The compressed string.
    Text(String),
    /// The lengths as numbers.
    Lengths(Vec<u32>),
}

impl Segmentation {
    /// Converts this to a mask for an image of `height` x `width` pixels.
    ///
    /// # Errors
    /// Fails like the constructors of [`Rle`], and with [`MaskError::Sizes`] if run lengths are for
    /// another image size.
    pub fn to_rle(&self, height: u32, width: u32) -> Result<Rle, MaskError> {
        let mask = match self {
            Self::Polygons(polygons) => Rle::from_polygons(height, width, polygons),
            Self::Runs { size: [h, w], counts: Counts::Text(text) } => Rle::from_text(*h, *w, text),
            Self::Runs { size: [h, w], counts: Counts::Lengths(lengths) } => {
                Rle::new(*h, *w, lengths.clone())
            }
        }?;
        mask.check_size(height, width)?;
        Ok(mask)
    }
}

impl From<&Rle> for Segmentation {
    fn from(mask: &Rle) -> Self {
        let size = [mask.height(), mask.width()];
        Self::Runs { size, counts: Counts::Text(mask.to_text()) }
    }
}
