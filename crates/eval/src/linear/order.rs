//! Decides which images each step uses, and at what fraction of the learning rate.

use std::f64::consts::PI;

use augment::rng::Purpose;

use super::config::{EpochLength, LinearConfig};
use crate::order::Passes;

/// The plan of a training, a pure function of the settings and the number of images.
#[derive(Debug, Clone)]
pub(super) struct StepPlan {
    images: usize,
    batch: usize,
    epochs: usize,
    /// Number of steps per epoch.
    pub epoch_steps: usize,
    /// Whether every epoch starts a new pass.
    passes: bool,
    rate_per_step: bool,
    seed: u64,
}

impl StepPlan {
    /// Creates the plan for `images` images, at least one.
    pub(super) fn new(config: &LinearConfig, images: usize) -> Self {
        let (epoch_steps, passes) = match config.epoch_length {
            EpochLength::Pass => (images.div_ceil(config.batch), true),
            EpochLength::Steps(steps) => (steps, false),
        };
        let LinearConfig { batch, epochs, rate_per_step, seed, .. } = *config;
        Self { images, batch, epochs, epoch_steps, passes, rate_per_step, seed }
    }

    /// Returns the number of images in a full step.
    pub(super) fn batch(&self) -> usize {
        self.batch
    }

    /// Returns the total number of steps.
    pub(super) fn steps(&self) -> usize {
        self.epochs * self.epoch_steps
    }

    /// Returns the factor of the learning rate in a step: a cosine that ends at 0.
    pub(super) fn rate_factor(&self, step: usize) -> f64 {
        let (at, of) = match self.rate_per_step {
            true => (step, self.steps()),
            false => (step / self.epoch_steps, self.epochs),
        };
        0.5 * (1.0 + (PI * at as f64 / of as f64).cos())
    }

    /// Returns the endless sequence of passes, which maps each use to its image.
    pub(super) fn sequence(&self) -> Passes {
        Passes::new(self.seed, Purpose::Shuffle, self.images)
    }

    /// Returns the uses of images in a step, as positions in the endless sequence of passes.
    pub(super) fn uses(&self, step: usize) -> std::ops::Range<usize> {
        if self.passes {
            let (epoch, within) = (step / self.epoch_steps, step % self.epoch_steps);
            let (first, end) = (within * self.batch, ((within + 1) * self.batch).min(self.images));
            epoch * self.images + first..epoch * self.images + end
        } else {
            step * self.batch..(step + 1) * self.batch
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_has_every_image_once() {
        let config = LinearConfig { batch: 4, epochs: 3, ..LinearConfig::dino() };
        let order = StepPlan::new(&config, 10);
        assert_eq!((order.epoch_steps, order.steps()), (3, 9));
        let mut passes = order.sequence();
        let mut seen = Vec::new();
        for epoch in 0..3 {
            let uses = (0..3).flat_map(|step| order.uses(3 * epoch + step));
            let images: Vec<usize> = uses.map(|number| passes.image(number)).collect();
            let mut sorted = images.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
            seen.push(images);
        }
        assert!(seen[0] != seen[1] && seen[1] != seen[2]);
        assert_eq!(order.uses(2).len(), 2, "the last batch of a pass is smaller");
    }

    #[test]
    fn an_endless_sequence_has_full_batches() {
        let epoch_length = EpochLength::Steps(5);
        let config = LinearConfig { batch: 4, epochs: 2, epoch_length, ..LinearConfig::dinov2() };
        let order = StepPlan::new(&config, 10);
        let mut passes = order.sequence();
        let uses: Vec<usize> = (0..order.steps()).flat_map(|step| order.uses(step)).collect();
        assert_eq!(uses, (0..40).collect::<Vec<_>>());
        for pass in uses.chunks(10) {
            let mut images: Vec<usize> = pass.iter().map(|&number| passes.image(number)).collect();
            images.sort_unstable();
            assert_eq!(images, (0..10).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_rate_ends_at_zero() {
        let config = LinearConfig { batch: 5, epochs: 4, ..LinearConfig::dino() };
        let by_epoch = StepPlan::new(&config, 10);
        assert_eq!(by_epoch.rate_factor(0), by_epoch.rate_factor(1));
        assert!((by_epoch.rate_factor(4) - 0.5).abs() < 1e-15, "the third of four epochs");
        let by_step = StepPlan::new(&LinearConfig { rate_per_step: true, ..config }, 10);
        assert!((by_step.rate_factor(4) - 0.5).abs() < 1e-15 && by_step.rate_factor(1) < 1.0);
        assert!(by_step.rate_factor(7) < 0.04);
    }
}
