//! Outputs of the backbone, and its modes.

use tch::Tensor;

/// Whether the regularization used in training is active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Stochastic depth is on. Used for the student, with a complete batch.
    Train,
    /// The same as `Train`, for a part of a larger batch. With `drop_path_form: image`, random
    /// numbers are drawn for the whole batch and those of this part are used, so that, from the
    /// same generator state, the images of each part get the same draws as in the whole batch.
    /// With `drop_path_form: batch`, each part drops its own share.
    TrainPart(ImageRange),
    /// Everything is deterministic. Used for the teacher and for evaluation.
    Eval,
}

/// A range of images within a larger batch. If there are `V` views of each image, the rows are
/// ordered by view: first view 0 of all images in the range, then view 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageRange {
    /// Index of the first image.
    pub first: i64,
    /// Number of images, at least 1.
    pub count: i64,
    /// Number of images in the whole batch.
    pub of: i64,
}

/// The final, normalized tokens of a batch.
#[derive(Debug)]
pub struct Tokens {
    /// Class token, `[B, D]`.
    pub cls: Tensor,
    /// Register tokens, `[B, R, D]`; `R` may be 0.
    pub registers: Tensor,
    /// Patch tokens in row-major order from the top left, `[B, N, D]`.
    pub patches: Tensor,
    /// Rows and columns of the patch grid, whose product is `N`.
    pub grid: (i64, i64),
}

impl Tokens {
    /// Splits the sequence `[B, 1 + R + N, D]` without copying.
    pub(crate) fn split(sequence: &Tensor, grid: (i64, i64)) -> Self {
        let patches = grid.0 * grid.1;
        let registers = sequence.size()[1] - 1 - patches;
        Self {
            cls: sequence.select(1, 0),                          // [B, T, D] -> [B, D]
            registers: sequence.narrow(1, 1, registers),         // -> [B, R, D]
            patches: sequence.narrow(1, 1 + registers, patches), // -> [B, N, D]
            grid,
        }
    }
}
