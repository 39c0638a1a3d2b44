//! Inputs of an objective: outputs of student and teacher, masks, and the position in the run.

use tch::{Kind, Tensor};
use torch_ext::Collective;

use crate::deferred::Deferred;
use crate::{Error, Result};

/// Number of global views of each image; the teacher sees only these.
pub const GLOBAL_VIEWS: i64 = 2;

/// Outputs of a network for the views of a (micro-)batch of `B` images.
#[derive(Debug)]
pub struct Outputs {
    /// Head outputs of class tokens, global views first: `[V, B, k]` for the student, which may
    /// see a single view, and `[2, B, k]` for the teacher. These are unit rows of width `d` for
    /// SimDINO and scores of `K` prototypes for DINO.
    pub cls: Tensor,
    /// Head outputs of the masked patches of the global views, `[m, k]`, in the order of
    /// [`MaskWeights::weights`]. The student saw them masked, and the teacher did not.
    pub patches: Option<Tensor>,
    /// Class tokens of the backbone for the global views, before the head: `[2, B, D]`. The next
    /// step may overwrite their memory, so copy what you keep.
    pub backbone: Option<Tensor>,
}

impl Outputs {
    /// Creates outputs that consist of class tokens only.
    pub fn of_cls(cls: Tensor) -> Self {
        Self { cls, patches: None, backbone: None }
    }
}

/// The information about masked patches that a loss needs.
#[derive(Debug)]
pub struct MaskWeights {
    /// The inverse of the number of masked patches in the same crop, `[m]`.
    pub weights: Tensor,
    /// Number of global crops, masked or not: `2 B`.
    pub crops: usize,
}

/// Position of a batch in the run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepContext {
    /// Number of optimizer steps completed.
    pub step: u64,
    /// Optimizer steps per epoch.
    pub steps_per_epoch: u64,
    /// Fraction of the training that is done, 0 to 1.
    pub progress: f64,
    /// Images per step of the whole run, over all processes and micro-batches.
    pub batch_size: usize,
}

impl StepContext {
    /// Creates the context of the first step of a run.
    pub fn first(batch_size: usize) -> Self {
        Self { step: 0, steps_per_epoch: 1, progress: 0.0, batch_size }
    }

    /// Returns how many of the `groups` of the whole batch a (micro-)batch of `batch` images
    /// contains. `key` is the config key, for messages, that determines the number or size of the
    /// groups.
    ///
    /// # Errors
    /// Returns an error if the whole batch does not divide into groups, or the batch is not a
    /// whole number of them.
    pub(crate) fn groups_of(
        &self,
        batch: usize,
        groups: usize,
        key: &'static str,
    ) -> Result<usize> {
        let whole = self.batch_size;
        if whole == 0 || !whole.is_multiple_of(groups) {
            return Err(Error::Groups { key, batch: whole, groups });
        }
        let rows = whole / groups;
        if !batch.is_multiple_of(rows) {
            return Err(Error::GroupRows { key, rows, batch });
        }
        Ok(batch / rows)
    }
}

/// All inputs of a loss.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The student's outputs, with gradients.
    pub student: &'a Outputs,
    /// The teacher's outputs, without gradients.
    pub teacher: &'a Outputs,
    /// `None` without masking.
    pub masked: Option<&'a MaskWeights>,
    /// Position of the batch in the run.
    pub context: StepContext,
    /// The processes of the run.
    pub collective: &'a dyn Collective,
    /// Collects values that must be finite instead of checking them immediately, so that nothing
    /// waits for the device. The loss is then always returned, but it is meaningless if one of
    /// these values is not finite. With `None`, such inputs give an error, or the loss after a
    /// retry.
    pub deferred: Option<&'a Deferred>,
}

impl Inputs<'_> {
    /// Checks values that must be finite, or records them for later.
    ///
    /// # Errors
    /// Returns an error if the values were checked and one is not finite.
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

/// Returns the shape of the student outputs `[V, B, k]` after checking that the teacher outputs
/// `[2, B, k]` match.
///
/// # Errors
/// Returns an error if shapes or data types are wrong.
pub(crate) fn check_cls(student: &Tensor, teacher: &Tensor) -> Result<(i64, i64, i64)> {
    let got = student.size();
    let &[views, batch, width] = got.as_slice() else {
        return Err(Error::Shape { what: "student features", expected: "[V, B, d]".into(), got });
    };
    if teacher.size() != [GLOBAL_VIEWS, batch, width] {
        let expected = format!("[2, {batch}, {width}], to match the student's");
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

/// Returns the type to compute in: double for a double tensor, single for every other type.
pub(crate) fn working_kind(x: &Tensor) -> Kind {
    if x.kind() == Kind::Double { Kind::Double } else { Kind::Float }
}
