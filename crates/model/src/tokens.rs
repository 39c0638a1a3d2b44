//! What the backbone returns, and how it runs.

use tch::Tensor;

/// Whether the regularisers of training act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Stochastic depth is on: the student.
    Train,
    /// Everything is deterministic: the teacher and every evaluation.
    Eval,
}

/// The final, normalised tokens of a batch.
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
