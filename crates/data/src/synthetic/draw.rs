//! One synthetic image: its random parameters and its pixels.

use image::{GrayImage, Luma, Rgb, RgbImage};

use super::shape::{SHAPES, Shape};
use super::texture::{FAMILIES, Look, Texture};
use crate::config::SyntheticConfig;
use augment::rng::{Purpose, Rng};

/// Fraction of the image's area that the object covers.
pub(super) const COVERAGE: [f64; 2] = [0.16, 0.5];
/// Fraction of the object's radius that may be outside the image.
const OVERHANG: f32 = 0.12;
/// Largest rotation of a shape, in radians.
const TURN: f64 = std::f64::consts::PI;
/// Largest rotation of a texture, in radians. Augmentation does not rotate images, so an arbitrary
/// direction would identify an image in all of its views, and a small network would learn the
/// direction instead of the class.
const TILT: f64 = 0.25;
/// Look of the object's texture, whose family depends on the class.
const OBJECT: Look = Look { tilt: TILT, frequency: (5.5, 7.0), contrast: (0.5, 0.8) };
/// Look of the background's texture: any family, with low contrast.
const BACKGROUND: Look = Look { tilt: TILT, frequency: (4.5, 8.5), contrast: (0.04, 0.12) };
/// Number of samples per pixel along each axis.
const SAMPLES: u32 = 2;

/// One image of the synthetic set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawing {
    /// The image, square.
    pub image: RgbImage,
    /// 255 inside the object, otherwise 0.
    pub mask: GrayImage,
    /// The class, 0-9.
    pub label: u32,
}

/// Draws image `index` of the set that `config` describes. This is a pure function of its
/// arguments.
///
/// `config.count` has no effect: a shorter set is a prefix of a longer one.
pub fn draw(config: &SyntheticConfig, index: usize) -> Drawing {
    let label = super::classes::label_of(index);
    let mut rng = Rng::new(config.seed, 0, index as u64, Purpose::Synthetic);
    Scene::random(&mut rng, label as usize).render(config.size, label)
}

/// All random parameters of an image, in units of the image's side.
struct Scene {
    shape: Shape,
    center: (f32, f32),
    /// Length of one unit of the shape's coordinates.
    scale: f32,
    /// Sine and cosine of its rotation.
    rotation: (f32, f32),
    object: Texture,
    background: Texture,
    /// Brightness at the center, and its change from one side of the image to the other.
    light: (f32, [f32; 2]),
}

impl Scene {
    /// Draws a random scene for class `label`, which determines only the shape and the texture
    /// family of the object.
    fn random(rng: &mut Rng, label: usize) -> Self {
        let shape = SHAPES[label];
        let extent = shape.extent();
        let scale = (rng.uniform(COVERAGE[0], COVERAGE[1]) as f32 / extent.area).sqrt();
        let room = (0.5 - (1.0 - OVERHANG) * scale * extent.reach).max(0.0);
        let mut place = || 0.5 + room * rng.uniform(-1.0, 1.0) as f32;
        let center = (place(), place());
        let rotation = (rng.uniform(-TURN, TURN) as f32).sin_cos();
        let (near, far) = two_colors(rng);
        let object = Texture::random(rng, FAMILIES[label], near, OBJECT);
        let family = FAMILIES[rng.index(FAMILIES.len())];
        let background = Texture::random(rng, family, far, BACKGROUND);
        let (sin, cos) = (rng.uniform(0.0, std::f64::consts::TAU) as f32).sin_cos();
        let slope = rng.uniform(0.0, 0.5) as f32;
        let light = (rng.uniform(0.85, 1.1) as f32, [slope * cos, slope * sin]);
        Self { shape, center, scale, rotation, object, background, light }
    }

    fn render(&self, size: u32, label: u32) -> Drawing {
        let mut image = RgbImage::new(size, size);
        let mut mask = GrayImage::new(size, size);
        let step = 1.0 / (size * SAMPLES) as f32;
        let samples = (SAMPLES * SAMPLES) as f32;
        for (x, y, pixel) in image.enumerate_pixels_mut() {
            let (mut color, mut hits) = ([0.0_f32; 3], 0);
            for sample in 0..SAMPLES * SAMPLES {
                let u = (x * SAMPLES + sample % SAMPLES) as f32 * step + 0.5 * step;
                let v = (y * SAMPLES + sample / SAMPLES) as f32 * step + 0.5 * step;
                let (inside, sampled) = self.sample(u, v);
                hits += u32::from(inside);
                (0..3).for_each(|i| color[i] += sampled[i]);
            }
            *pixel = Rgb(color.map(|c| (255.0 * c / samples).round() as u8));
            if 2 * hits > SAMPLES * SAMPLES {
                mask.put_pixel(x, y, Luma([255]));
            }
        }
        Drawing { image, mask, label }
    }

    /// Returns whether the object is at (`u`, `v`), and the color there, 0-1 before clipping.
    fn sample(&self, u: f32, v: f32) -> (bool, [f32; 3]) {
        let (dx, dy) = ((u - self.center.0) / self.scale, (v - self.center.1) / self.scale);
        let (sin, cos) = self.rotation;
        let inside = self.shape.contains(cos * dx + sin * dy, cos * dy - sin * dx);
        let texture = if inside { &self.object } else { &self.background };
        let (middle, slope) = self.light;
        let light = middle + slope[0] * (u - 0.5) + slope[1] * (v - 0.5);
        (inside, texture.color(u, v).map(|c| c * light))
    }
}

/// Draws two colors of medium lightness that differ enough for the object to be visible.
fn two_colors(rng: &mut Rng) -> ([f32; 3], [f32; 3]) {
    let mut color = || -> [f32; 3] { std::array::from_fn(|_| rng.uniform(0.2, 0.8) as f32) };
    let (near, mut far) = (color(), color());
    for _ in 0..8 {
        let distance: f32 = near.iter().zip(&far).map(|(a, b)| (a - b) * (a - b)).sum();
        if distance > 0.09 {
            break;
        }
        far = color();
    }
    (near, far)
}
