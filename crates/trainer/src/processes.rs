//! The processes of a run, seen from one of them.

use tch::Tensor;
use torch_ext::{Collective, ProcessGroup, Reducer, ReducerOptions, SingleProcess};

use crate::error::Result;

/// One process, or a group of them.
#[derive(Debug, Clone, Default)]
pub enum Processes {
    /// There is no other.
    #[default]
    Single,
    /// Connected to the others.
    Group(ProcessGroup),
}

impl Processes {
    /// What they do together.
    pub fn collective(&self) -> &dyn Collective {
        match self {
            Self::Single => &SingleProcess,
            Self::Group(group) => group,
        }
    }

    /// Number of this process, from 0. The first one writes.
    pub fn rank(&self) -> usize {
        self.collective().rank()
    }

    /// Number of processes.
    pub fn size(&self) -> usize {
        self.collective().size()
    }

    /// Whether any process says yes.
    ///
    /// # Errors
    /// A process does not answer.
    pub fn any(&self, own: bool) -> Result<bool> {
        if self.size() == 1 {
            return Ok(own);
        }
        let mut any = Tensor::from_slice(&[f32::from(u8::from(own))]);
        self.collective().all_reduce_max(&mut any)?;
        Ok(any.double_value(&[0]) != 0.0)
    }
}

/// Gradients of a list of parameters, summed over micro-batches and averaged over processes.
pub enum Gradients {
    /// Of one process.
    Own(Vec<Tensor>),
    /// Exchanged while backward computes them.
    Shared(Reducer),
}

impl Gradients {
    /// Of named parameters, of which every process has the same.
    ///
    /// # Errors
    /// Other parameters in another process, or a process that does not answer.
    pub fn new(processes: &Processes, named: &[(String, Tensor)]) -> Result<Self> {
        let own = || named.iter().map(|(_, parameter)| parameter.shallow_clone()).collect();
        let Processes::Group(group) = processes else { return Ok(Self::Own(own())) };
        group.require_same(named)?;
        Ok(Self::Shared(Reducer::new(group, named, ReducerOptions::default())?))
    }

    /// Before a step.
    ///
    /// # Errors
    /// A libtorch operation fails.
    pub fn clear(&mut self) -> Result<()> {
        match self {
            Self::Own(parameters) => torch_ext::drop_gradients(parameters)?,
            Self::Shared(reducer) => reducer.zero_grad()?,
        }
        Ok(())
    }

    /// Before the forward pass of a micro-batch; the last one of a step is the one whose backward
    /// exchanges.
    ///
    /// # Errors
    /// A process that is gone.
    pub fn prepare(&self, last: bool) -> Result<()> {
        match self {
            Self::Shared(reducer) if last => Ok(reducer.prepare_for_forward()?),
            _ => Ok(()),
        }
    }

    /// Adds the gradients of a micro-batch's loss; after the last one they are means over all
    /// processes.
    ///
    /// # Errors
    /// A process that is gone; a parameter without part in the loss.
    pub fn backward(&self, loss: &Tensor, last: bool) -> Result<()> {
        match self {
            Self::Own(_) => Ok(loss.f_backward()?),
            Self::Shared(reducer) if last => Ok(reducer.backward(loss)?),
            Self::Shared(reducer) => Ok(reducer.accumulate(loss)?),
        }
    }
}
