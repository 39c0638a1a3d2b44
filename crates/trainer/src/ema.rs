//! The teacher: an exponential moving average of the student.

use tch::Tensor;

use crate::branch::Branch;
use crate::error::Result;

/// `teacher <- m teacher + (1 - m) student`, over all variables in one foreach call.
pub fn update(teacher: &Branch, student: &Branch, momentum: f64) -> Result<()> {
    if momentum >= 1.0 {
        return Ok(());
    }
    let tensors =
        |side: &Branch| -> Vec<Tensor> { side.named().into_iter().map(|(_, t)| t).collect() };
    torch_ext::foreach_lerp_(&tensors(teacher), &tensors(student), 1.0 - momentum)?;
    Ok(())
}
