//! Heads represented as sums of training features, which takes fewer operations if there are few
//! images.
//!
//! Without weight decay, SGD only adds multiples of the rows `X` that it sees to the initial
//! weights `W`. The weights are therefore `W + X^T A`, where `A` has a row per image. A step
//! changes rows of `A`, and the logits of a batch follow from inner products between images, which
//! are computed once. The results differ only by rounding.

use tch::{Kind, Tensor};

/// The state of the heads that see the same features.
pub(super) struct Dual {
    rows: Tensor,     // [n, C], minus their mean
    mean: Tensor,     // [1, C]
    products: Tensor, // [n, n], of rows with centered rows, which avoids cancellation
    of_mean: Tensor,  // [n, 1], products of rows with the mean
    first: Tensor,    // [n, H K], logits of the initial weights
    factors: Tensor,  // [n, H K], A
    velocity: Tensor, // [n, H K]
}

impl Dual {
    /// Returns whether a step takes fewer operations than one on weights of `columns` features.
    pub(super) fn pays_off(images: i64, columns: i64) -> bool {
        2 * images < 3 * columns
    }

    /// Creates the state for rows `[n, C]` and initial weights `[C, H K]`.
    pub(super) fn new(rows: &Tensor, weight: &Tensor) -> Self {
        let mean = rows.mean_dim([0].as_slice(), true, Kind::Float);
        let centered = rows - &mean;
        let first = rows.matmul(weight);
        Self {
            products: rows.matmul(&centered.tr()),
            of_mean: rows.matmul(&mean.tr()),
            factors: first.zeros_like(),
            velocity: first.zeros_like(),
            rows: centered,
            mean,
            first,
        }
    }

    /// Computes the logits `[B, H K]` of the images with indices `[B]`.
    pub(super) fn logits(&self, images: &Tensor) -> Tensor {
        let of = |all: &Tensor| all.index_select(0, images);
        of(&self.first) + of(&self.products).matmul(&self.factors) + of(&self.of_mean) * self.sums()
    }

    /// Takes an SGD step. `errors` is the gradient of the loss with respect to the logits,
    /// `[B, H K]`; `rates` are `[1, H K]`.
    pub(super) fn update(
        &mut self,
        images: &Tensor,
        errors: &Tensor,
        rates: &Tensor,
        momentum: f64,
    ) {
        let _ = self.velocity.g_mul_scalar_(momentum);
        let _ = self.velocity.index_add_(0, images, errors);
        let _ = self.factors.addcmul_(&self.velocity, &-rates);
    }

    /// Returns the sum of all updates to the initial weights, `[C, H K]`.
    pub(super) fn added(&self) -> Tensor {
        self.rows.tr().matmul(&self.factors) + self.mean.tr().matmul(&self.sums())
    }

    /// Returns the tensors that change, by name.
    pub(super) fn tensors(&self) -> [(&'static str, Tensor); 2] {
        [("factors", self.factors.shallow_clone()), ("velocity", self.velocity.shallow_clone())]
    }

    fn sums(&self) -> Tensor {
        self.factors.sum_dim_intlist([0].as_slice(), true, Kind::Float) // [1, H K]
    }
}
