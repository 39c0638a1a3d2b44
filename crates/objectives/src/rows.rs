//! Rows of norm 1.

use tch::Tensor;

/// Least norm that is divided by.
const NORM_EPS: f64 = 1e-8;

/// Each row divided by its norm.
pub fn unit_rows(x: &Tensor) -> Tensor {
    let square = x.square().sum_dim_intlist(-1, true, x.kind());
    // The root of 0 has no derivative; clamping the square cuts it off.
    x / square.clamp_min(NORM_EPS * NORM_EPS).sqrt()
}

/// `sum_b |x_b - (x_b . u_b) u_b|^2`: the part of `x` that moves unit rows `u` at all; the rest
/// would only make them longer. `[.., d], [.., d] -> []`
pub fn tangential_square(x: &Tensor, u: &Tensor) -> Tensor {
    let along = (x * u).sum_dim_intlist(-1, false, x.kind());
    x.square().sum(x.kind()) - along.square().sum(x.kind())
}
