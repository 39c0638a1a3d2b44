//! `torch.nn.functional.normalize`, which tch does not have.

use tch::{Kind, Tensor};

/// Divides each row by its Euclidean norm, or by `least_norm` if that is larger.
/// `[.., d] -> [.., d]`
///
/// Rows of zeros stay zeros. The derivative is finite everywhere and at most `1 / least_norm`, so
/// code that differentiates a loss needs a larger value than code that only measures.
/// Half-precision rows are computed in single precision, because squares of values from 256 on
/// overflow.
///
/// ```
/// use tch::Tensor;
///
/// let x = Tensor::from_slice(&[3.0, 4.0, 0.0, 0.0]).view([2, 2]);
/// let unit = torch_ext::unit_rows(&x, 1e-12);
/// assert_eq!(Vec::<Vec<f64>>::try_from(unit).unwrap(), [[0.6, 0.8], [0.0, 0.0]]);
/// ```
pub fn unit_rows(x: &Tensor, least_norm: f64) -> Tensor {
    let kind = x.kind();
    let x = if kind == Kind::Half { x.to_kind(Kind::Float) } else { x.shallow_clone() };
    let square = x.square().sum_dim_intlist(-1, true, x.kind());
    // The square root has no derivative at 0, so the square is clamped before it.
    (&x / square.clamp_min(least_norm * least_norm).sqrt()).to_kind(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_neither_overflows_nor_divides_by_nothing() {
        let x = Tensor::from_slice(&[300.0, 400.0, 0.0, 0.0]).view([2, 2]).to_kind(Kind::Half);
        let unit = unit_rows(&x, 1e-12);
        assert_eq!(unit.kind(), Kind::Half);
        let [a, b]: [Vec<f64>; 2] =
            Vec::<Vec<f64>>::try_from(unit.to_kind(Kind::Double)).unwrap().try_into().unwrap();
        assert!((a[0] - 0.6).abs() < 1e-3 && (a[1] - 0.8).abs() < 1e-3, "{a:?}");
        assert_eq!(b, [0.0, 0.0]);
    }
}
