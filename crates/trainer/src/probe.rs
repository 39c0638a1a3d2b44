//! The interface through which the program evaluates a network during training.

use model::VisionTransformer;

use crate::plan::Plan;
use crate::processes::Processes;

/// Error of a probe.
pub type ProbeError = Box<dyn std::error::Error + Send + Sync>;

/// The state of a run that a probe measures.
#[derive(Clone, Copy)]
pub struct Moment<'a> {
    /// Number of steps completed.
    pub step: u64,
    /// Step counts of the run.
    pub plan: &'a Plan,
    /// The teacher's backbone.
    pub backbone: &'a VisionTransformer,
    /// All processes of the run.
    pub processes: &'a Processes,
}

/// What a probe has measured.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Measured {
    /// Values by the names under which they are logged, such as `probe/knn_top1`.
    pub values: Vec<(String, f64)>,
    /// Sentences that the user should read.
    pub warnings: Vec<String>,
}

/// Periodic measurements of the teacher's backbone, for example k-NN accuracy.
///
/// Training must not depend on a probe's draws from torch's generators. The loop reseeds them at
/// every step, so drawing is harmless.
pub trait Probe {
    /// Returns a word for what was measured last, or for what failed.
    fn name(&self) -> &str;

    /// Returns whether something is to be measured after `step` steps. The answer must depend only
    /// on the arguments, so that a resumed run makes the same measurements.
    fn due(&self, plan: &Plan, step: u64) -> bool;

    /// Measures what is due.
    ///
    /// All processes call this after the same step, and may share the work. The values of the first
    /// process count.
    ///
    /// # Errors
    /// Any error of the measurement, in any process, ends the run. A process that fails must not
    /// leave the others waiting in a collective operation.
    fn measure(&mut self, moment: &Moment<'_>) -> Result<Measured, ProbeError>;
}
