//! What an objective looks at: outputs of student and teacher, masks, and where the run stands.

use tch::{Kind, Tensor};
use torch_ext::Collective;

use crate::deferred::Deferred;
use crate::{Error, Result};

/// Global views of each image; the teacher sees these alone.
pub const GLOBAL_VIEWS: i64 = 2;

/// What a network made of the views of a (micro-)batch of `B` images.
#[derive(Debug)]
pub struct Outputs {
    /// Head outputs of class tokens, global views first: `[V, B, k]` of the student, which may see
    /// a single view, `[2, B, k]` of the teacher. Unit rows of width `d` for SimDINO, scores of `K`
    /// prototypes for DINO.
    pub cls: Tensor,
    /// Head outputs of the masked patches of the global views, `[m, k]`, in the order of
    /// [`MaskWeights::weights`]. The student saw them masked, the teacher did not.
    pub patches: Option<Tensor>,
    /// Class tokens of the backbone on the global views, before the head: `[2, B, D]`.
    pub backbone: Option<Tensor>,
}

impl Outputs {
    /// Of class tokens alone.
    pub fn of_cls(cls: Tensor) -> Self {
        Self { cls, patches: None, backbone: None }
    }
}

/// Which patches were masked, as far as a loss needs to know.
#[derive(Debug)]
pub struct MaskWeights {
    /// One over the number of masked patches of the same crop, `[m]`.
    pub weights: Tensor,
    /// Global crops, masked or not: `2 B`.
    pub crops: usize,
}

/// Where a batch stands in the run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepContext {
    /// Optimizer steps done.
    pub step: u64,
    /// Optimizer steps in a pass over the data.
    pub steps_per_epoch: u64,
    /// Share of the training that is done, 0 to 1.
    pub progress: f64,
    /// Images in a step of the whole run, over all processes and micro-batches.
    pub global_batch: usize,
}

impl StepContext {
    /// The first step of a run.
    pub fn first(global_batch: usize) -> Self {
        Self { step: 0, steps_per_epoch: 1, progress: 0.0, global_batch }
    }

    /// How many of the `groups` of the global batch a (micro-)batch of `batch` images is.
    ///
    /// # Errors
    /// A global batch that the groups do not divide, or a batch of other than whole groups.
    pub(crate) fn groups_of(&self, batch: usize, groups: usize) -> Result<usize> {
        let whole = self.global_batch;
        if whole == 0 || !whole.is_multiple_of(groups) {
            return Err(Error::Groups { what: "the global batch", batch: whole, groups });
        }
        let rows = whole / groups;
        if !batch.is_multiple_of(rows) {
            return Err(Error::GroupRows { rows, batch });
        }
        Ok(batch / rows)
    }
}

/// Everything that a loss is computed from.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// Gradients flow through it.
    pub student: &'a Outputs,
    /// No gradient flows through it.
    pub teacher: &'a Outputs,
    /// None without masking.
    pub masked: Option<&'a MaskWeights>,
    /// Where the batch stands in the run.
    pub context: StepContext,
    /// The processes of the run.
    pub collective: &'a dyn Collective,
    /// Where numbers that must be finite are noted instead of being looked at, so that nothing waits
    /// for the device. A loss is then given whatever they are; where one of them is not finite it
    /// means nothing, and without this the same inputs give the error, or the loss by a retry.
    pub deferred: Option<&'a Deferred>,
}

impl Inputs<'_> {
    /// Looks at numbers that must be finite, or notes them.
    ///
    /// # Errors
    /// They were looked at, and one is not finite.
    pub(crate) fn require_finite(&self, x: &Tensor, term: &'static str, what: &str) -> Result<()> {
        if let Some(deferred) = self.deferred {
            deferred.note(x);
            return Ok(());
        }
        let finite = f64::try_from(x.detach().isfinite().all())?; // sync
        if finite == 0.0 {
            return Err(Error::NonFinite { term, what: what.to_owned() });
        }
        Ok(())
    }
}

/// Shape of `[V, B, k]` student outputs that the teacher's `[2, B, k]` go with.
///
/// # Errors
/// Wrong shapes or data types.
pub(crate) fn check_cls(student: &Tensor, teacher: &Tensor) -> Result<(i64, i64, i64)> {
    let got = student.size();
    let &[views, batch, width] = got.as_slice() else {
        return Err(Error::Shape { what: "student features", expected: "[V, B, d]".into(), got });
    };
    if teacher.size() != [GLOBAL_VIEWS, batch, width] {
        let expected = format!("[2, {batch}, {width}], as the student's");
        return Err(Error::Shape { what: "teacher features", expected, got: teacher.size() });
    }
    check_kind("student features", student)?;
    check_kind("teacher features", teacher)?;
    if views == 0 || batch == 0 || width == 0 {
        let expected = "[V, B, d], all sizes at least 1".into();
        return Err(Error::Shape { what: "student features", expected, got });
    }
    Ok((views, batch, width))
}

pub(crate) fn check_kind(what: &'static str, x: &Tensor) -> Result<()> {
    match x.kind() {
        Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16 => Ok(()),
        got => Err(Error::Kind { what, got }),
    }
}

/// Double stays double; every other type is computed in single precision.
pub(crate) fn working_kind(x: &Tensor) -> Kind {
    if x.kind() == Kind::Double { Kind::Double } else { Kind::Float }
}
