//! Options of few-shot evaluations, which learn from a few images of each class.

use eval::FewShotConfig;

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
}
