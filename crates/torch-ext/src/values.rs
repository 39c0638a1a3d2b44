//! Reads the values of a tensor in place.

use tch::{Device, Kind, Tensor};

use crate::error::Result;

/// Calls `f` with the values of a tensor as fp32 in row-major order. Does not copy a contiguous
/// fp32 tensor on the CPU.
///
/// # Errors
/// Returns an error if libtorch cannot convert the tensor.
pub fn with_values<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let tensor = tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
    if tensor.numel() == 0 {
        return Ok(f(&[]));
    }
    // SAFETY: a contiguous CPU tensor owns this many fp32 values at its data pointer, `tensor`
    // keeps them alive, and no other thread of libtorch writes to it.
    let values =
        unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<f32>(), tensor.numel()) };
    Ok(f(values))
}

/// Calls `f` with the bit patterns of the values of a tensor as bf16, in row-major order.
///
/// # Errors
/// Returns an error if libtorch cannot convert the tensor.
pub fn with_bf16<R>(tensor: &Tensor, f: impl FnOnce(&[u16]) -> R) -> Result<R> {
    let tensor = tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::BFloat16)?.f_contiguous()?;
    if tensor.numel() == 0 {
        return Ok(f(&[]));
    }
    // SAFETY: a contiguous CPU tensor owns this many bf16 values, of two bytes each, at its data
    // pointer, `tensor` keeps them alive, and no other thread of libtorch writes to it.
    let values =
        unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<u16>(), tensor.numel()) };
    Ok(f(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_in_row_major_order() {
        let tensor = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).view([2, 3]);
        let of = |tensor: &Tensor| with_values(tensor, <[f32]>::to_vec).unwrap();
        assert_eq!(of(&tensor), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(of(&tensor.tr()), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(of(&tensor.narrow(1, 1, 2).to_kind(Kind::Double)), [2.0, 3.0, 5.0, 6.0]);
        assert!(of(&tensor.narrow(0, 0, 0)).is_empty());
    }

    #[test]
    fn bits_are_the_upper_half_of_fp32() {
        let tensor = Tensor::from_slice(&[1.0f32, -2.5, 0.375, 1e30]).view([2, 2]).tr();
        let expected = [1.0f32, 0.375, -2.5, 1e30].map(|value| (value.to_bits() >> 16) as u16);
        let got = with_bf16(&tensor, <[u16]>::to_vec).unwrap();
        assert_eq!(got[..3], expected[..3]);
        // The conversion rounds to nearest, which may be one above the truncated bits.
        assert!(got[3] == expected[3] || got[3] == expected[3] + 1);
        assert!(with_bf16(&tensor.narrow(0, 0, 0), |bits| bits.is_empty()).unwrap());
    }
}
