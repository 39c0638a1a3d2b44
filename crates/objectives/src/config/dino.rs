//! Options of the losses with prototypes: DINO and DINOv2.

use base::check::{Check, Problem};
use serde::{Deserialize, Serialize};

use super::WarmupForm;

/// How the teacher's targets are protected from collapse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Centering {
    /// Subtract a moving average of the teacher's scores before the softmax.
    #[default]
    Softmax,
    /// Normalize the targets with the Sinkhorn-Knopp algorithm, so that every prototype gets the
    /// same share of the batch.
    SinkhornKnopp,
}

/// Prototypes and their targets. Section `dino`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct DinoConfig {
    /// Temperature of the student's softmax. 0.1 in DINO and DINOv2.
    pub student_temp: f64,
    /// Temperature of the teacher's softmax at the start. 0.04 in DINO and DINOv2.
    pub teacher_temp_start: f64,
    /// Temperature of the teacher's softmax after its warm-up. 0.04 in DINO's default recipe, 0.07
    /// in its longer runs and in DINOv2.
    pub teacher_temp: f64,
    /// Length of the linear warm-up of the teacher's temperature, in epochs. 0 in DINO's default
    /// recipe, 30 in its longer runs and in DINOv2.
    pub teacher_temp_warmup_epochs: f64,
    /// First step (in DINO, which changes the temperature once per epoch: first epoch) with the
    /// final temperature. `exclusive` in the DINOv2 that SimDINOv2 is compared with.
    pub teacher_temp_warmup_form: WarmupForm,
    /// How targets are protected from collapse. DINO supports only `softmax`.
    pub centering: Centering,
    /// Momentum of the moving average that `softmax` subtracts. 0.9 in DINO and DINOv2.
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
        let mut check = Check::default();
        check.positive("student_temp", self.student_temp);
        check.positive("teacher_temp_start", self.teacher_temp_start);
        check.positive("teacher_temp", self.teacher_temp);
        check.not_negative("teacher_temp_warmup_epochs", self.teacher_temp_warmup_epochs);
        check.below_one("center_momentum", self.center_momentum);
        check.problems()
    }
}
