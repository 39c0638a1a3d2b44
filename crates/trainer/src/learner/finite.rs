//! Checks for finite values, and the only point at which a step waits for the device.

use objectives::Outputs;
use tch::{Kind, Tensor};

use crate::error::Result;

/// Reads values from the device and the norm of each gradient, in one copy.
///
/// # Shapes
/// - `numbers`: each `[n]`; all are returned in one list
pub(super) fn read(mut numbers: Vec<Tensor>, grads: &[Tensor]) -> Result<(Vec<f64>, Vec<f64>)> {
    if !grads.is_empty() {
        numbers.push(Tensor::f_stack(&torch_ext::foreach_norm(grads)?, 0)?);
    }
    if numbers.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let mut numbers = Vec::<f64>::try_from(Tensor::f_cat(&numbers, 0)?)?; // sync
    let norms = numbers.split_off(numbers.len() - grads.len());
    Ok((numbers, norms))
}

/// Returns the largest magnitude in each tensor of a network's outputs, one or two numbers, which
/// are not finite if any value is not.
pub(super) fn sizes(outputs: &Outputs) -> Result<Tensor> {
    let all = outputs.patches.iter().chain([&outputs.cls]);
    Ok(Tensor::f_stack(&all.map(largest).collect::<Result<Vec<_>>>()?, 0)?)
}

/// Returns the largest magnitude, or 0 for an empty tensor. This takes one pass without a copy,
/// whereas a sum in fp64 would first create a copy in fp64.
fn largest(x: &Tensor) -> Result<Tensor> {
    if x.numel() == 0 {
        return Ok(Tensor::f_zeros([], (Kind::Double, x.device()))?);
    }
    let (low, high) = x.detach().f_aminmax(None, false)?;
    Ok(low.f_abs()?.f_maximum(&high.f_abs()?)?.f_to_kind(Kind::Double)?)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn one_value_that_is_not_finite_is_seen_among_many_and_large_ones_are_fine() {
        for kind in [Kind::Float, Kind::Double, Kind::BFloat16, Kind::Half] {
            // All have the same sign and the largest magnitude, so their sum would be infinite.
            let most = match kind {
                Kind::Half => 65_504.0,
                Kind::Double => 1e308,
                _ => 3.3e38,
            };
            let fine = Tensor::full([70, 333], most, (kind, Device::Cpu));
            let finite = |x: &Tensor| largest(x).unwrap().double_value(&[]).is_finite();
            assert!(finite(&fine), "{kind:?}");
            for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                for place in [0, 1, 4097, 70 * 333 - 1] {
                    let x = fine.copy();
                    let _ = x.view([-1]).get(place).fill_(wrong);
                    assert!(!finite(&x), "{kind:?}: {wrong} at {place}");
                }
            }
        }
        let none = Tensor::zeros([0, 5], (Kind::Float, Device::Cpu));
        assert_eq!(largest(&none).unwrap().double_value(&[]), 0.0);
    }

    #[test]
    fn numbers_and_norms_come_back_in_one_list_each() {
        let single = |x: f32| Tensor::from_slice(&[x]);
        let numbers = vec![Tensor::from_slice(&[1.5f64, f64::NAN]), single(2.5)];
        let grads = [Tensor::from_slice(&[3.0f32, 4.0]), single(-0.5)];
        let (numbers, norms) = read(numbers, &grads).unwrap();
        assert_eq!((numbers[0], numbers[2], norms), (1.5, 2.5, vec![5.0, 0.5]));
        assert!(numbers[1].is_nan() && numbers.len() == 3);
        assert_eq!(read(Vec::new(), &[]).unwrap(), (Vec::new(), Vec::new()));
    }
}
