//! The seam through which the program looks at a network while it trains.

use model::VisionTransformer;

/// Something measured on the teacher's backbone from time to time, for example k-NN accuracy.
///
/// A probe must not draw from torch's generators in a way that training depends on; the loop
/// reseeds them at every step, so drawing is harmless.
pub trait Probe {
    /// Name for messages.
    fn name(&self) -> &str;

    /// Measures the backbone; the values are logged under their names, such as `probe/knn_top1`.
    ///
    /// # Errors
    /// Whatever the measurement met; the run stops with it.
    fn measure(
        &mut self,
        backbone: &VisionTransformer,
    ) -> Result<Vec<(String, f64)>, Box<dyn std::error::Error + Send + Sync>>;
}
