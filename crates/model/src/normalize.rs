//! From u8 pixels on the host to normalised input on the device.

use tch::{Device, Kind, Tensor};

/// Mean and standard deviation of each channel, on [0, 1].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalize {
    /// Subtracted.
    pub mean: [f32; 3],
    /// Divided by.
    pub std: [f32; 3],
}

impl Normalize {
    /// Copies pixels to `device` as they are, a quarter of the bytes of floats, and computes
    /// `(x / 255 - mean) / std` there.
    ///
    /// # Shapes
    /// `pixels`: `B * H * W * 3` bytes in `[B, H, W, 3]` order; result: `[B, 3, H, W]`, fp32.
    ///
    /// # Errors
    /// If the number of bytes is not that of the shape.
    pub fn apply(
        &self,
        pixels: &[u8],
        [b, h, w]: [usize; 3],
        device: Device,
    ) -> Result<Tensor, tch::TchError> {
        let shape = [b as i64, h as i64, w as i64, 3];
        let x = Tensor::f_from_slice(pixels)?.f_view(shape)?.f_to_device(device)?;
        let constant = |values: [f32; 3]| {
            (Tensor::from_slice(&values) * 255.0).view([1, 3, 1, 1]).to_device(device)
        };
        let mut x = x.permute([0, 3, 1, 2]).to_kind(Kind::Float).contiguous(); // -> [B, 3, H, W]
        x -= constant(self.mean);
        x /= constant(self.std);
        Ok(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_channels_first_and_normalises() {
        let normalize = Normalize { mean: [0.5, 0.0, 0.0], std: [0.5, 1.0, 0.5] };
        // one image of 1 x 2 pixels
        let x = normalize.apply(&[255, 0, 51, 0, 255, 102], [1, 1, 2], Device::Cpu).unwrap();
        assert_eq!(x.size(), [1, 3, 1, 2]);
        let got: Vec<f32> = x.reshape([-1]).try_into().unwrap();
        let expected = [1.0, -1.0, 0.0, 1.0, 0.4, 0.8];
        assert!(got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-6), "{got:?}");
    }

    #[test]
    fn refuses_a_wrong_size() {
        let normalize = Normalize { mean: [0.0; 3], std: [1.0; 3] };
        assert!(normalize.apply(&[0; 5], [1, 1, 2], Device::Cpu).is_err());
    }
}
