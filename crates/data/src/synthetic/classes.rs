//! The classes of the synthetic set.

use std::sync::OnceLock;

/// Number of classes.
pub(super) const NUM_CLASSES: usize = 10;
/// Names of the classes, indexed by label.
pub(super) const CLASS_NAMES: [&str; NUM_CLASSES] = [
    "striped_disc",
    "checked_square",
    "dotted_triangle",
    "ringed_star",
    "wavy_cross",
    "speckled_ring",
    "zigzag_crescent",
    "gridded_arrow",
    "plaid_heart",
    "blotched_capsule",
];

/// Returns the names of the classes, indexed by label.
pub fn class_names() -> &'static [String] {
    static NAMES: OnceLock<Vec<String>> = OnceLock::new();
    NAMES.get_or_init(|| CLASS_NAMES.iter().map(|&name| name.to_owned()).collect())
}

/// Returns the class of image `index`. Classes alternate, so any range of indices is balanced.
pub(super) fn label_of(index: usize) -> u32 {
    (index % NUM_CLASSES) as u32
}
