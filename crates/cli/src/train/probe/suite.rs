//! All probes of a run as a single [`Probe`], so that they share extracted features.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use eval::baseline::PixelOptions;
use eval::logistic::{LogisticConfig, logistic_shared};
use eval::spectrum::Spread;
use eval::{Error, ExtractOptions, KnnConfig, knn_shared, pixels_shared};
use trainer::config::{EveryEpochs, ProbeConfig};
use trainer::plan::Plan;
use trainer::probe::{Measured, Moment, Probe, ProbeError};
use trainer::processes::Processes;

use super::images::{Images, StepFeatures};
use super::segment::Segmentation;

/// Index in [`Probes::images`] of the labeled images to learn from.
pub const TRAIN: usize = 0;
/// Index in [`Probes::images`] of the labeled images to classify.
pub const TEST: usize = 1;

/// The probes that are on.
pub struct Probes {
    /// The settings, including when each probe measures.
    pub config: ProbeConfig,
    /// All sets of images whose features are extracted; the labeled ones come first, if any.
    pub images: Vec<Images>,
    /// Index of the set whose rank is measured, if the rank has its own schedule.
    pub rank: Option<usize>,
    /// Segmentation, if it is on.
    pub segmentation: Option<Segmentation>,
    /// How features are extracted.
    pub options: ExtractOptions,
    /// Whether the network at step 0 is untrained, rather than initialized from weights.
    pub fresh: bool,
    /// How neighbors vote.
    pub knn: KnnConfig,
    /// Name of the latest measurement, for error messages.
    pub name: Cell<&'static str>,
    /// Warnings that have been given already.
    pub said: BTreeSet<String>,
}

impl Probes {
    /// Makes measurements stop as soon as `flag` is set.
    pub fn stop_on(&mut self, flag: &Arc<AtomicBool>) {
        self.images.iter().for_each(|images| images.set.stop_on(flag));
        if let Some(segmentation) = &mut self.segmentation {
            segmentation.stop = Arc::clone(flag);
        }
    }

    /// Returns when the rank is measured: together with k-NN, unless it has its own schedule.
    fn rank_every(&self) -> Option<EveryEpochs> {
        match self.rank {
            Some(_) => self.config.rank.every_epochs,
            None => self.knn_every(),
        }
    }

    fn knn_every(&self) -> Option<EveryEpochs> {
        match self.config.knn_is_on() {
            true => self.config.every_epochs,
            false => Some(EveryEpochs::Never),
        }
    }

    /// Measures the accuracy of k-NN. At step 0, also measures that of raw pixels, so that the
    /// curve has its baselines from the start.
    fn measure_knn(&self, features: &StepFeatures, moment: &Moment) -> Result<Values, ProbeError> {
        let processes = moment.processes.collective();
        let (train, test) = (features.of(TRAIN)?, features.of(TEST)?);
        let top1 = knn_shared(train, test, &self.knn, processes)?.top1();
        let mut values = vec![("probe/knn_top1", top1)];
        if moment.step == 0 {
            let options = PixelOptions { workers: self.options.workers, ..PixelOptions::default() };
            let sets = [&self.images[TRAIN].set, &self.images[TEST].set];
            let [train, test] = pixels_shared(sets, &options, processes)?;
            let pixels = knn_shared(&train, &test, &self.knn, processes)?.top1();
            values.extend(self.fresh.then_some(("probe/untrained", top1)));
            values.push(("probe/pixels", pixels));
        }
        Ok(values)
    }

    fn measure_logistic(
        &self,
        features: &StepFeatures,
        moment: &Moment,
    ) -> Result<Values, ProbeError> {
        let (train, test) = (features.of(TRAIN)?, features.of(TEST)?);
        let mut config = LogisticConfig::coarse();
        config.device = self.options.device;
        let result = logistic_shared(train, test, &config, moment.processes.collective());
        match result {
            Ok(result) => Ok(vec![("probe/logistic_top1", result.top1)]),
            Err(Error::TooFewToChoose { images }) => Err(format!(
                "probe.train_path: probe.logistic holds out a tenth of the {images} labeled \
                 images, and the rest must have at least two classes: add images"
            )
            .into()),
            Err(error) => Err(error.into()),
        }
    }

    fn measure_rank(&self, features: &StepFeatures, moment: &Moment) -> Result<Values, ProbeError> {
        let features = features.of(self.rank.unwrap_or(TRAIN))?;
        let spread = together(Spread::of(&features.features), moment.processes)?;
        Ok(vec![
            ("probe/effective_rank", spread.effective_rank),
            ("probe/effective_dimension", spread.effective_dimension),
        ])
    }
}

/// Values by name.
type Values = Vec<(&'static str, f64)>;

/// Returns an error in every process if `own` is an error in any of them.
fn together<T>(own: eval::Result<T>, processes: &Processes) -> Result<T, ProbeError> {
    match processes.any(own.is_err())? {
        true => Err(own.err().unwrap_or(Error::Elsewhere).into()),
        false => Ok(own?),
    }
}

impl Probe for Probes {
    fn name(&self) -> &str {
        self.name.get()
    }

    fn due(&self, plan: &Plan, step: u64) -> bool {
        [
            self.knn_every(),
            self.config.logistic.every_epochs,
            self.rank_every(),
            self.config.segment.every_epochs,
        ]
        .into_iter()
        .any(|every| plan.probe_due(every, step))
    }

    fn measure(&mut self, moment: &Moment<'_>) -> Result<Measured, ProbeError> {
        let due = |every| moment.plan.probe_due(every, moment.step);
        let features = StepFeatures::new(&self.images, &self.options, moment);
        let (mut values, mut warnings) = (Vec::new(), Vec::new());
        if due(self.knn_every()) {
            self.name.set("k-NN");
            values.extend(self.measure_knn(&features, moment)?);
        }
        if due(self.config.logistic.every_epochs) {
            self.name.set("logistic regression");
            values.extend(self.measure_logistic(&features, moment)?);
        }
        if due(self.rank_every()) {
            self.name.set("rank");
            values.extend(self.measure_rank(&features, moment)?);
        }
        warnings.extend(features.broken());
        if let Some(segmentation) = &self.segmentation
            && due(self.config.segment.every_epochs)
        {
            self.name.set("segmentation");
            let (miou, broken) = segmentation.measure(moment)?;
            values.push(("probe/segment_knn_miou", miou));
            warnings.extend(broken);
        }
        warnings.retain(|text| self.said.insert(text.clone()));
        let values = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Ok(Measured { values, warnings })
    }
}
