//! `torch.nn.functional.normalize`, which tch does not have.

use tch::Tensor;

/// Divides each row by its norm, or by `least_norm` if that is larger. `[.., d] -> [.., d]`
///
/// Rows of zeros stay zeros. The derivative is finite everywhere and at most `1 / least_norm`:
/// code that differentiates a loss needs a larger value than code that only measures.
///
/// ```
/// use tch::Tensor;
///
/// let x = Tensor::from_slice(&[3.0, 4.0, 0.0, 0.0]).view([2, 2]);
/// let unit = torch_ext::unit_rows(&x, 1e-12);
/// assert_eq!(Vec::<Vec<f64>>::try_from(unit).unwrap(), [[0.6, 0.8], [0.0, 0.0]]);
/// ```
pub fn unit_rows(x: &Tensor, least_norm: f64) -> Tensor {
    let square = x.square().sum_dim_intlist(-1, true, x.kind());
    // The square root has no derivative at 0; clamping the square prevents that.
    x / square.clamp_min(least_norm * least_norm).sqrt()
}
