//! Averages gradients over processes with c10d's `Reducer`, the engine of PyTorch's
//! DistributedDataParallel.

use std::ffi::CString;
use std::ptr;

use tch::Tensor;

use super::ProcessGroup;
use crate::{Error, Result, ffi};

const WHAT: &str = "averaging gradients over all processes";

/// Options for averaging gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReducerOptions {
    /// Size of a gradient bucket in bytes; by default 25 MiB, as in PyTorch. The exchange of a
    /// bucket starts as soon as the backward pass has filled it.
    pub bucket_bytes: usize,
    /// Whether to allow parameters that do not contribute to the loss, which requires traversing
    /// the graph in each step. Otherwise, such a parameter is an error.
    pub find_unused_parameters: bool,
}

impl Default for ReducerOptions {
    fn default() -> Self {
        Self { bucket_bytes: 25 << 20, find_unused_parameters: false }
    }
}

/// Averages the gradients of a list of parameters over the processes of a group, in buckets, while
/// the backward pass is still computing others.
///
/// A step consists of [`Self::zero_grad`]; a forward pass and [`Self::accumulate`], which exchanges
/// nothing, for each micro-batch except the last; and [`Self::prepare_for_forward`], a forward
/// pass, and [`Self::backward`] for the last. Each gradient is then the mean over the processes of
/// the accumulated gradients.
///
/// The gradients are views into buckets. tch's `Tensor::zero_grad` rejects views, and replacing a
/// gradient with another tensor costs a copy in each step, so use [`Self::zero_grad`]. Parameters
/// must not be replaced either, only changed in place.
///
/// With more than two processes, the order of summation depends on the buckets. They are laid out
/// at construction from the parameters alone, so that a resumed run is bitwise equal to an
/// uninterrupted one (without [`ReducerOptions::find_unused_parameters`], c10d itself would
/// rearrange them after the first step).
#[derive(Debug)]
pub struct Reducer {
    reducer: *mut ffi::Reducer,
    group: ProcessGroup,
}

impl Reducer {
    /// Registers hooks on the parameters, which must be the same in each process and in the same
    /// order: see [`Collective::require_same`](super::Collective::require_same). All processes must
    /// call this together; the gradients are 0 afterwards.
    ///
    /// # Errors
    /// Returns an error if there are no parameters, if one requires no gradient, if a name contains
    /// a zero byte, or if a process has died.
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
        // c10d compares the parameters of all processes here, so this is a collective operation.
        let reducer = group.perform(WHAT, || {
            let mut reducer = ptr::null_mut();
            // SAFETY: the lists in `spec` outlive the call; `reducer` is written before it returns.
            unsafe {
                let made = ffi::simdino_reducer_new(group.as_ptr(), &spec, &mut reducer);
                ffi::check(WHAT, made)?;
            }
            Ok(reducer)
        })?;
        Ok(Self { reducer, group: group.clone() })
    }

    /// Prepares for the forward pass of the micro-batch whose backward pass exchanges gradients;
    /// call it before that forward pass.
    ///
    /// # Errors
    /// Returns an error if the previous step was not finished or a process has died.
    pub fn prepare_for_forward(&self) -> Result<()> {
        self.group.perform(WHAT, || {
            // SAFETY: the reducer lives as long as `self`.
            unsafe { ffi::check(WHAT, ffi::simdino_reducer_prepare_forward(self.reducer)) }
        })
    }

    /// Prepares for a backward pass that starts at these tensors and exchanges gradients.
    /// [`Self::backward`] calls this itself.
    ///
    /// # Errors
    /// Returns an error if the previous step was not finished.
    pub fn prepare_for_backward(&self, outputs: &[Tensor]) -> Result<()> {
        let outputs = ffi::pointers(outputs);
        // SAFETY: the reducer lives as long as `self`, the list as long as this block.
        unsafe {
            let (list, len) = (outputs.as_ptr(), outputs.len());
            ffi::check(WHAT, ffi::simdino_reducer_prepare_backward(self.reducer, list, len))
        }
    }

    /// Runs the backward pass of a loss. When it returns, the gradients are the means over the
    /// processes.
    ///
    /// # Errors
    /// Returns an error if a process has died or a parameter does not contribute to the loss.
    pub fn backward(&self, loss: &Tensor) -> Result<()> {
        self.prepare_for_backward(std::slice::from_ref(loss))?;
        self.group.perform(WHAT, || {
            let done = loss.f_backward();
            done.map_err(|error| Error::Torch { what: WHAT, message: error.to_string() })
        })?;
        self.check_finished()
    }

    /// Returns an error if a backward pass reached only some of the parameters.
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

    /// Runs the backward pass of a loss without exchanging gradients, and adds its gradients to the
    /// existing ones.
    ///
    /// # Errors
    /// Returns an error if the backward pass fails.
    pub fn accumulate(&self, loss: &Tensor) -> Result<()> {
        Ok(loss.f_backward()?)
    }

    /// Fills the gradients with zeros in place.
    ///
    /// # Errors
    /// No errors are known.
    pub fn zero_grad(&self) -> Result<()> {
        // SAFETY: the reducer lives as long as `self`.
        unsafe { ffi::check("zero_grad", ffi::simdino_reducer_zero_grad(self.reducer)) }
    }
}

/// Checks that the parameters can be averaged, and converts their names to C strings.
fn checked_names(parameters: &[(String, Tensor)]) -> Result<Vec<CString>> {
    let refuse = |message: String| Error::Torch { what: "data-parallel parameters", message };
    if parameters.is_empty() {
        return Err(refuse("there are none".into()));
    }
    if let Some((name, _)) = parameters.iter().find(|(_, p)| !p.requires_grad()) {
        return Err(refuse(format!("{name} does not require a gradient")));
    }
    let name = |(name, _): &(String, Tensor)| {
        CString::new(name.as_str()).map_err(|_| refuse("a name contains a NUL byte".into()))
    };
    parameters.iter().map(name).collect()
}

impl Drop for Reducer {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and freed nowhere else.
        unsafe { ffi::simdino_reducer_free(self.reducer) };
    }
}
