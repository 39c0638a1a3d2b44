//! Options of few-shot evaluations, which learn from a few images of each class.

use std::collections::BTreeMap;

use eval::record::Record;
use eval::{FeatureSet, FewShotConfig};

use crate::failure::Result;

use super::numbers::at_least_one;

/// Options of few-shot evaluations.
#[derive(Debug, Clone, clap::Args)]
pub struct FewShots {
    /// Also with this number of training images of each class, such as 1,5,10
    #[arg(long, value_delimiter = ',', value_name = "N")]
    shots: Vec<usize>,
    /// Number of random subsets for --shots, whose scores are averaged; the index of a subset is
    /// its seed
    #[arg(long, default_value_t = 5, value_name = "N", requires = "shots")]
    tries: usize,
}

impl Default for FewShots {
    fn default() -> Self {
        Self { shots: Vec::new(), tries: 5 }
    }
}

impl FewShots {
    /// Checks that no number is 0.
    ///
    /// # Errors
    /// Names the option.
    pub fn check(&self) -> Result<()> {
        at_least_one("--shots", &self.shots)?;
        at_least_one("--tries", &[self.tries])
    }

    /// Returns the subsets; `None` if none are wanted.
    pub fn config(&self) -> Option<FewShotConfig> {
        let (per_class, tries) = (self.shots.clone(), self.tries);
        (!per_class.is_empty()).then_some(FewShotConfig { per_class, tries })
    }

    /// Adds the options to a record, if subsets are wanted.
    pub fn describe(&self, record: &mut Record) {
        if !self.shots.is_empty() {
            record.set("shots", self.shots.clone());
            record.set("tries", self.tries);
        }
    }

    /// Returns a sentence if there are classes with fewer training images than wanted.
    pub fn note(&self, train: &FeatureSet) -> Option<String> {
        let most = self.shots.iter().copied().max()?;
        let mut counts = BTreeMap::new();
        train.labels.iter().flatten().for_each(|&class| *counts.entry(class).or_insert(0) += 1);
        let fewer = counts.values().filter(|&&count| count < most).count();
        (fewer > 0).then(|| {
            format!(
                "{fewer} of {} classes have fewer than {most} training images (--shots): all of \
                 theirs are used",
                counts.len()
            )
        })
    }
}
