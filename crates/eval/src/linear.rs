//! Linear probes: linear classifiers on frozen features, trained many at a time.
//!
//! The protocols of DINO, DINOv2, and SimDINOv2 are presets of [`LinearConfig`]. Features are
//! either read from a store or computed on the fly from random crops of the training images
//! ([`FreshImages`]), as in the published protocols.

mod config;
mod dual;
mod fresh;
mod heads;
mod order;
mod result;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::features::FeatureSet;
use crate::labeled::{Labeled, comparable};
use crate::order::Passes;
pub use config::{EpochLength, HeadInput, HeadOptimizer, LinearConfig, RateScale, Reported};
use fresh::Fresh;
pub use fresh::FreshImages;
use heads::{Heads, Layout};
use order::StepPlan;
pub use result::LinearResult;
use state::{Best, State};

/// Fraction of the training images that are held out if [`LinearConfig::holdout`] is set.
const HELD_OUT: f64 = 0.1;

/// Labeled images to measure heads on, with features on the device of the heads.
struct TestSet {
    rows: Tensor,   // [n, F + 1]
    labels: Tensor, // [n]
}

impl TestSet {
    fn new(set: &Labeled, layout: Layout, device: Device) -> Self {
        let rows = layout.with_ones(&set.features).to_device(device);
        Self { rows, labels: set.label_tensor().to_device(device) }
    }

    fn len(&self) -> i64 {
        self.labels.size()[0]
    }
}

/// The source of the rows of a step.
enum Source<'a> {
    /// Precomputed rows, `[n, F + 1]`.
    Kept(Tensor, Passes),
    /// Features of random crops, computed in each step.
    Fresh(Box<Fresh<'a>>),
}

/// The images of a step.
struct Batch {
    rows: Tensor, // [B, F + 1]
    /// Indices of the images among the precomputed rows, `[B]`.
    images: Option<Tensor>,
    labels: Tensor, // [B]
}

/// A linear probe in training. Interruptions do not change its result.
pub struct LinearProbe<'a> {
    config: LinearConfig,
    heads: Heads,
    layout: Layout,
    order: StepPlan,
    source: Source<'a>,
    /// Labels of the images that the heads learn from, `[n]`.
    labels: Tensor,
    held_out: Option<TestSet>,
    test: TestSet,
    best: Option<Best>,
    classes: usize,
    notes: Vec<String>,
}

impl std::fmt::Debug for LinearProbe<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinearProbe").field("config", &self.config).finish_non_exhaustive()
    }
}

impl<'a> LinearProbe<'a> {
    /// Prepares the heads.
    ///
    /// Classes are matched by name if both sets have names, and by number otherwise. Images without
    /// a label are ignored and noted. Test images of a class without training images count as
    /// wrong, and are noted.
    ///
    /// With `fresh`, the heads learn from random crops of the images of `train`, whose stored
    /// features are used at most to choose a head.
    ///
    /// # Shapes
    /// Features of both sets are `[n, F]`: the features of [`LinearConfig::features`], concatenated
    /// in this order.
    ///
    /// # Errors
    /// Returns an error if a setting is out of range; if a set has no labels, all training images
    /// belong to one class, the training set does not name a class of the test set, or no test
    /// image is of a class with training images; if features differ in width or are not finite; or
    /// if too few images remain to hold some out.
    pub fn new(
        train: &FeatureSet,
        test: &FeatureSet,
        config: &LinearConfig,
        fresh: Option<FreshImages<'a>>,
    ) -> Result<Self> {
        config.check()?;
        let mut notes = Vec::new();
        let (learned, asked) = comparable(train, test, &mut notes)?;
        let layout = layout(&learned.features, config)?;
        let all_classes: BTreeSet<u32> = learned.labels.iter().copied().collect();
        let classes = all_classes.last().map_or(0, |&label| i64::from(label) + 1);
        let count = learned.labels.len() as i64;
        let device = config.device;
        let (kept, held_out) = if config.holdout {
            let [kept, held_out] = learned.split(HELD_OUT, config.seed);
            let few = || Error::TooFewToHoldOut { images: learned.labels.len() };
            let chosen = learned.chosen(&held_out)?;
            let left: BTreeSet<u32> = learned.chosen(&kept)?.labels.into_iter().collect();
            if chosen.labels.is_empty() || left.len() < 2 {
                return Err(few());
            }
            (kept, Some(TestSet::new(&chosen, layout, device)))
        } else {
            (Tensor::arange(count, (Kind::Int64, Device::Cpu)), None)
        };
        let learners = learned.chosen(&kept)?;
        let order = StepPlan::new(config, learners.labels.len());
        let source = match fresh {
            Some(images) => Source::Fresh(Box::new(Fresh::new(images, train, &kept, config)?)),
            None => {
                let rows = layout.with_ones(&learners.features).to_device(device);
                Source::Kept(rows, order.sequence())
            }
        };
        let rates = scaled_rates(config);
        let size = (classes, device, config.seed);
        let mut heads = Heads::new(&config.inputs, layout, &rates, config.optimizer, size);
        if let Source::Kept(rows, _) = &source {
            heads.learn_from(rows);
        }
        Ok(Self {
            config: config.clone(),
            heads,
            layout,
            order,
            source,
            labels: learners.label_tensor().to_device(device),
            held_out,
            test: TestSet::new(&asked, layout, device),
            best: None,
            classes: all_classes.len(),
            notes,
        })
    }

