//! Computes the backbones of a step, as a CUDA graph where that is possible.
//!
//! A GPU computes small networks faster than a CPU can launch their operations. The forward and
//! backward passes of both backbones are therefore recorded after a few steps and launched as a
//! whole from then on. Heads, loss, and optimizer are not part of the recording, because they
//! depend on schedules and on the number of masked patches.

use tch::Tensor;
use torch_ext::CudaGraph;

use crate::branch::Branch;
use crate::error::{Error, Result};
use crate::forward::{self, Features, Seen};

/// Number of steps before the recording. They set up what cannot be recorded, such as compiled
/// kernels.
const WARM_UP: u32 = 3;

/// Computes the backbones.
pub(crate) struct Recorder {
    state: State,
    problem: Option<String>,
}

enum State {
    /// Operations are always launched one by one.
    Off,
    /// Operations are launched one by one for this many more steps.
    Warming(u32),
    Recorded(CudaGraph),
}

impl Recorder {
    /// Creates a recorder, which records only if `on`.
    pub(crate) fn new(on: bool) -> Self {
        let state = if on { State::Warming(WARM_UP) } else { State::Off };
        Self { state, problem: None }
    }

    /// Takes the reason why the backbones could not be recorded, if there is one.
    pub(crate) fn take_problem(&mut self) -> Option<String> {
        self.problem.take()
    }

    /// Computes the features of student and teacher. Call it inside the autocast region of the
    /// networks.
    ///
    /// # Errors
    /// Returns an error if a network does not accept the views.
    pub(crate) fn features(
        &mut self,
        student: &Branch,
        teacher: &Branch,
        seen: &Seen,
    ) -> Result<[Features; 2]> {
        match &mut self.state {
            State::Warming(0) => match record(student, teacher, seen) {
                Ok(graph) => self.state = State::Recorded(graph),
                Err(error) => {
                    self.problem = Some(error.to_string());
                    self.state = State::Off;
                }
            },
            State::Warming(steps) => *steps -= 1,
            State::Off | State::Recorded(_) => {}
        }
        let inputs = inputs(seen);
        match &self.state {
            State::Recorded(graph) if graph.fits(&inputs) => {
                Ok(from_outputs(graph.replay(&inputs)?, seen))
            }
            _ => both(student, teacher, seen),
        }
    }
}

fn both(student: &Branch, teacher: &Branch, seen: &Seen) -> Result<[Features; 2]> {
    // The teacher goes first, because in this order the passes of a recording share memory.
    let teacher = forward::teacher(&teacher.network, seen)?;
    Ok([forward::student(&student.network, seen)?, teacher])
}

fn record(student: &Branch, teacher: &Branch, seen: &Seen) -> Result<CudaGraph> {
    let backbone = |branch: &Branch| {
        let named = branch.named().into_iter();
        named.filter(|(name, _)| name.starts_with("backbone.")).map(|(_, tensor)| tensor)
    };
    let (params, buffers): (Vec<_>, Vec<_>) = backbone(student).partition(Tensor::requires_grad);
    let mut constants: Vec<_> = backbone(teacher).chain(buffers).collect();
    for branch in [student, teacher] {
        constants.extend(branch.network.backbone.constants());
    }
    CudaGraph::record::<Error>(&inputs(seen), &params, &constants, |inputs| {
        let features = both(student, teacher, &like(seen, inputs))?;
        Ok(features.into_iter().flat_map(|f| [Some(f.cls), f.patches]).flatten().collect())
    })
}

/// Returns the tensors of `seen`, in the order that [`like`] expects.
fn inputs(seen: &Seen) -> Vec<Tensor> {
    let all = [Some(&seen.global), seen.local.as_ref(), seen.masks.as_ref()];
    all.into_iter().flatten().map(Tensor::shallow_clone).collect()
}

/// Returns `seen` with its tensors replaced by `inputs`.
fn like(seen: &Seen, inputs: &[Tensor]) -> Seen {
    let mut rest = inputs.iter().map(Tensor::shallow_clone);
    let mut next = |own: &Tensor| rest.next().unwrap_or_else(|| own.shallow_clone());
    Seen {
        global: next(&seen.global),
        local: seen.local.as_ref().map(&mut next),
        masks: seen.masks.as_ref().map(&mut next),
        part: seen.part,
    }
}

/// Returns the features of student and teacher from the outputs of a recording.
fn from_outputs(outputs: Vec<Tensor>, seen: &Seen) -> [Features; 2] {
    let mut outputs = outputs.into_iter();
    let mut next = || outputs.next().unwrap_or_default();
    [(); 2].map(|()| Features { cls: next(), patches: seen.masks.is_some().then(&mut next) })
}
