//! The processes of a run, as seen by one of them.

use tch::Tensor;
use torch_ext::{Collective, ProcessGroup, Reducer, ReducerOptions, SingleProcess};

use crate::error::Result;

/// A single process or a group of processes.
#[derive(Debug, Clone, Default)]
pub enum Processes {
    /// There is only this process.
    #[default]
    Single,
    /// This process is connected to the others.
    Group(ProcessGroup),
}

impl Processes {
    /// Returns the collective operations of these processes.
    pub fn collective(&self) -> &dyn Collective {
        match self {
            Self::Single => &SingleProcess,
            Self::Group(group) => group,
        }
    }

    /// Returns the rank of this process, from 0. Only rank 0 writes files.
    pub fn rank(&self) -> usize {
        self.collective().rank()
    }

    /// Returns the number of processes.
    pub fn size(&self) -> usize {
        self.collective().size()
    }

    /// Returns whether `own` is true in any process.
    ///
    /// # Errors
    /// Returns an error if a process does not respond.
    pub fn any(&self, own: bool) -> Result<bool> {
        if self.size() == 1 {
            return Ok(own);
        }
        let mut any = Tensor::from_slice(&[f32::from(u8::from(own))]);
        self.collective().all_reduce_max(&mut any)?;
        Ok(any.double_value(&[0]) != 0.0)
    }

    /// Returns the sum of a count over all processes.
    ///
    /// # Errors
    /// Returns an error if a process does not respond.
    pub fn sum(&self, own: u64) -> Result<u64> {
        if self.size() == 1 {
            return Ok(own);
        }
        let mut sum = Tensor::from_slice(&[own as i64]);
        self.collective().all_reduce_sum(&mut sum)?;
        Ok(sum.int64_value(&[0]) as u64)
    }
}

/// Gradients of a list of parameters, summed over micro-batches and averaged over processes.
pub enum Gradients {
    /// Gradients of a single process.
    Own(Vec<Tensor>),
    /// Gradients that are exchanged while the backward pass computes them.
    Shared(Reducer),
}

impl Gradients {
    /// Creates the gradients of named parameters, which must be the same in every process.
    ///
    /// # Errors
    /// Returns an error if another process has different parameters or does not respond.
    pub fn new(processes: &Processes, named: &[(String, Tensor)]) -> Result<Self> {
        let own = || named.iter().map(|(_, parameter)| parameter.shallow_clone()).collect();
        let Processes::Group(group) = processes else { return Ok(Self::Own(own())) };
        group.require_same(named)?;
        Ok(Self::Shared(Reducer::new(group, named, ReducerOptions::default())?))
    }

    /// Clears the gradients before a step.
    ///
    /// # Errors
    /// Returns an error if a libtorch operation fails.
    pub fn clear(&mut self) -> Result<()> {
        match self {
            Self::Own(parameters) => torch_ext::drop_gradients(parameters)?,
            Self::Shared(reducer) => reducer.zero_grad()?,
        }
        Ok(())
    }

    /// Prepares for a micro-batch; call it before the forward pass. Gradients are exchanged in the
    /// backward pass of the last micro-batch of a step.
    ///
    /// # Errors
    /// Returns an error if a process has died.
    pub fn prepare(&self, last: bool) -> Result<()> {
        match self {
            Self::Shared(reducer) if last => Ok(reducer.prepare_for_forward()?),
            _ => Ok(()),
        }
    }

    /// Adds the gradients of a micro-batch's loss; after the last one, they are means over all
    /// processes.
    ///
    /// # Errors
    /// Returns an error if a process has died or a parameter does not contribute to the loss.
    pub fn backward(&self, loss: &Tensor, last: bool) -> Result<()> {
        match self {
            Self::Own(_) => Ok(loss.f_backward()?),
            Self::Shared(reducer) if last => Ok(reducer.backward(loss)?),
            Self::Shared(reducer) => Ok(reducer.accumulate(loss)?),
        }
    }
}