    /// Returns the number of completed steps and the total number of steps.
    pub fn progress(&self) -> (usize, usize) {
        (self.heads.steps() as usize, self.order.steps())
    }

    /// Takes up to `steps` steps.
    ///
    /// # Errors
    /// Returns an error if images of [`FreshImages`] cannot be read or the network rejects them.
    pub fn advance(&mut self, steps: usize) -> Result<()> {
        let (done, all) = self.progress();
        for step in done..all.min(done.saturating_add(steps)) {
            let Batch { rows, images, labels } = self.batch(step)?;
            self.heads.step(&rows, images.as_ref(), &labels, self.order.rate_factor(step));
            let epoch_ends = (step + 1).is_multiple_of(self.order.epoch_steps);
            if step + 1 == all || (epoch_ends && self.config.reported == Reported::BestEpoch) {
                self.measure((step + 1) / self.order.epoch_steps)?;
            }
        }
        Ok(())
    }

    /// Returns the images of a step.
    fn batch(&mut self, step: usize) -> Result<Batch> {
        let device = self.config.device;
        match &mut self.source {
            Source::Kept(rows, passes) => {
                let images = self.order.uses(step).map(|number| passes.image(number) as i64);
                let images = Tensor::from_slice(&images.collect::<Vec<_>>()).to_device(device);
                let select = |from: &Tensor| from.index_select(0, &images);
                let (rows, labels) = (select(rows), select(&self.labels));
                Ok(Batch { rows, images: Some(images), labels })
            }
            Source::Fresh(fresh) => {
                let (features, images) = fresh.rows(step, &self.order)?;
                let images = Tensor::from_slice(&images).to_device(device);
                let rows = self.layout.with_ones(&features.to_device(device));
                Ok(Batch { rows, images: None, labels: self.labels.index_select(0, &images) })
            }
        }
    }

    /// Measures all heads, and remembers the best one if it is better than any before.
    fn measure(&mut self, epoch: usize) -> Result<()> {
        let chooses = self.held_out.as_ref().unwrap_or(&self.test);
        let correct = self.heads.correct(&chooses.rows, &chooses.labels);
        let heads = Vec::<i64>::try_from(correct.select(1, 0).contiguous())?;
        let most = heads.iter().copied().max().unwrap_or(0);
        let head = heads.iter().position(|&correct| correct == most).unwrap_or(0);
        let before = self.best.as_ref().and_then(|best| best.heads.get(best.head));
        if before.is_some_and(|&before| before >= most) {
            return Ok(());
        }
        let on_test = match &self.held_out {
            Some(_) => self.heads.correct(&self.test.rows, &self.test.labels),
            None => correct,
        };
        let of = |column: i64| on_test.int64_value(&[head as i64, column]);
        self.best = Some(Best { head, epoch, test: [of(0), of(1)], heads });
        Ok(())
    }

    /// Takes the remaining steps. Saves the state to a file in `folder` every half minute, and
    /// resumes from that file if it exists. Calls `progress(completed steps, total steps)`.
    ///
    /// `identity` describes the network and images behind the features. Together with the settings,
    /// it determines the name of the file, which is removed at the end.
    ///
    /// # Errors
    /// Fails like [`Self::advance`], and if the file cannot be written.
    pub fn run(
        &mut self,
        folder: Option<(&Path, &str)>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<()> {
        const EVERY: Duration = Duration::from_secs(30);
        let file = folder.map(|(folder, identity)| (self.state_file(folder, identity), identity));
        if let Some((path, identity)) = &file {
            self.restore(path, identity);
        }
        let mut kept = Instant::now();
        while self.progress().0 < self.progress().1 {
            self.advance(20)?;
            let (done, all) = self.progress();
            progress(done, all);
            if let Some((path, identity)) = &file
                && kept.elapsed() >= EVERY
                && done < all
            {
                self.save(path, identity)?;
                kept = Instant::now();
            }
        }
        if let Some((path, _)) = file {
            // The file may not exist.
            let _ = std::fs::remove_file(path);
        }
        Ok(())
    }

    /// Returns the state file of this probe in `folder`.
    pub fn state_file(&self, folder: &Path, identity: &str) -> PathBuf {
        state::file_in(folder, &self.identity(identity))
    }

    /// Writes the state, replacing an existing file atomically.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn save(&self, path: &Path, identity: &str) -> Result<()> {
        let tensors = self.heads.tensors().into_iter().collect();
        let (identity, steps) = (self.identity(identity), self.heads.steps());
        State { identity, steps, best: self.best.clone(), tensors }.write(path)
    }

