//! Few-shot parts of protocols, which learn from a few images of each class.

use std::collections::BTreeMap;

use eval::record::Record;
use eval::{FeatureSet, FewShotConfig};

use crate::error::{Result, at_least_one};

/// Checks that no number is 0.
pub(super) fn check(subsets: Option<&FewShotConfig>) -> Result<()> {
    let Some(subsets) = subsets else { return Ok(()) };
    at_least_one("shots", &subsets.per_class)?;
    at_least_one("tries", &[subsets.tries])
}

/// Adds the subsets to a record.
pub(super) fn describe(subsets: &FewShotConfig, record: &mut Record) {
    record.set("shots", subsets.per_class.clone());
    record.set("tries", subsets.tries);
}

/// Returns a sentence if there are classes with fewer training images than wanted.
pub(super) fn note(subsets: Option<&FewShotConfig>, train: &FeatureSet) -> Option<String> {
    let most = subsets?.per_class.iter().copied().max()?;
    let mut counts = BTreeMap::new();
    train.labels.iter().flatten().for_each(|&class| *counts.entry(class).or_insert(0) += 1);
    let fewer = counts.values().filter(|&&count| count < most).count();
    (fewer > 0).then(|| {
        format!(
            "{fewer} of {} classes have fewer than {most} training images: all of theirs are used",
            counts.len()
        )
    })
}
