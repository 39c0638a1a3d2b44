//! Losses of masked patches: the student's output for a patch that it did not see is compared with
//! that of the teacher, which saw the patch.
//!
//! `m` masked patches of the `2B` global crops. Each crop has the same weight, however many of its
//! patches were masked, and crops without masks count in the divisor:
//!
//! ```text
//! for j in 0..m:  loss -= weight[j] * similarity(teacher[j], student[j]) / (2B)
//! weight[j] = 1 / masked patches of the crop of j
//! ```
//!
//! With half of the crops masked, a perfect prediction therefore has loss -1/2. Without any masked
//! patches, the loss is 0.
//!
//! # Source
//! SimDINOv2, masked patch loss, `CosinePatchLoss.forward_masked` of RobinWu218/SimDINO@8149fc4;
//! iBOT as in DINOv2.

use tch::Tensor;

use crate::inputs::{Inputs, MaskWeights, check_kind, working_kind};
use crate::rows::unit_rows;
use crate::{Error, Result};

/// Patches of the student and the teacher with their weights, in working precision.
pub(crate) struct PatchPairs<'a> {
    /// `[m, k]`, with gradients.
    pub student: Tensor,
    /// `[m, k]`, without gradients.
    pub teacher: Tensor,
    masked: &'a MaskWeights,
}

impl<'a> PatchPairs<'a> {
    /// Extracts the patches of a batch.
    ///
    /// # Errors
    /// Returns an error if outputs or weights are missing or do not match.
    pub(crate) fn of(inputs: &Inputs<'a>) -> Result<Self> {
        let missing = |what| Error::Missing { what };
        let masked = inputs.masked.ok_or(missing("masks"))?;
        let student = inputs.student.patches.as_ref().ok_or(missing("patches of the student"))?;
        let teacher = inputs.teacher.patches.as_ref().ok_or(missing("patches of the teacher"))?;
        check(student, teacher, masked)?;
        let kind = working_kind(student);
        Ok(Self { student: student.to_kind(kind), teacher: teacher.detach().to_kind(kind), masked })
    }

    /// Computes `-sum_j weight_j similarity_j / (2B)` from similarities `[m]`; 0-dimensional.
    pub(crate) fn loss(&self, similarity: &Tensor) -> Tensor {
        let weights = self.masked.weights.to_kind(similarity.kind());
        (similarity * weights).sum(similarity.kind()) / -(self.masked.crops as f64)
    }

    /// Computes [`Self::loss`] with the cosine similarity.
    pub(crate) fn cosine_loss(&self) -> Tensor {
        let products = unit_rows(&self.student) * unit_rows(&self.teacher); // [m, k]
        self.loss(&products.sum_dim_intlist(-1, false, products.kind()))
    }
}

fn check(student: &Tensor, teacher: &Tensor, masked: &MaskWeights) -> Result<()> {
    let got = student.size();
    if got.len() != 2 {
        return Err(Error::Shape {
            what: "patches of the student",
            expected: "[m, k]".into(),
            got,
        });
    }
    if teacher.size() != got {
        let expected = format!("{got:?}, to match the student's");
        let got = teacher.size();
        return Err(Error::Shape { what: "patches of the teacher", expected, got });
    }
    if masked.weights.size() != [got[0]] {
        let expected = format!("[{}], one number per masked patch", got[0]);
        let got = masked.weights.size();
        return Err(Error::Shape { what: "weights of the masked patches", expected, got });
    }
    if masked.crops == 0 {
        let expected = "at least 1";
        return Err(Error::Number { what: "number of global crops", expected, got: 0.0 });
    }
    check_kind("patches of the student", student)?;
    check_kind("patches of the teacher", teacher)
}