    /// Resumes from a file written by [`Self::save`], and returns whether it did. A file that is
    /// missing, damaged, or of other settings or features changes nothing.
    pub fn restore(&mut self, path: &Path, identity: &str) -> bool {
        let state = State::read(path, &self.identity(identity));
        let Some(state) = state.filter(|state| state.steps <= self.order.steps() as u64) else {
            return false;
        };
        let restored = self.heads.restore(state.steps, &state.tensors).is_some();
        if restored {
            self.best = state.best;
        }
        restored
    }

    /// Returns the identity that a saved state must match.
    fn identity(&self, of_features: &str) -> String {
        let images = [self.labels.size()[0], self.test.len()];
        let fresh = matches!(self.source, Source::Fresh(_));
        json!([1, self.config, of_features, images, self.classes, fresh]).to_string()
    }

    /// Returns the result once all steps are taken.
    ///
    /// # Errors
    /// Returns an error if steps are missing, or no head has finite weights.
    pub fn result(&self) -> Result<LinearResult> {
        let (done, all) = self.progress();
        let Some(best) = self.best.as_ref().filter(|_| done == all) else {
            let problem = format!("only {done} of {all} steps are done: finish the others first");
            return Err(Error::Setting { key: "epochs", problem });
        };
        let mut notes = self.notes.clone();
        let diverged = self.heads.diverged();
        if diverged.len() == self.config.heads() && best.heads.iter().all(|&correct| correct == 0) {
            let problem = "all heads diverged: use smaller rates".to_owned();
            return Err(Error::Setting { key: "rates", problem });
        }
        if !diverged.is_empty() {
            let rates: Vec<String> = diverged
                .iter()
                .map(|&head| self.head(head))
                .map(|(_, rate)| rate.to_string())
                .collect();
            notes.push(format!("diverged heads, by learning rate: {}", rates.join(", ")));
        }
        let chose = self.held_out.as_ref().unwrap_or(&self.test);
        let chosen = self.config.heads() > 1 || self.config.reported == Reported::BestEpoch;
        if self.held_out.is_none() && chosen {
            notes.push(
                "the head and the epoch were chosen on the test images, as for published numbers, \
                 so the scores are slightly optimistic (`eval linear --holdout` chooses them on a \
                 tenth of the training images)"
                    .to_owned(),
            );
        }
        let share = |count: i64, set: &TestSet| count as f64 / set.len() as f64;
        let (input, rate) = self.head(best.head);
        Ok(LinearResult {
            top1: share(best.test[0], &self.test),
            top5: share(best.test[1], &self.test),
            input,
            rate,
            epoch: best.epoch,
            heads: best.heads.iter().map(|&correct| share(correct, chose)).collect(),
            num_train: self.labels.size()[0] as usize,
            num_held_out: self.held_out.as_ref().map_or(0, |set| set.len() as usize),
            num_test: self.test.len() as usize,
            classes: self.classes,
            notes,
        })
    }

    /// Returns the input and the unscaled learning rate of a head.
    fn head(&self, head: usize) -> (HeadInput, f64) {
        let rates = self.config.rates.len();
        (self.config.inputs[head / rates], self.config.rates[head % rates])
    }
}

/// Returns the learning rates, scaled for the batch size.
fn scaled_rates(config: &LinearConfig) -> Vec<f64> {
    let scale = match config.rate_scale {
        RateScale::Batch => config.batch as f64 / 256.0,
        RateScale::One => 1.0,
    };
    config.rates.iter().map(|rate| rate * scale).collect()
}

/// Returns the layout of features `[n, F]`.
fn layout(features: &Tensor, config: &LinearConfig) -> Result<Layout> {
    let parts = config.features().len() as i64;
    let (_, columns) = features.size2()?;
    if columns == 0 || columns % parts != 0 {
        let expected = "[n, F], with F a multiple of the number of features side by side";
        return Err(Error::Shape { what: "features of a probe", expected, got: features.size() });
    }
    Ok(Layout::of(&config.inputs, columns / parts))
}
