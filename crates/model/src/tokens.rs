//! What the backbone returns, and how it runs.

use tch::Tensor;

/// Whether the regularizers of training act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Stochastic depth is on: the student, on a batch that is all there is.
    Train,
    /// The same on some of the images of a larger batch. Draws that belong to an image are made for
    /// all of them and these images' taken, so from one state of the generator every part of the
    /// batch gets what it would get in the whole.
    TrainPart(ImageRange),
    /// Everything is deterministic: the teacher and every evaluation.
    Eval,
}

/// Which images of a larger batch are here. With `V` views of each, crop-major, the rows are those
/// of view 0, then those of view 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageRange {
    /// The first of them.
    pub first: i64,
    /// How many they are, at least 1.
    pub count: i64,
    /// How many there are in the whole batch.
    pub of: i64,
}

/// The final, normalized tokens of a batch.
#[derive(Debug)]
pub struct Tokens {
    /// Class token, `[B, D]`.
    pub cls: Tensor,
    /// Register tokens, `[B, R, D]`; `R` may be 0.
    pub registers: Tensor,
    /// Patch tokens in rows from the top left, `[B, N, D]`.
    pub patches: Tensor,
    /// Rows and columns of the patch grid; their product is `N`.
    pub grid: (i64, i64),
}

impl Tokens {
    /// Takes the sequence `[B, 1 + R + N, D]` apart, without copying.
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
