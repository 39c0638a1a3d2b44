//! Logistic regression, compared with the same network untrained.

use std::collections::BTreeSet;

use eval::logistic::{
    FEW_SHOT_C, FewShotAccuracy, LogisticConfig, LogisticResult, few_shot_logistic, logistic,
};
use eval::record::Record;
use eval::store::ImageFeature;
use eval::{FeatureSet, FewShotConfig};
use tch::Device;

use super::few_shots;
use super::images::LAST;
use super::protocol::LabeledProtocol;
use super::task::LabeledTask;
use crate::error::{Result, positive};

/// Logistic regression on the class tokens, as in DINOv2; a part of the training images chooses C.
///
/// # Source
/// DINOv2's eval/log_regression.py.
#[derive(Debug, Clone, Default)]
pub struct Logistic {
    /// Candidates for C. Its device is that of the network.
    pub config: LogisticConfig,
    /// Also learn from this many images of each class, as in MSN.
    pub few: Option<FewShotConfig>,
}

/// The scores of logistic regression.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LogisticMeasured {
    /// The accuracies of the network.
    pub trained: LogisticResult,
    /// The accuracies of the same network untrained.
    pub untrained: LogisticResult,
    /// The accuracies of the network with few images per class.
    pub few: Vec<FewShotAccuracy>,
    /// All numbers, with everything that they depend on.
    pub record: Record,
}

impl Logistic {
    /// Name of the protocol.
    pub const NAME: &'static str = "logistic";

    /// Measures the network of a task and the same network untrained.
    ///
    /// # Errors
    /// Returns an error if labels or features cannot be used.
    pub fn measure(&self, task: &LabeledTask<'_>) -> Result<LogisticMeasured> {
        let mut config = self.config.clone();
        config.device = task.subject.device;
        let of = |[train, test]: &[FeatureSet; 2]| logistic(train, test, &config);
        let sets = [task.trained(&[LAST])?, task.untrained(&[LAST])?];
        let (trained, untrained) = (of(&sets[0])?, of(&sets[1])?);
        let (observer, fewer) = (task.observer, few_shots::note(self.few.as_ref(), &sets[0][0]));
        trained.notes.iter().chain(&fewer).for_each(|text| observer.note(text));
        // Notes that apply to both networks, such as those on the images, are given only once.
        let own = untrained.notes.iter().filter(|text| !trained.notes.contains(text));
        own.for_each(|text| observer.note(&format!("untrained: {text}")));
        let counts = [trained.num_train, trained.num_test];
        let mut record = task.record(self.name(), counts, trained.classes)?;
        config.describe(&mut record);
        trained.describe(&untrained, &mut record);
        let few = self.few_shot(&sets, config.device, &mut record)?;
        Ok(LogisticMeasured { trained, untrained, few, record })
    }

    /// Adds the scores with few images per class, if they are wanted, of the network and of the
    /// same network untrained to the record, and returns those of the network.
    fn few_shot(
        &self,
        [trained, untrained]: &[[FeatureSet; 2]; 2],
        device: Device,
        record: &mut Record,
    ) -> Result<Vec<FewShotAccuracy>> {
        let Some(subsets) = &self.few else { return Ok(Vec::new()) };
        let of = |[train, test]: &[FeatureSet; 2]| few_shot_logistic(train, test, subsets, device);
        few_shots::describe(subsets, record);
        record.set("few_shot_c", FEW_SHOT_C);
        let scores = of(trained)?;
        FewShotAccuracy::describe(&scores, None, record);
        FewShotAccuracy::describe(&of(untrained)?, Some("untrained"), record);
        Ok(scores)
    }
}

impl LabeledProtocol for Logistic {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn features(&self) -> BTreeSet<ImageFeature> {
        BTreeSet::from([LAST])
    }

    fn check(&self) -> Result<()> {
        self.config.c.iter().try_for_each(|&c| positive("c", c))?;
        few_shots::check(self.few.as_ref())
    }

    fn record(&self, task: &LabeledTask<'_>) -> Result<Record> {
        Ok(self.measure(task)?.record)
    }
}
