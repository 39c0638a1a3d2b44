//! From u8 pixels on the host to normalised input on the device.

use tch::{Device, Kind, Tensor};

/// Mean and standard deviation of each of C channels, on [0, 1].
#[derive(Debug, Clone, PartialEq)]
pub struct Normalize {
    /// Subtracted.
    pub mean: Vec<f32>,
    /// Divided by.
    pub std: Vec<f32>,
}

impl Normalize {
    /// Copies pixels to `device` as they are, a quarter of the bytes of floats, and computes
    /// `(x / 255 - mean) / std` there.
    ///
    /// # Shapes
    /// `pixels`: `B * H * W * C` bytes in `[B, H, W, C]` order; result: `[B, C, H, W]`, fp32.
    ///
    /// # Errors
    /// If the number of bytes is not that of the shape, or there are not as many deviations as means.
    pub fn apply(
        &self,
        pixels: &[u8],
        [b, h, w]: [usize; 3],
        device: Device,
    ) -> Result<Tensor, tch::TchError> {
        let channels = self.mean.len() as i64;
        let shape = [b as i64, h as i64, w as i64, channels];
        let x = Tensor::f_from_slice(pixels)?.f_view(shape)?.f_to_device(device)?;
        let constant = |values: &[f32]| -> Result<Tensor, tch::TchError> {
            let values = Tensor::f_from_slice(values)? * 255.0;
            Ok(values.f_view([1, channels, 1, 1])?.to_device(device))
        };
        let mut x = x.permute([0, 3, 1, 2]).to_kind(Kind::Float).contiguous(); // -> [B, C, H, W]
        x -= constant(&self.mean)?;
        x /= constant(&self.std)?;
        Ok(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_channels_first_and_normalises() {
        let normalize = Normalize { mean: vec![0.5, 0.0, 0.0], std: vec![0.5, 1.0, 0.5] };
        // one image of 1 x 2 pixels
        let x = normalize.apply(&[255, 0, 51, 0, 255, 102], [1, 1, 2], Device::Cpu).unwrap();
        assert_eq!(x.size(), [1, 3, 1, 2]);
        let got: Vec<f32> = x.reshape([-1]).try_into().unwrap();
        let expected = [1.0, -1.0, 0.0, 1.0, 0.4, 0.8];
        assert!(got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-6), "{got:?}");
    }

    #[test]
    fn refuses_a_wrong_size() {
        let normalize = Normalize { mean: vec![0.0; 3], std: vec![1.0; 3] };
        assert!(normalize.apply(&[0; 5], [1, 1, 2], Device::Cpu).is_err());
        let uneven = Normalize { mean: vec![0.0; 3], std: vec![1.0; 2] };
        assert!(uneven.apply(&[0; 6], [1, 1, 2], Device::Cpu).is_err());
    }

    #[test]
    fn takes_any_number_of_channels() {
        let normalize = Normalize { mean: vec![0.0, 0.5], std: vec![1.0, 0.5] };
        let x = normalize.apply(&[255, 0, 51, 255], [1, 2, 1], Device::Cpu).unwrap();
        assert_eq!(x.size(), [1, 2, 2, 1]);
        let got: Vec<f32> = x.reshape([-1]).try_into().unwrap();
        assert!(got.iter().zip([1.0, 0.2, -1.0, 1.0]).all(|(g, e)| (g - e).abs() < 1e-6));
    }
}
