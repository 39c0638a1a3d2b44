//! The interface through which the program evaluates a network during training.

use model::VisionTransformer;

use crate::processes::Processes;

/// A periodic measurement of the teacher's backbone, for example k-NN accuracy.
///
/// Training must not depend on a probe's draws from torch's generators. The loop reseeds them at
/// every step, so drawing is harmless.
pub trait Probe {
    /// Name used in messages.
    fn name(&self) -> &str;

    /// Measures the backbone; the values are logged under their names, such as `probe/knn_top1`.
    ///
    /// All processes call it after the same step, and may share the work. The values of the first one
    /// count.
    ///
    /// # Errors
    /// Any error of the measurement, in any process, ends the run. A process that fails must not leave
    /// the others waiting in a collective operation.
    fn measure(
        &mut self,
        backbone: &VisionTransformer,
        processes: &Processes,
    ) -> Result<Vec<(String, f64)>, Box<dyn std::error::Error + Send + Sync>>;
}
