//! The settings of an evaluation.

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// Boxes.
    #[default]
    Box,
    /// Masks.
    Mask,
}

/// How to evaluate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Whether boxes or masks are compared.
    pub kind: Kind,
    /// Whether all classes count as one, as for object discovery.
    pub class_agnostic: bool,
    /// How many detections of an image and class count, for the three average recalls; average
    /// precision uses the last. Ascending.
    pub max_detections: [usize; 3],
    /// Whether the area of a detected mask is that of its box, if it has one. pycocotools does so;
    /// detectron2, and with it most published numbers, uses the area of the mask.
    pub box_areas: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kind: Kind::Box,
            class_agnostic: false,
            max_detections: [1, 10, 100],
            box_areas: false,
        }
    }
}

/// Areas in pixels between which instances count: all, small, medium, large. Both ends belong to a
/// range.
pub(super) const AREAS: [[f64; 2]; 4] =
    [[0.0, 1e10], [0.0, 1024.0], [1024.0, 9216.0], [9216.0, 1e10]];
