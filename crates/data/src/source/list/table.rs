//! The parsed contents of a list.

use super::super::names::Names;
use super::super::notices::Notices;

/// The images, classes, and notices of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) names: Names,
    /// Class of each image, or [`Table::UNLABELED`]; empty if no image has a class.
    pub(super) classes: Vec<u32>,
    pub(super) class_names: Vec<String>,
    pub(super) notices: Notices,
}

impl Table {
    pub(super) const UNLABELED: u32 = u32::MAX;
}
