//! What the processes of a run do together, seen from one of them.

use tch::Tensor;

use crate::Result;

/// Operations that every process of a run takes part in, in the same order.
///
/// They act on values: nothing here is recorded by autograd.
pub trait Collective {
    /// Number of processes.
    fn size(&self) -> usize;

    /// Number of this process, from 0.
    fn rank(&self) -> usize;

    /// Replaces the tensor by its sum over all processes.
    ///
    /// # Errors
    /// A process that does not take part, or comes with another shape or data type.
    fn all_reduce_sum(&self, tensor: &mut Tensor) -> Result<()>;

    /// Replaces each number of the tensor by the largest of all processes.
    ///
    /// # Errors
    /// Like [`Self::all_reduce_sum`].
    fn all_reduce_max(&self, tensor: &mut Tensor) -> Result<()>;
}

/// A run of one process: nothing to exchange.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Collective for Alone {
    fn size(&self) -> usize {
        1
    }

    fn rank(&self) -> usize {
        0
    }

    fn all_reduce_sum(&self, _: &mut Tensor) -> Result<()> {
        Ok(())
    }

    fn all_reduce_max(&self, _: &mut Tensor) -> Result<()> {
        Ok(())
    }
}
