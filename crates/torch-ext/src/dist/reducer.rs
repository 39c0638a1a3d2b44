//! Gradients averaged over processes: c10d's `Reducer`, the engine of PyTorch's
//! DistributedDataParallel.

use std::ffi::CString;
use std::ptr;

use tch::Tensor;

use super::ProcessGroup;
use crate::{Error, Result, ffi};

const WHAT: &str = "averaging gradients over all processes";

/// How gradients are averaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReducerOptions {
    /// Bytes of gradients that travel together; 25 MiB, as in PyTorch. A bucket starts on its way
    /// as soon as backward has filled it.
    pub bucket_bytes: usize,
    /// Whether a parameter may have no part in a loss. Costs a walk through the graph each step;
    /// without it such a parameter is an error.
    pub find_unused_parameters: bool,
}

impl Default for ReducerOptions {
    fn default() -> Self {
        Self { bucket_bytes: 25 << 20, find_unused_parameters: false }
    }
}

/// Averages the gradients of a list of parameters over the processes of a group, in buckets, while
/// backward is still computing others.
///
/// A step: [`Self::zero_grad`]; for all micro-batches but the last, forward and
/// [`Self::accumulate`], which exchanges nothing; for the last, [`Self::prepare_for_forward`],
/// forward, [`Self::backward`]. Then the gradient of each parameter is the mean over the processes
/// of what it has added up.
///
/// Afterwards the gradients are views into buckets. `Tensor::zero_grad` of tch refuses views, and
/// putting another tensor in the place of a gradient costs a copy in each step: use
/// [`Self::zero_grad`]. Parameters must not be replaced either, only changed in place.
///
/// With more than two processes the order in which numbers are added depends on the buckets. They
/// are laid out when it is made, from the parameters alone, so that a run that was interrupted
/// repeats the bits of one that was not (without [`ReducerOptions::find_unused_parameters`] c10d
/// itself would lay them out anew after the first step).
#[derive(Debug)]
pub struct Reducer {
    reducer: *mut ffi::Reducer,
    group: ProcessGroup,
}

impl Reducer {
    /// Registers with the parameters, which must be the same in each process and in the same
    /// order: see [`Collective::require_same`](super::Collective::require_same). All processes make
    /// theirs together; their gradients are 0 afterwards.
    ///
    /// # Errors
    /// No parameter, one that needs no gradient, or a name with a zero byte.
    pub fn new(
        group: &ProcessGroup,
        parameters: &[(String, Tensor)],
        options: ReducerOptions,
    ) -> Result<Self> {
        let names = checked_names(parameters)?;
        let name_pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
        let params: Vec<_> =
            parameters.iter().map(|(_, tensor)| tensor.as_ptr().cast_mut()).collect();
        let spec = ffi::ReducerSpec {
            params: params.as_ptr(),
            names: name_pointers.as_ptr(),
            len: params.len(),
            bucket_bytes: i64::try_from(options.bucket_bytes).unwrap_or(i64::MAX),
            find_unused: i32::from(options.find_unused_parameters),
        };
        let mut reducer = ptr::null_mut();
        // SAFETY: the lists in `spec` outlive the call; `reducer` is written before it returns.
        unsafe {
            let made = ffi::simdino_reducer_new(group.as_ptr(), &spec, &mut reducer);
            ffi::check(WHAT, made)?;
        }
        Ok(Self { reducer, group: group.clone() })
    }

    /// Before the forward pass of the micro-batch whose backward exchanges gradients.
    ///
    /// # Errors
    /// The step before was not finished, or a process is gone.
    pub fn prepare_for_forward(&self) -> Result<()> {
        self.group.perform(WHAT, || {
            // SAFETY: the reducer lives as long as `self`.
            unsafe { ffi::check(WHAT, ffi::simdino_reducer_prepare_forward(self.reducer)) }
        })
    }

    /// Before a backward pass that exchanges gradients and starts at these tensors;
    /// [`Self::backward`] does it by itself.
    ///
    /// # Errors
    /// The step before was not finished.
    pub fn prepare_for_backward(&self, outputs: &[Tensor]) -> Result<()> {
        let outputs = ffi::pointers(outputs);
        // SAFETY: the reducer lives as long as `self`, the list as long as this block.
        unsafe {
            let (list, len) = (outputs.as_ptr(), outputs.len());
            ffi::check(WHAT, ffi::simdino_reducer_prepare_backward(self.reducer, list, len))
        }
    }

    /// Backward from a loss. When it returns, the gradients are the mean over the processes.
    ///
    /// # Errors
    /// A process is gone; a parameter has no part in the loss.
    pub fn backward(&self, loss: &Tensor) -> Result<()> {
        self.prepare_for_backward(std::slice::from_ref(loss))?;
        self.group.perform(WHAT, || {
            let done = loss.f_backward();
            done.map_err(|error| Error::Torch { what: WHAT, message: error.to_string() })
        })?;
        self.check_finished()
    }

    /// Refuses a backward pass that reached only some of the parameters.
    fn check_finished(&self) -> Result<()> {
        let mut unused = 0;
        // SAFETY: the reducer lives as long as `self`; `unused` is written before the call returns.
        let done =
            unsafe { ffi::check(WHAT, ffi::simdino_reducer_unused(self.reducer, &mut unused)) };
        match done {
            Err(Error::Torch { message, .. }) if unused != 0 => {
                Err(Error::UnusedParameters { names: message })
            }
            other => other,
        }
    }

    /// Backward from a loss without an exchange: its gradients are added to those that are there.
    ///
    /// # Errors
    /// What backward refuses.
    pub fn accumulate(&self, loss: &Tensor) -> Result<()> {
        Ok(loss.f_backward()?)
    }

    /// Fills the gradients with zeros where they lie.
    ///
    /// # Errors
    /// None that is known.
    pub fn zero_grad(&self) -> Result<()> {
        // SAFETY: the reducer lives as long as `self`.
        unsafe { ffi::check("zero_grad", ffi::simdino_reducer_zero_grad(self.reducer)) }
    }
}

/// The names for C, of parameters that can be averaged.
fn checked_names(parameters: &[(String, Tensor)]) -> Result<Vec<CString>> {
    let refuse = |message: String| Error::Torch { what: "data-parallel parameters", message };
    if parameters.is_empty() {
        return Err(refuse("there are none".into()));
    }
    if let Some((name, _)) = parameters.iter().find(|(_, p)| !p.requires_grad()) {
        return Err(refuse(format!("{name} needs no gradient")));
    }
    let name = |(name, _): &(String, Tensor)| {
        CString::new(name.as_str()).map_err(|_| refuse("a name holds a zero byte".into()))
    };
    parameters.iter().map(name).collect()
}

impl Drop for Reducer {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and freed nowhere else.
        unsafe { ffi::simdino_reducer_free(self.reducer) };
    }
}
