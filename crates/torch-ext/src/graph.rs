//! CUDA graphs, which replace hundreds of small kernel launches with one.

use std::ptr;

use tch::Tensor;

use crate::{Result, autocast, ffi};

type Outputs<E> = std::result::Result<Vec<Tensor>, E>;

const WHAT: &str = "recording a CUDA graph";

/// A function and its backward pass on a CUDA device, recorded once and then launched as a whole.
/// For small networks, launching operations one by one takes longer than computing them.
///
/// A replay computes what the function would compute, with new random numbers from the device's
/// default generator. Only operations on the device are recorded, with their shapes and the
/// addresses of parameters. Decisions that the function made on the CPU are not made again, so they
/// must not depend on anything that changes between replays.
#[derive(Debug)]
pub struct CudaGraph {
    graph: *mut ffi::Graph,
    sizes: Vec<Vec<i64>>,
    outputs: usize,
}

impl CudaGraph {
    /// Records `body`, which receives copies of `inputs`. `params` get gradients in the backward
    /// pass of a replay; `constants` are all other tensors that `body` reads. The values of both
    /// may change later, but the tensors must not be replaced.
    ///
    /// Call it inside the autocast region of the function, if it has one. The function and its
    /// backward pass must have run at least once without recording, because the setup on first use
    /// cannot be recorded. The call waits for the device. During the call, no other thread may draw
    /// from the device's generator, and no parameter may be part of an autograd graph that is still
    /// alive.
    ///
    /// # Errors
    /// Returns an error if `body` does, if the inputs are not on a CUDA device, or if an operation
    /// cannot be recorded, for example because it waits for the device. The device remains usable;
    /// its generator restarts from its seed.
    pub fn record<E: From<crate::Error>>(
        inputs: &[Tensor],
        params: &[Tensor],
        constants: &[Tensor],
        body: impl FnOnce(&[Tensor]) -> Outputs<E>,
    ) -> std::result::Result<Self, E> {
        let mut recorded = vec![ptr::null_mut(); inputs.len()];
        let mut graph = ptr::null_mut();
        let list = ffi::pointers(inputs);
        // SAFETY: the inputs are alive for the call, and `recorded` has room for as many pointers.
        let begun = unsafe {
            let (list, len) = (list.as_ptr(), list.len());
            ffi::check(WHAT, ffi::simdino_graph_begin(list, len, &mut graph, recorded.as_mut_ptr()))
        };
        begun?;
        let sizes = inputs.iter().map(Tensor::size).collect();
        // From here on, dropping `made` ends the recording.
        let mut made = Self { graph, sizes, outputs: 0 };
        // SAFETY: without an error, these are new tensors, and we become their only owners.
        let recorded: Vec<Tensor> =
            recorded.into_iter().map(|tensor| unsafe { Tensor::from_ptr(tensor) }).collect();
        let outputs = body(&recorded)?;
        made.outputs = outputs.len();
        let device = inputs.first().map_or(tch::Device::Cpu, Tensor::device);
        // A backward pass runs outside of autocast.
        autocast(device, None, || made.end(&outputs, params, constants))??;
        Ok(made)
    }

    fn end(&self, outputs: &[Tensor], params: &[Tensor], constants: &[Tensor]) -> Result<()> {
        let [outputs, params, constants] = [outputs, params, constants].map(ffi::pointers);
        // SAFETY: the graph lives as long as `self`; the lists and their tensors outlive the call.
        unsafe {
            let ended = ffi::simdino_graph_end(
                self.graph,
                outputs.as_ptr(),
                outputs.len(),
                params.as_ptr(),
                params.len(),
                constants.as_ptr(),
                constants.len(),
            );
            ffi::check(WHAT, ended)
        }
    }

    /// Returns whether the inputs have the shapes of the recorded ones.
    pub fn fits(&self, inputs: &[Tensor]) -> bool {
        inputs.iter().map(Tensor::size).eq(self.sizes.iter().cloned())
    }

    /// Computes the outputs for these inputs. The outputs share the recording's memory, so they are
    /// valid until the next replay. Their backward pass sets the gradients of the recorded
    /// parameters, which must have none before.
    ///
    /// # Errors
    /// Returns an error if the number of inputs, or the shape, data type, or device of one, differs
    /// from the recording, or if a parameter or constant was replaced.
    pub fn replay(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let list = ffi::pointers(inputs);
        let mut out = vec![ptr::null_mut(); self.outputs];
        // SAFETY: the inputs are alive for the call, and `out` has room for one pointer per output.
        unsafe {
            let (list, len) = (list.as_ptr(), list.len());
            let made = ffi::simdino_graph_replay(self.graph, list, len, out.as_mut_ptr());
            ffi::check("replaying a CUDA graph", made)?;
            // Without an error, these are new tensors, and we become their only owners.
            Ok(out.into_iter().map(|tensor| Tensor::from_ptr(tensor)).collect())
        }
    }
}

impl Drop for CudaGraph {
    fn drop(&mut self) {
        // SAFETY: made by `record`, and freed nowhere else.
        unsafe { ffi::simdino_graph_free(self.graph) };
    }
}
