//! Options of the losses with prototypes: DINO and DINOv2.

use serde::{Deserialize, Serialize};

use super::{Problem, WarmupForm, negative, not_positive};

/// How the teacher's targets are protected from collapse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Centering {
    /// Subtract a moving average of the teacher's scores before the softmax.
    #[default]
    Softmax,
    /// Give every prototype the same share of the batch.
    SinkhornKnopp,
}

/// Prototypes and their targets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct DinoConfig {
    /// Temperature of the student's softmax.
    pub student_temp: f64,
    /// Temperature of the teacher's softmax at the start.
    pub teacher_temp_start: f64,
    /// Temperature of the teacher's softmax after its warm-up; 0.07 in the longer runs of DINO, and in DINOv2.
    pub teacher_temp: f64,
    /// Epochs in which the teacher's temperature grows; 30 in the longer runs of DINO, and in DINOv2.
    pub teacher_temp_warmup_epochs: f64,
    /// Whether the last step of that warm-up has the final temperature already, or the step after it; in DINO,
    /// which changes it once an epoch, the epoch. `exclusive` in the DINOv2 that SimDINOv2 was compared with.
    pub teacher_temp_warmup_form: WarmupForm,
    /// How targets are kept from collapsing. DINO knows `softmax` only.
    pub centering: Centering,
    /// Momentum of the moving average that `softmax` subtracts.
    pub center_momentum: f64,
}

impl Default for DinoConfig {
    fn default() -> Self {
        Self {
            student_temp: 0.1,
            teacher_temp_start: 0.04,
            teacher_temp: 0.04,
            teacher_temp_warmup_epochs: 0.0,
            teacher_temp_warmup_form: WarmupForm::Inclusive,
            centering: Centering::Softmax,
            center_momentum: 0.9,
        }
    }
}

impl DinoConfig {
    /// Returns every invalid value.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = not_positive(&[
            ("student_temp", Some(self.student_temp)),
            ("teacher_temp_start", Some(self.teacher_temp_start)),
            ("teacher_temp", Some(self.teacher_temp)),
        ]);
        let epochs = self.teacher_temp_warmup_epochs;
        problems.extend(negative(&[("teacher_temp_warmup_epochs", Some(epochs))]));
        let momentum = self.center_momentum;
        if !(0.0..1.0).contains(&momentum) {
            let what = format!("must be at least 0 and less than 1 (got {momentum})");
            problems.push(("center_momentum", what));
        }
        problems
    }
}
