//! The depth loss, on logarithms.

use tch::{Kind, Tensor};

use crate::error::Result;

/// Added to depths before taking logarithms.
const EPS: f64 = 1e-3;
/// Weight of the squared mean error.
const OF_MEAN: f64 = 0.15;
/// Strides at which pixels are sampled for the gradient loss.
const STEPS: [i64; 4] = [1, 2, 4, 6];

/// Computes the depth loss, or returns `None` if no pixel was measured.
///
/// The first term is `sqrt(var(g) + 0.15 mean(g)^2)` over the measured pixels, with
/// `g = log(predicted + 0.001) - log(truth + 0.001)` and the unbiased variance, which is left out
/// if `variance` is false. The second term is `gradient_weight` times the mean absolute difference
/// of `g` between measured pixels two apart, along rows and columns, summed over strides of 1, 2,
/// 4, and 6:
///
/// ```text
/// for step in 1, 2, 4, 6:
///     s = g[::step, ::step]
///     loss += gradient_weight * (sum |s[y] - s[y + 2]| + sum |s[:, x] - s[:, x + 2]|) / number of measured pixels of s
/// ```
///
/// # Shapes
/// - `predicted`, `truth`: `[B, H, W]`; `truth` is 0 where it was not measured
///
/// # Source
/// `SigLoss` and `GradientLoss` of the Monocular Depth Estimation Toolbox. There, gradients are
/// taken along the batch and channel dimensions instead of rows and columns, so they are zero for
/// two images per process; DINOv3 takes them as here.
pub(super) fn loss(
    predicted: &Tensor,
    truth: &Tensor,
    variance: bool,
    gradient_weight: f64,
) -> Result<Option<Tensor>> {
    let measured = truth.gt(0.0); // [B, H, W]
    let count = measured.sum(Kind::Int64).int64_value(&[]);
    if count == 0 {
        return Ok(None);
    }
    let errors = (predicted + EPS).log() - (truth + EPS).log(); // [B, H, W]
    let chosen = errors.f_masked_select(&measured)?; // [M]
    let mut inside = chosen.mean(Kind::Float).square() * OF_MEAN;
    if variance && count > 1 {
        inside += chosen.f_var(true)?;
    }
    // The square root has no finite gradient at 0.
    let loss = inside.clamp_min(f64::from(f32::MIN_POSITIVE)).sqrt();
    let weights = measured.to_kind(Kind::Float);
    Ok(Some(loss + gradients(&(errors * &weights), &weights)? * gradient_weight))
}

fn gradients(errors: &Tensor, measured: &Tensor) -> Result<Tensor> {
    let mut sum = errors.new_zeros([0; 0], (Kind::Float, errors.device()));
    for step in STEPS {
        let some = |x: &Tensor| -> Result<Tensor> {
            Ok(x.f_slice(1, 0, i64::MAX, step)?.f_slice(2, 0, i64::MAX, step)?)
        };
        let (errors, measured) = (some(errors)?, some(measured)?);
        let count = measured.sum(Kind::Float).clamp_min(1.0);
        for dim in [1, 2] {
            let pairs = errors.size()[dim as usize] - 2;
            if pairs < 1 {
                continue;
            }
            let apart = |x: &Tensor| (x.narrow(dim, 0, pairs), x.narrow(dim, 2, pairs));
            let ((a, b), (of_a, of_b)) = (apart(&errors), apart(&measured));
            sum += ((a - b).abs() * of_a * of_b).sum(Kind::Float) / &count;
        }
    }
    Ok(sum)
}
