//! The teacher: an exponential moving average of the student.

use tch::Tensor;

use crate::branch::Branch;
use crate::error::Result;

/// Handles to all variables of both networks, in the same order.
pub(crate) struct MovingAverage {
    teacher: Vec<Tensor>,
    student: Vec<Tensor>,
}

impl MovingAverage {
    /// Creates the average. From now on, the variables may only be modified in place, never
    /// replaced.
    pub(crate) fn new(teacher: &Branch, student: &Branch) -> Self {
        let tensors =
            |side: &Branch| -> Vec<Tensor> { side.named().into_iter().map(|(_, t)| t).collect() };
        Self { teacher: tensors(teacher), student: tensors(student) }
    }

    /// Updates all variables, `teacher <- m teacher + (1 - m) student`, in one foreach call.
    ///
    /// # Errors
    /// Returns an error if a libtorch operation fails.
    pub(crate) fn update(&self, momentum: f64) -> Result<()> {
        if momentum >= 1.0 {
            return Ok(());
        }
        Ok(torch_ext::foreach_lerp_(&self.teacher, &self.student, 1.0 - momentum)?)
    }
}
