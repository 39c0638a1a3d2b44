//! Linear heads on frozen features, compared with the same network untrained.

use std::collections::BTreeSet;

use eval::FeatureSet;
use eval::linear::{FreshImages, LinearConfig, LinearProbe, LinearResult};
use eval::record::Record;
use eval::store::{ImageFeature, Network};

use super::images::LAST;
use super::protocol::LabeledProtocol;
use super::task::LabeledTask;
use crate::error::{Result, input, positive};
use crate::observer::Counter;
use crate::subject::Subject;

/// Linear heads, by default the grid of DINOv2.
///
/// An interrupted training continues if features are kept in a folder.
///
/// # Source
/// DINO's eval_linear.py and DINOv2's eval/linear.py.
#[derive(Debug, Clone)]
pub struct Linear {
    /// The heads and their training, such as [`LinearConfig::dino`]. Its device is that of the
    /// network.
    pub config: LinearConfig,
    /// Learn from random crops, which are embedded anew in every epoch, as published; otherwise
    /// from features of the center crop, which are computed once.
    pub fresh: bool,
    /// Do not measure the same network untrained, which takes as long again.
    pub skip_untrained: bool,
}

impl Default for Linear {
    fn default() -> Self {
        Self { config: LinearConfig::dinov2(), fresh: false, skip_untrained: false }
    }
}

/// The scores of linear heads.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LinearMeasured {
    /// The accuracies of the network.
    pub trained: LinearResult,
    /// The accuracies of the same network untrained, unless they are skipped.
    pub untrained: Option<LinearResult>,
    /// All numbers, with everything that they depend on.
    pub record: Record,
}

impl Linear {
    /// Name of the protocol.
    pub const NAME: &'static str = "linear";

    /// Measures the network of a task and the same network untrained.
    ///
    /// # Errors
    /// Returns an error if the network has fewer blocks than the heads use, or if labels or
    /// features cannot be used.
    pub fn measure(&self, task: &LabeledTask<'_>) -> Result<LinearMeasured> {
        self.fits(task.subject)?;
        let mut config = self.config.clone();
        config.device = task.subject.device;
        let parts = config.features();
        let (trained, observer) = (task.trained(&parts)?, task.observer);
        let trained = self.train(task, &config, &trained, task.subject.network())?;
        trained.notes.iter().for_each(|text| observer.note(text));
        let mut untrained = None;
        if !self.skip_untrained {
            let features = task.untrained(&parts)?;
            let result = self.train(task, &config, &features, task.untrained_network()?)?;
            let new = result.notes.iter().filter(|text| !trained.notes.contains(text));
            new.for_each(|text| observer.note(&format!("untrained: {text}")));
            untrained = Some(result);
        }
        let counts = [trained.num_train + trained.num_held_out, trained.num_test];
        let mut record = task.record(self.name(), counts, trained.classes)?;
        config.describe(&mut record);
        record.set("fresh", self.fresh);
        trained.describe(untrained.as_ref(), &mut record);
        Ok(LinearMeasured { trained, untrained, record })
    }

    /// Trains the heads. Continues an interrupted training if there is a folder for features.
    fn train(
        &self,
        task: &LabeledTask<'_>,
        config: &LinearConfig,
        [train, test]: &[FeatureSet; 2],
        network: Network<'_>,
    ) -> Result<LinearResult> {
        let fresh = FreshImages {
            dataset: task.train(),
            indices: task.train_indices(),
            network: network.backbone,
            options: &task.extract,
        };
        let mut probe = LinearProbe::new(train, test, config, self.fresh.then_some(fresh))?;
        let identity = task.identity(network);
        let place = task.images.features.as_deref().map(|folder| (folder, identity.as_str()));
        let steps = probe.progress().1;
        let mut counter = Counter::new(task.observer, "training steps of the heads", steps);
        probe.run(place, &mut |done, _| counter.set(done))?;
        counter.finish();
        Ok(probe.result()?)
    }
}

impl LabeledProtocol for Linear {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn features(&self) -> BTreeSet<ImageFeature> {
        self.config.features().into_iter().chain([LAST]).collect()
    }

    fn check(&self) -> Result<()> {
        self.config.rates.iter().try_for_each(|&rate| positive("rates", rate))
    }

    /// Checks that the network has as many blocks as the heads use.
    fn fits(&self, subject: &Subject) -> Result<()> {
        let depth = subject.weights.backbone.depth();
        let blocks = self.config.inputs.iter().map(|input| input.blocks);
        match blocks.into_iter().find(|&blocks| i64::from(blocks) > depth) {
            None => Ok(()),
            Some(blocks) => {
                let problem = format!(
                    "heads on the last {blocks} blocks do not fit this network of {depth} blocks: \
                     choose fewer (--blocks)"
                );
                Err(input(problem))
            }
        }
    }

    fn record(&self, task: &LabeledTask<'_>) -> Result<Record> {
        Ok(self.measure(task)?.record)
    }
}
