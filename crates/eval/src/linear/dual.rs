//! Heads as sums of the features of the training images, which takes fewer operations where images are few.
//!
//! Without weight decay, SGD adds nothing to the first weights `W` but multiples of the rows `X` that it sees, so that the
//! weights are `W + X^T A`, with a row of `A` per image. A step then changes rows of `A`, and the logits of a batch are
//! products with the inner products of images, which are known from the start. Only rounding differs.

use tch::{Kind, Tensor};

/// The state of heads with the same features.
pub(super) struct Dual {
    rows: Tensor,     // [n, C], less their mean
    mean: Tensor,     // [1, C]
    products: Tensor, // [n, n], of rows with rows less their mean, which keeps large sums from canceling
    of_mean: Tensor,  // [n, 1], of rows with the mean
    first: Tensor,    // [n, H K], logits of the first weights
    factors: Tensor,  // [n, H K], A
    velocity: Tensor, // [n, H K]
}

impl Dual {
    /// Whether a step takes fewer operations than with the weights of `columns` features.
    pub(super) fn pays_off(images: i64, columns: i64) -> bool {
        2 * images < 3 * columns
    }

    /// For rows `[n, C]` and first weights `[C, H K]`.
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

    /// Logits of images `[B]`: `[B, H K]`.
    pub(super) fn logits(&self, images: &Tensor) -> Tensor {
        let of = |all: &Tensor| all.index_select(0, images);
        of(&self.first) + of(&self.products).matmul(&self.factors) + of(&self.of_mean) * self.sums()
    }

    /// A step of SGD from the gradient of the loss by the logits, `[B, H K]`; `rates` are `[1, H K]`.
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

    /// What has been added to the first weights, `[C, H K]`.
    pub(super) fn added(&self) -> Tensor {
        self.rows.tr().matmul(&self.factors) + self.mean.tr().matmul(&self.sums())
    }

    /// The tensors that change, by name.
    pub(super) fn tensors(&self) -> [(&'static str, Tensor); 2] {
        [("factors", self.factors.shallow_clone()), ("velocity", self.velocity.shallow_clone())]
    }

    fn sums(&self) -> Tensor {
        self.factors.sum_dim_intlist([0].as_slice(), true, Kind::Float) // [1, H K]
    }
}
