//! Schedules by optimizer step: warm-up and cosine, as in DINO and SimDINO.
//!
//! Every schedule is a pure function of the step, so a resumed run needs no schedule state.

use std::f64::consts::PI;

use objectives::WarmupForm;

use crate::config::OptimConfig;

/// A linear warm-up from `start` to `base`, followed by a cosine from `base` toward `end`, which
/// the last step does not quite reach.
///
/// # Source
/// `cosine_scheduler` of DINO, whose last warm-up step already has `base`; `CosineScheduler` of
/// SimDINOv2, where the step after the warm-up is the first to have it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CosineSchedule {
    /// Value at the first step of the warm-up.
    pub start: f64,
    /// Value after the warm-up.
    pub base: f64,
    /// Value that the cosine approaches.
    pub end: f64,
    /// Number of warm-up steps.
    pub warmup_steps: u64,
    /// Whether the last of these steps has the full value.
    pub warmup_form: WarmupForm,
    /// Number of steps in the whole schedule.
    pub total_steps: u64,
}

impl CosineSchedule {
    /// Returns the value at `step`, counted from 0; past the end, it is `end`.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            let span = self.warmup_form.span(self.warmup_steps);
            return self.start + (self.base - self.start) * step as f64 / span as f64;
        }
        if step >= self.total_steps {
            return self.end;
        }
        let passed = (step - self.warmup_steps) as f64;
        let length = (self.total_steps - self.warmup_steps) as f64;
        self.end + 0.5 * (self.base - self.end) * (1.0 + (PI * passed / length).cos())
    }
}

/// Values of all schedules at one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepValues {
    /// Learning rate.
    pub lr: f64,
    /// Weight decay, for the parameters that have it.
    pub weight_decay: f64,
    /// Momentum of the teacher's moving average.
    pub momentum_teacher: f64,
    /// Fraction of the schedule that has passed, 0 to 1.
    pub progress: f64,
    /// The step, counted from 0.
    pub step: u64,
    /// Steps per epoch.
    pub steps_per_epoch: u64,
    /// Whether the prototypes are frozen.
    pub last_layer_frozen: bool,
    /// Whether the backbone is frozen.
    pub backbone_frozen: bool,
}

/// The schedules of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedules {
    lr: CosineSchedule,
    weight_decay: CosineSchedule,
    momentum_teacher: CosineSchedule,
    /// Exponent that adapts the teacher's momentum to the batch size.
    batch_ratio: f64,
    steps_per_epoch: u64,
    frozen_steps: u64,
    backbone_frozen_steps: u64,
}

impl Schedules {
    /// Creates the schedules for `total_steps` steps of `batch_size` images each.
    pub fn new(
        optim: &OptimConfig,
        batch_size: usize,
        steps_per_epoch: u64,
        total_steps: u64,
    ) -> Self {
        let cosine = |base, end| CosineSchedule {
            start: base,
            base,
            end,
            warmup_steps: 0,
            warmup_form: optim.warmup_form,
            total_steps,
        };
        let steps = |epochs: f64| (epochs * steps_per_epoch as f64).round() as u64;
        let peak = optim.lr_scaling.apply(optim.base_lr, batch_size);
        Self {
            lr: CosineSchedule {
                start: optim.warmup_start_lr,
                warmup_steps: steps(optim.warmup_epochs).min(total_steps),
                ..cosine(peak, optim.min_lr)
            },
            weight_decay: cosine(optim.weight_decay, optim.weight_decay_end),
            momentum_teacher: cosine(optim.momentum_teacher, optim.momentum_teacher_end),
            batch_ratio: optim.momentum_batch.map_or(1.0, |of| batch_size as f64 / of as f64),
            steps_per_epoch,
            frozen_steps: steps(optim.freeze_last_layer_epochs),
            backbone_frozen_steps: 0,
        }
    }

