//! Normalizes u8 pixels to the input of a network.

use tch::{Device, Kind, TchError, Tensor};

/// Mean and standard deviation of each of C channels, on the scale [0, 1].
#[derive(Debug, Clone, PartialEq)]
pub struct Normalize {
    /// The mean, which is subtracted.
    pub mean: Vec<f32>,
    /// The standard deviation, which is the divisor.
    pub std: Vec<f32>,
}

/// A [`Normalize`] whose constants are on a device.
#[derive(Debug)]
pub struct Normalizer {
    /// `1 / (255 std)`, `[1, C, 1, 1]`, fp32.
    scale: Tensor,
    /// `-mean / std`, `[1, C, 1, 1]`, fp32.
    shift: Tensor,
    kind: Kind,
}

impl Normalize {
    /// Prepares this normalization on `device`, with results of type `kind`.
    ///
    /// # Errors
    /// Returns an error if the numbers of means and deviations differ, or if the device does not
    /// exist.
    pub fn on(&self, device: Device, kind: Kind) -> Result<Normalizer, TchError> {
        let (means, deviations) = (self.mean.len(), self.std.len());
        if means != deviations {
            let text = format!("got {deviations} standard deviations for {means} means");
            return Err(TchError::Shape(text));
        }
        // Computed in double precision and rounded once, so that results are as exact as those of
        // the formula.
        let both = self.mean.iter().zip(&self.std).map(|(m, s)| (f64::from(*m), f64::from(*s)));
        let (scale, shift): (Vec<f32>, Vec<f32>) =
            both.map(|(mean, std)| ((1.0 / (255.0 * std)) as f32, (-mean / std) as f32)).unzip();
        let of_channels = |values: &[f32]| {
            Tensor::f_from_slice(values)?.f_view([1, -1, 1, 1])?.f_to_device(device)
        };
        Ok(Normalizer { scale: of_channels(&scale)?, shift: of_channels(&shift)?, kind })
    }

    /// Copies pixels to `device` as bytes, a quarter of the size of floats, and computes `(x / 255
    /// - mean) / std` there.
    ///
    /// # Shapes
    /// `pixels`: `B * H * W * C` bytes in `[B, H, W, C]` order; result: `[B, C, H, W]`, fp32.
    ///
    /// # Errors
    /// Returns an error if the number of bytes does not match the shape, or if the numbers of
    /// means and deviations differ.
    pub fn apply(
        &self,
        pixels: &[u8],
        [b, h, w]: [usize; 3],
        device: Device,
    ) -> Result<Tensor, TchError> {
        let (bytes, channels) = (pixels.len(), self.mean.len());
        if bytes != b * h * w * channels {
            let text = format!("{bytes} bytes are not [{b}, {h}, {w}, {channels}]");
            return Err(TchError::Shape(text));
        }
        let shape = [b, h, w, channels].map(|length| length as i64);
        // `from_slice` would fill the memory with zeros before copying.
        let mut host = Tensor::f_empty(shape, (Kind::Uint8, Device::Cpu))?;
        torch_ext::read_into(&mut &*pixels, &mut host)?;
        self.on(device, Kind::Float)?.apply(&host.f_to_device(device)?)
    }
}

impl Normalizer {
    /// Returns the device of the computation.
    pub fn device(&self) -> Device {
        self.scale.device()
    }

    /// Computes `(x / 255 - mean) / std` for pixels on the device, in one pass.
    ///
    /// # Shapes
    /// `pixels`: `[B, H, W, C]`, u8; result: `[B, C, H, W]`, contiguous.
    ///
    /// # Errors
    /// Returns an error if the number of dimensions or channels is wrong.
    pub fn apply(&self, pixels: &Tensor) -> Result<Tensor, TchError> {
        let size = pixels.size();
        let &[b, h, w, c] = size.as_slice() else {
            return Err(TchError::Shape(format!("pixels of shape {size:?} are not [B, H, W, C]")));
        };
        let channels = self.scale.size()[1];
        if c != channels {
            let text = format!("pixels have {c} channels, but there are means for {channels}");
            return Err(TchError::Shape(text));
        }
        let out = Tensor::f_empty([b, c, h, w], (self.kind, pixels.device()))?;
        self.shift.f_addcmul_out(&out, &pixels.f_permute([0, 3, 1, 2])?, &self.scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_channels_first_and_normalizes() {
        let normalize = Normalize { mean: vec![0.5, 0.0, 0.0], std: vec![0.5, 1.0, 0.5] };
        // One image of 1 x 2 pixels.
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
    fn every_value_is_that_of_the_formula_to_rounding() {
        let normalize =
            Normalize { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] };
        let bytes: Vec<u8> = (0..=255).flat_map(|value| [value, 255 - value, value]).collect();
        let got = normalize.apply(&bytes, [2, 8, 16], Device::Cpu).unwrap();
        let got: Vec<f32> = got.permute([0, 2, 3, 1]).contiguous().view([-1]).try_into().unwrap();
        for (i, (got, byte)) in got.iter().zip(&bytes).enumerate() {
            let (mean, std) = (normalize.mean[i % 3] * 255.0, normalize.std[i % 3] * 255.0);
            let expected = (f32::from(*byte) - mean) / std;
            assert!((got - expected).abs() < 1e-6, "value {byte} of channel {}", i % 3);
        }
    }

    #[test]
    fn every_type_is_that_of_single_precision_rounded_and_contiguous() {
        let normalize = Normalize { mean: vec![0.485, 0.1, 0.9], std: vec![0.229, 0.05, 0.5] };
        let pixels: Vec<u8> = (0..2 * 5 * 7 * 3_u32).map(|i| (i * 37) as u8).collect();
        let pixels = Tensor::from_slice(&pixels).view([2, 5, 7, 3]);
        let of = |kind| normalize.on(Device::Cpu, kind).unwrap().apply(&pixels).unwrap();
        let single = of(Kind::Float);
        for kind in [Kind::Float, Kind::Double, Kind::BFloat16, Kind::Half] {
            let got = of(kind);
            assert_eq!((got.kind(), got.size()), (kind, vec![2, 3, 5, 7]));
            assert!(got.is_contiguous());
            assert_eq!(got, single.to_kind(kind));
        }
        let normalizer = normalize.on(Device::Cpu, Kind::Float).unwrap();
        for wrong in [pixels.view([2, 5, 21, 1]), pixels.view([2, 35, 3])] {
            assert!(normalizer.apply(&wrong).is_err());
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
