//! Ten families of two-color patterns.

use std::f32::consts::TAU;

use augment::rng::Rng;

/// A pattern family, without its random parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Stripes,
    Checker,
    Dots,
    Rings,
    Waves,
    Speckle,
    Zigzag,
    Grid,
    Plaid,
    Blobs,
}

/// The family of each class, in the order of the labels.
pub(super) const FAMILIES: [Family; 10] = [
    Family::Stripes,
    Family::Checker,
    Family::Dots,
    Family::Rings,
    Family::Waves,
    Family::Speckle,
    Family::Zigzag,
    Family::Grid,
    Family::Plaid,
    Family::Blobs,
];

/// A pattern over the unit square: a family, its position, and its two colors.
#[derive(Debug, Clone)]
pub(super) struct Texture {
    family: Family,
    /// Cosine and sine of the pattern's direction.
    direction: (f32, f32),
    /// Periods per image side.
    frequency: f32,
    /// Offset of the pattern, in periods.
    phase: (f32, f32),
    /// Center of concentric patterns, in image sides.
    center: (f32, f32),
    /// Seed for patterns with random cells.
    cells: u32,
    /// The two colors of the pattern, 0-1.
    colors: [[f32; 3]; 2],
}

/// Bounds of the random parameters of a [`Texture`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Largest rotation of the pattern, in radians.
    pub tilt: f64,
    /// Periods per image side.
    pub frequency: (f64, f64),
    /// Distance between the two colors.
    pub contrast: (f64, f64),
}

impl Texture {
    /// Creates a texture of `family` around the color `base`, with a random position, direction,
    /// size, and pair of colors within the bounds of `look`.
    pub(crate) fn random(rng: &mut Rng, family: Family, base: [f32; 3], look: Look) -> Self {
        let angle = rng.uniform(-look.tilt, look.tilt) as f32;
        let frequency = rng.uniform(look.frequency.0, look.frequency.1) as f32;
        let phase = (rng.unit() as f32, rng.unit() as f32);
        let center = (rng.uniform(0.2, 0.8) as f32, rng.uniform(0.2, 0.8) as f32);
        let cells = rng.bits() as u32;
        let half = rng.uniform(look.contrast.0, look.contrast.1) as f32 / 2.0;
        // Mostly a change of lightness, so that gray and hue-shifted crops keep the pattern. The
        // sign is random: otherwise, a family's fraction of light pixels would reveal its class.
        let sign = if rng.chance(0.5) { half } else { -half };
        let tint: [f32; 3] = std::array::from_fn(|_| sign * (1.0 + 0.4 * rng.normal() as f32));
        let mix = |side: f32| std::array::from_fn(|i| (base[i] + side * tint[i]).clamp(0.0, 1.0));
        let colors = [mix(1.0), mix(-1.0)];
        Self {
            family,
            direction: (angle.cos(), angle.sin()),
            frequency,
            phase,
            center,
            cells,
            colors,
        }
    }

    /// Returns the color at (`u`, `v`), in image sides.
    pub(crate) fn color(&self, u: f32, v: f32) -> [f32; 3] {
        let t = self.value(u, v);
        std::array::from_fn(|i| self.colors[0][i] + t * (self.colors[1][i] - self.colors[0][i]))
    }

    /// Returns the pattern's value at (`u`, `v`), 0-1.
    fn value(&self, u: f32, v: f32) -> f32 {
        let (c, s) = self.direction;
        let x = (c * u + s * v) * self.frequency + self.phase.0;
        let y = (c * v - s * u) * self.frequency + self.phase.1;
        match self.family {
            Family::Stripes => edge(2.0 * wave(x)),
            Family::Checker => edge(3.0 * wave(0.8 * x) * wave(0.8 * y)),
            Family::Dots => {
                let x = if (y.floor() as i32) & 1 == 0 { x } else { x + 0.5 };
                edge(6.0 * (0.33 - offset(x).hypot(offset(y))))
            }
            Family::Rings => {
                let radius = (u - self.center.0).hypot(v - self.center.1);
                edge(2.0 * wave(radius * self.frequency + self.phase.0))
            }
            Family::Waves => 0.5 + 0.5 * wave(x + 0.35 * wave(0.6 * y)),
            Family::Speckle => cell(self.cells, (2.5 * x).floor(), (2.5 * y).floor()),
            Family::Zigzag => edge(2.0 * wave(x + 1.2 * (offset(0.8 * y).abs() - 0.25))),
            Family::Grid => edge(8.0 * (0.14 - offset(x).abs().min(offset(y).abs()))),
            Family::Plaid => 0.5 * edge(2.0 * wave(x)) + 0.5 * edge(2.0 * wave(y)),
            Family::Blobs => edge(3.0 * (smooth_noise(self.cells, 1.3 * x, 1.3 * y) - 0.5)),
        }
    }
}

fn wave(cycles: f32) -> f32 {
    (cycles * TAU).sin()
}

/// Computes a soft step, which rises from 0 to 1 as `x` goes from -0.5 to 0.5.
fn edge(x: f32) -> f32 {
    (x + 0.5).clamp(0.0, 1.0)
}

/// Returns the signed distance from the middle of the unit cell, -0.5 to 0.5.
fn offset(x: f32) -> f32 {
    x - x.floor() - 0.5
}

/// Returns a random value, 0-1, for the cell at the integers (`x`, `y`).
fn cell(seed: u32, x: f32, y: f32) -> f32 {
    let mut h = seed ^ (x as i32 as u32).wrapping_mul(0x9E37_79B1);
    h = (h ^ (h >> 15)).wrapping_mul(0x85EB_CA77);
    h ^= (y as i32 as u32).wrapping_mul(0xC2B2_AE3D);
    h = (h ^ (h >> 13)).wrapping_mul(0x27D4_EB2F);
    h = (h ^ (h >> 16)).wrapping_mul(0x1656_67B1);
    (h >> 8) as f32 / 16_777_216.0
}

/// Computes value noise: random values at integer coordinates, smoothly interpolated.
fn smooth_noise(seed: u32, x: f32, y: f32) -> f32 {
    let (x0, y0) = (x.floor(), y.floor());
    let ease = |t: f32| t * t * (3.0 - 2.0 * t);
    let (tx, ty) = (ease(x - x0), ease(y - y0));
    let row = |y: f32| {
        let (left, right) = (cell(seed, x0, y), cell(seed, x0 + 1.0, y));
        left + tx * (right - left)
    };
    let (top, bottom) = (row(y0), row(y0 + 1.0));
    top + ty * (bottom - top)
}