    /// Returns the same schedules with the backbone frozen for a number of steps.
    pub fn with_frozen_backbone(self, steps: u64) -> Self {
        Self { backbone_frozen_steps: steps, ..self }
    }

    /// Returns the values at `step`, counted from 0.
    pub fn at(&self, step: u64) -> StepValues {
        StepValues {
            lr: self.lr.at(step),
            weight_decay: self.weight_decay.at(step),
            momentum_teacher: self.momentum_teacher.at(step).powf(self.batch_ratio),
            progress: (step as f64 / self.lr.total_steps.max(1) as f64).min(1.0),
            step,
            steps_per_epoch: self.steps_per_epoch,
            last_layer_frozen: step < self.frozen_steps,
            backbone_frozen: step < self.backbone_frozen_steps,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_reference_at_its_landmarks() {
        let warmup_form = WarmupForm::Inclusive;
        let (start, base, end) = (0.0, 1e-3, 1e-6);
        let s =
            CosineSchedule { start, base, end, warmup_steps: 10, warmup_form, total_steps: 100 };
        assert_eq!(s.at(0), 0.0);
        assert!((s.at(9) - 1e-3).abs() < 1e-18, "warm-up includes its endpoint");
        assert!((s.at(10) - 1e-3).abs() < 1e-18, "the cosine starts at the peak");
        assert!((s.at(55) - (1e-6 + 0.5 * (1e-3 - 1e-6))).abs() < 1e-12, "half way");
        assert!(s.at(99) > 1e-6, "never quite the end");
        assert_eq!(s.at(100), 1e-6);
        let s = CosineSchedule { start: 1e-6, warmup_form: WarmupForm::Exclusive, ..s };
        assert_eq!(s.at(0), 1e-6);
        assert!((s.at(5) - (1e-6 + 0.5 * (1e-3 - 1e-6))).abs() < 1e-18);
        assert!(s.at(9) < 1e-3 && (s.at(10) - 1e-3).abs() < 1e-18, "the endpoint comes after");
    }

    #[test]
    fn matches_the_published_run() {
        // SimDINO's log, ViT-B/16, 8 x 64 images, 2502 steps per epoch: epoch means of the
        // learning rate. Epoch 4 of warm-up 4.5e-4, epoch 20 9.67e-4, epoch 60 4.05e-4.
        let optim = OptimConfig::default();
        let s = Schedules::new(&optim, 512, 2502, 250_200);
        let mean = |epoch: u64, f: &dyn Fn(StepValues) -> f64| {
            (0..2502).map(|i| f(s.at(epoch * 2502 + i))).sum::<f64>() / 2502.0
        };
        for (epoch, lr) in [(4, 4.5e-4), (20, 9.67e-4), (60, 4.05e-4), (75, 1.73e-4)] {
            let got = mean(epoch, &|v| v.lr);
            assert!((got - lr).abs() < 0.01 * lr, "epoch {epoch}: lr {got}, published {lr}");
        }
        for (epoch, wd) in [(0, 0.04003), (30, 0.1165), (99, 0.39997)] {
            let got = mean(epoch, &|v| v.weight_decay);
            assert!((got - wd).abs() < 2e-5, "epoch {epoch}: weight decay {got}, published {wd}");
        }
    }

    #[test]
    fn momentum_for_another_batch_averages_over_as_many_images() {
        let optim = OptimConfig { momentum_teacher: 0.97, ..OptimConfig::default() };
        let momentum = |batch_size, momentum_batch| {
            let optim = OptimConfig { momentum_batch, ..optim.clone() };
            Schedules::new(&optim, batch_size, 100, 1000).at(0).momentum_teacher
        };
        assert_eq!(momentum(256, None), 0.97);
        assert_eq!(momentum(16, Some(16)), 0.97);
        // One step of 64 images equals four steps of 16.
        assert!((momentum(64, Some(16)) - 0.97_f64.powi(4)).abs() < 1e-15);
        assert!((momentum(8, Some(16)).powi(2) - 0.97).abs() < 1e-15);
    }
}
