//! Rows of norm 1.

use tch::Tensor;

/// Smallest norm used as a divisor: that of `cosine_similarity` in torch, and of DINOv2's KoLeo.
/// It bounds the gradient of a row that is close to zero.
const NORM_EPS: f64 = 1e-8;

/// Divides each row by its norm.
pub(crate) fn unit_rows(x: &Tensor) -> Tensor {
    torch_ext::unit_rows(x, NORM_EPS)
}

/// Computes `sum_b |x_b - (x_b . u_b) u_b|^2`, the squared norm of the part of `x` that rotates the
/// unit rows `u`; the rest would only change their length. `[.., d], [.., d] -> []`
pub(crate) fn tangential_square(x: &Tensor, u: &Tensor) -> Tensor {
    let along = (x * u).sum_dim_intlist(-1, false, x.kind());
    x.square().sum(x.kind()) - along.square().sum(x.kind())
}
