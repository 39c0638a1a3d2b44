//! What the processes of a run do together, seen from one of them.

use tch::Tensor;

use super::exchange;
use crate::Result;

/// Operations that every process of a run takes part in, in the same order.
///
/// They act on values: nothing here is recorded by autograd. [`ProcessGroup`] also has a sum that
/// gradients flow through.
///
/// # Errors
/// Each fails where a process is gone, late by more than the group's timeout, or comes with another
/// operation, shape or data type.
///
/// [`ProcessGroup`]: crate::ProcessGroup
pub trait Collective {
    /// Number of processes.
    fn size(&self) -> usize;

    /// Number of this process, from 0.
    fn rank(&self) -> usize;

    /// Replaces the tensor by its sum over all processes.
    ///
    /// # Errors
    /// See [`Collective`].
    fn all_reduce_sum(&self, tensor: &mut Tensor) -> Result<()>;

    /// Replaces each number of the tensor by the largest of all processes.
    ///
    /// # Errors
    /// See [`Collective`].
    fn all_reduce_max(&self, tensor: &mut Tensor) -> Result<()>;

    /// Replaces the values of the tensors by those of process `root`, in few messages.
    ///
    /// # Errors
    /// See [`Collective`].
    fn broadcast_all(&self, tensors: &[Tensor], root: usize) -> Result<()>;

    /// The tensor of each process, by rank. All have one shape and data type.
    ///
    /// # Errors
    /// See [`Collective`].
    fn all_gather(&self, tensor: &Tensor) -> Result<Vec<Tensor>>;

    /// Waits until every process is here.
    ///
    /// # Errors
    /// See [`Collective`].
    fn barrier(&self) -> Result<()>;

    /// Replaces the tensor's values by those of process `root`.
    ///
    /// # Errors
    /// See [`Collective`].
    fn broadcast(&self, tensor: &mut Tensor, root: usize) -> Result<()> {
        self.broadcast_all(std::slice::from_ref(tensor), root)
    }

    /// The bytes of process `root`; those of the others are not looked at.
    ///
    /// # Errors
    /// See [`Collective`].
    fn broadcast_bytes(&self, bytes: &[u8], root: usize) -> Result<Vec<u8>> {
        exchange::broadcast_bytes(self, bytes, root)
    }

    /// The bytes of each process, by rank; lengths may differ.
    ///
    /// # Errors
    /// See [`Collective`].
    fn all_gather_bytes(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        exchange::all_gather_bytes(self, bytes)
    }

    /// The text of each process, by rank.
    ///
    /// # Errors
    /// See [`Collective`].
    fn all_gather_text(&self, text: &str) -> Result<Vec<String>> {
        let all = self.all_gather_bytes(text.as_bytes())?;
        Ok(all.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect())
    }

    /// Compares names, shapes and data types of parameters with those of process 0.
    ///
    /// # Errors
    /// The first process that differs and its first parameter that does, in every process; also
    /// see [`Collective`].
    fn require_same(&self, parameters: &[(String, Tensor)]) -> Result<()> {
        exchange::require_same(self, parameters)
    }
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

    fn broadcast_all(&self, _: &[Tensor], _: usize) -> Result<()> {
        Ok(())
    }

    fn all_gather(&self, tensor: &Tensor) -> Result<Vec<Tensor>> {
        Ok(vec![tensor.detach().copy()])
    }

    fn barrier(&self) -> Result<()> {
        Ok(())
    }
}
