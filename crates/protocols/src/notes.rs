//! Sentences about images, for users and for records.

use data::loader::BrokenImage;

/// A network is tested on the images that a classifier learned from.
pub(crate) const SAME_IMAGES: &str = "the training images are also the test images, so these \
                                      numbers do not show what the network is worth";

/// Returns a sentence about images of a set that were skipped; `None` if there are none.
pub(crate) fn unreadable(role: &str, broken: &[BrokenImage]) -> Option<String> {
    let first = broken.first()?;
    let (count, name, reason) = (broken.len(), &first.name, &first.reason);
    Some(format!("skipped {count} of the {role} images; the first is {name}: {reason}"))
}
