//! From u8 pixels on the host to normalized input on the device.

use tch::{Device, Kind, TchError, Tensor};

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
    ) -> Result<Tensor, TchError> {
        let channels = self.mean.len();
        if channels != self.std.len() || pixels.len() != b * h * w * channels {
            let (deviations, bytes) = (self.std.len(), pixels.len());
            return Err(TchError::Shape(format!(
                "{bytes} bytes are not [{b}, {h}, {w}, {channels}], or {deviations} deviations do not \
                 go with {channels} means"
            )));
        }
        let shape = [b, h, w, channels].map(|length| length as i64);
        // Not from_slice, which fills the memory with zeros before it copies.
        let mut host = Tensor::f_empty(shape, (Kind::Uint8, Device::Cpu))?;
        torch_ext::read_into(&mut &*pixels, &mut host)?;
        let x = host.f_to_device(device)?.f_permute([0, 3, 1, 2])?;
        let x = x.f_to_kind(Kind::Float)?.f_contiguous()?; // -> [B, C, H, W]
        // Numbers rather than tensors of them, which would be copied to the device each time.
        for (channel, (mean, std)) in (0..).zip(self.mean.iter().zip(&self.std)) {
            let mut of_channel = x.f_select(1, channel)?;
            let _ = of_channel.f_sub_scalar_(f64::from(mean * 255.0))?;
            let _ = of_channel.f_div_scalar_(f64::from(std * 255.0))?;
        }
        Ok(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_channels_first_and_normalizes() {
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
        for bytes in [5, 7] {
            assert!(normalize.apply(&vec![0; bytes], [1, 1, 2], Device::Cpu).is_err());
        }
        let uneven = Normalize { mean: vec![0.0; 3], std: vec![1.0; 2] };
        assert!(uneven.apply(&[0; 6], [1, 1, 2], Device::Cpu).is_err());
    }

    #[test]
    fn every_value_is_that_of_the_formula_in_single_precision() {
        let normalize =
            Normalize { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] };
        let bytes: Vec<u8> = (0..=255).flat_map(|value| [value, 255 - value, value]).collect();
        let got = normalize.apply(&bytes, [2, 8, 16], Device::Cpu).unwrap();
        let got: Vec<f32> = got.permute([0, 2, 3, 1]).contiguous().view([-1]).try_into().unwrap();
        for (i, (got, byte)) in got.iter().zip(&bytes).enumerate() {
            let (mean, std) = (normalize.mean[i % 3] * 255.0, normalize.std[i % 3] * 255.0);
            assert_eq!(*got, (f32::from(*byte) - mean) / std, "value {byte} of channel {}", i % 3);
        }
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
