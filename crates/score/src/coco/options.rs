//! Settings of an evaluation.

/// The shapes that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// Boxes.
    #[default]
    Box,
    /// Masks.
    Mask,
}

/// Settings of an evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Whether boxes or masks are compared.
    pub kind: Kind,
    /// Whether all classes count as one, as for object discovery.
    pub class_agnostic: bool,
    /// The largest numbers of detections per image and class for the three average recalls,
    /// ascending. Average precision uses the last.
    pub max_detections: [usize; 3],
    /// Whether the area of a detected mask is taken from its box, if it has one, as in pycocotools.
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

/// The area ranges in pixels, both ends included: all, small, medium, and large instances.
pub(super) const AREAS: [[f64; 2]; 4] =
    [[0.0, 1e10], [0.0, 1024.0], [1024.0, 9216.0], [9216.0, 1e10]];
