//! The photometric distortion of mmsegmentation.

use augment::rng::Rng;

/// Changes of brightness, contrast, saturation, and hue, each applied with probability 1/2.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Photometric {
    /// Added to all values.
    brightness: Option<f64>,
    /// Factor of all values.
    contrast: Option<f64>,
    /// Whether contrast comes before saturation and hue.
    contrast_first: bool,
    /// Factor of the saturation.
    saturation: Option<f64>,
    /// Added to the hue, in degrees.
    hue: Option<f64>,
}

impl Photometric {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let mut maybe = |low: f64, high: f64| {
            let (happens, value) = (rng.chance(0.5), rng.uniform(low, high));
            happens.then_some(value)
        };
        let brightness = maybe(-32.0, 32.0);
        let contrast = maybe(0.5, 1.5);
        let saturation = maybe(0.5, 1.5);
        // 18 units of OpenCV's hue, which has 180 in total.
        let hue = maybe(-36.0, 36.0);
        Self { brightness, contrast, contrast_first: rng.chance(0.5), saturation, hue }
    }

    /// Applies the changes to interleaved pixels. Each step rounds down and clamps, like a
    /// conversion to bytes. Saturation and hue only change images with three channels.
    pub(super) fn apply(&self, pixels: &mut [u8], channels: usize) {
        let byte = |value: f64| value.clamp(0.0, 255.0) as u8;
        if let Some(delta) = self.brightness {
            pixels.iter_mut().for_each(|value| *value = byte(f64::from(*value) + delta));
        }
        let contrast = |pixels: &mut [u8]| {
            if let Some(factor) = self.contrast {
                pixels.iter_mut().for_each(|value| *value = byte(f64::from(*value) * factor));
            }
        };
        if self.contrast_first {
            contrast(pixels);
        }
        if channels == 3 && (self.saturation.is_some() || self.hue.is_some()) {
            let (factor, turn) = (self.saturation.unwrap_or(1.0), self.hue.unwrap_or(0.0));
            pixels
                .as_chunks_mut::<3>()
                .0
                .iter_mut()
                .for_each(|pixel| *pixel = recolored(*pixel, factor, turn));
        }
        if !self.contrast_first {
            contrast(pixels);
        }
    }
}

/// Multiplies the saturation of a pixel by `factor` and rotates its hue by `turn` degrees.
fn recolored(pixel: [u8; 3], factor: f64, turn: f64) -> [u8; 3] {
    let [r, g, b] = pixel.map(f64::from);
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    let chroma = most - least;
    if chroma == 0.0 {
        return pixel;
    }
    let sixth = if most == r {
        (g - b) / chroma
    } else if most == g {
        (b - r) / chroma + 2.0
    } else {
        (r - g) / chroma + 4.0
    };
    let hue = (sixth + turn / 60.0).rem_euclid(6.0);
    let chroma = most * (chroma / most * factor).min(1.0);
    // The part of the chroma that each channel lacks is a trapezoid over the hue.
    let channel = |offset: f64| {
        let place = (offset + hue).rem_euclid(6.0);
        most - chroma * place.min(4.0 - place).clamp(0.0, 1.0)
    };
    [channel(5.0), channel(3.0), channel(1.0)].map(|value| (value + 0.5) as u8)
}

#[cfg(test)]
mod tests {
    use augment::rng::Purpose;

    use super::*;

    const NONE: Photometric = Photometric {
        brightness: None,
        contrast: None,
        contrast_first: true,
        saturation: None,
        hue: None,
    };

    fn applied(change: Photometric, mut pixels: Vec<u8>) -> Vec<u8> {
        change.apply(&mut pixels, 3);
        pixels
    }

    #[test]
    fn each_change_by_itself() {
        let pixels = vec![200, 100, 50];
        assert_eq!(applied(NONE, pixels.clone()), pixels);
        assert_eq!(
            applied(Photometric { brightness: Some(60.0), ..NONE }, pixels.clone()),
            [255, 160, 110]
        );
        assert_eq!(
            applied(Photometric { contrast: Some(0.5), ..NONE }, pixels.clone()),
            [100, 50, 25]
        );
        // Half the saturation halves the distance from the largest value.
        assert_eq!(
            applied(Photometric { saturation: Some(0.5), ..NONE }, pixels.clone()),
            [200, 150, 125]
        );
        // The hue changes from 20 to 140 degrees.
        assert_eq!(
            applied(Photometric { hue: Some(120.0), ..NONE }, pixels.clone()),
            [50, 200, 100]
        );
        assert_eq!(applied(Photometric { hue: Some(360.0), ..NONE }, pixels.clone()), pixels);
        assert_eq!(applied(Photometric { hue: Some(90.0), ..NONE }, vec![70; 3]), [70; 3]);
    }

    #[test]
    fn changes_happen_half_of_the_time() {
        let draws =
            (0..2000).map(|i| Photometric::draw(&mut Rng::new(0, 0, i, Purpose::Choice(0))));
        let draws: Vec<_> = draws.collect();
        for change in 0..4 {
            let of = |p: &Photometric| [p.brightness, p.contrast, p.saturation, p.hue][change];
            let count = draws.iter().filter_map(of).count();
            assert!((900..1100).contains(&count), "{count}");
        }
        let shift = draws.iter().filter_map(|p| p.brightness);
        assert!(shift.clone().all(|b| b.abs() <= 32.0) && shift.clone().any(|b| b.abs() > 30.0));
    }
}
