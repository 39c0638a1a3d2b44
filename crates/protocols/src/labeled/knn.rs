//! Weighted k-NN, compared with raw pixels and with the same network untrained.

use std::collections::BTreeSet;

use eval::record::Record;
use eval::store::ImageFeature;
use eval::{FeatureSet, FewShotConfig, FewShotScore, KnnConfig, KnnTable, few_shot, knn};

use super::few_shots;
use super::images::LAST;
use super::protocol::LabeledProtocol;
use super::task::LabeledTask;
use crate::error::{Result, at_least_one, positive};

/// Weighted k-NN on the class tokens, as in DINO.
///
/// # Source
/// DINO's eval_knn.py.
#[derive(Debug, Clone)]
pub struct Knn {
    /// Numbers of neighbors, of which the first is the main one, and temperature. Its device is
    /// that of the network.
    pub config: KnnConfig,
    /// Also classify with this many images of each class.
    pub few: Option<FewShotConfig>,
}

impl Default for Knn {
    /// Returns the published settings, but with 20 neighbors as the main score.
    fn default() -> Self {
        Self { config: KnnConfig { k: vec![20, 10, 100, 200], ..KnnConfig::default() }, few: None }
    }
}

/// The scores of k-NN.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct KnnMeasured {
    /// The accuracies of the network and its baselines.
    pub table: KnnTable,
    /// The accuracies of the network with few images per class.
    pub few: Vec<FewShotScore>,
    /// All numbers, with everything that they depend on.
    pub record: Record,
}

impl Knn {
    /// Name of the protocol.
    pub const NAME: &'static str = "knn";

    /// Measures the network of a task and its baselines.
    ///
    /// # Errors
    /// Returns an error if labels or features cannot be used.
    pub fn measure(&self, task: &LabeledTask<'_>) -> Result<KnnMeasured> {
        let mut config = self.config.clone();
        config.device = task.subject.device;
        let of = |[train, test]: &[FeatureSet; 2]| knn(train, test, &config);
        let (trained, untrained) = (task.trained(&[LAST])?, task.untrained(&[LAST])?);
        let pixels = task.pixels()?;
        let seen = (task.extract.transform, task.extract.precision);
        let table = KnnTable::new(of(&trained)?, of(&untrained)?, of(&pixels)?, seen, false);
        let counts = [table.knn.num_train, table.knn.num_test];
        let mut record = task.record(self.name(), counts, table.knn.classes)?;
        table.describe(&mut record);
        let mut few = Vec::new();
        if let Some(subsets) = &self.few {
            few_shots::describe(subsets, &mut record);
            let of = |[train, test]: &[FeatureSet; 2]| few_shot(train, test, &config, subsets);
            few = of(&trained)?;
            FewShotScore::describe(&few, None, &mut record);
            FewShotScore::describe(&of(&untrained)?, Some("untrained"), &mut record);
            FewShotScore::describe(&of(&pixels)?, Some("pixels"), &mut record);
        }
        let fewer = few_shots::note(self.few.as_ref(), &trained[0]);
        table.knn.notes.iter().chain(&fewer).for_each(|text| task.observer.note(text));
        Ok(KnnMeasured { table, few, record })
    }
}

impl LabeledProtocol for Knn {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn features(&self) -> BTreeSet<ImageFeature> {
        BTreeSet::from([LAST])
    }

    fn check(&self) -> Result<()> {
        at_least_one("k", &self.config.k)?;
        positive("temperature", self.config.temperature)?;
        few_shots::check(self.few.as_ref())
    }

    fn record(&self, task: &LabeledTask<'_>) -> Result<Record> {
        Ok(self.measure(task)?.record)
    }
}
