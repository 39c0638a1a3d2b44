//! The box filter whose repetition approximates a Gaussian in Pillow.

/// Number of box filters along each axis.
const PASSES: usize = 3;
/// Number of fractional bits of a weight.
pub(super) const WEIGHT_BITS: u32 = 15;

/// A box of `2 * radius + 1` pixels, and a fraction of one more pixel at each end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ExtendedBox {
    pub(super) radius: usize,
    /// Weight of each whole pixel.
    pub(super) whole: f64,
    /// Weight of each of the two end pixels.
    pub(super) end: f64,
}

impl ExtendedBox {
    /// Creates the box whose [`PASSES`]-fold repetition has the standard deviation `sigma`.
    pub(super) fn new(sigma: f64) -> Self {
        let variance = sigma * sigma / PASSES as f64;
        let length = (12.0 * variance + 1.0).sqrt();
        let radius = ((length - 1.0) / 2.0).floor();
        let next = (radius + 1.0) * (radius + 1.0);
        let fraction = (2.0 * radius + 1.0) * (radius * (radius + 1.0) - 3.0 * variance)
            / (6.0 * (variance - next));
        let whole = 1.0 / (2.0 * (radius + fraction) + 1.0);
        let end = (1.0 - (2.0 * radius + 1.0) * whole) / 2.0;
        Self { radius: radius as usize, whole, end }
    }

    /// Returns the weights (whole, end) with [`WEIGHT_BITS`] fractional bits.
    pub(super) fn weights(&self) -> (i16, i16) {
        let fixed = |weight: f64| (weight * f64::from(1_u32 << WEIGHT_BITS)).round();
        (fixed(self.whole) as i16, fixed(self.end) as i16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_box_is_pillows() {
        // For sigma 2, the length is sqrt(17), the radius 1, and the fraction 3/8.
        let kernel = ExtendedBox::new(2.0);
        assert_eq!(kernel.radius, 1);
        assert!((kernel.whole - 1.0 / 3.75).abs() < 1e-12, "{kernel:?}");
        assert!((kernel.end - 0.1).abs() < 1e-12, "{kernel:?}");
        assert_eq!(ExtendedBox::new(0.1).radius, 0);
        assert_eq!(ExtendedBox::new(5.0).radius, 4);
    }
}
