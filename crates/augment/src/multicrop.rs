//! The multi-crop augmentation: all crops of one image.
//!
//! A crop is first planned ([`CropPlan`], which contains every random choice) and then executed.
//! Each image is processed by a single thread, which owns its scratch memory.

use std::cell::RefCell;

use super::crop::{CropBox, random_resized_crop};
use super::planes::Planes;
use super::resize::{Job, resize_each};
use super::{blur, color, gray, solarize};
use crate::config::{AugmentConfig, BlurKind};
use crate::error::{Error, Result};
use crate::pixels::Pixels;
use crate::rng::{Purpose, Rng};

/// Number of global crops.
pub const GLOBAL_CROPS: usize = 2;

thread_local! {
    static PLANES: RefCell<Planes> = RefCell::default();
}

/// The inputs of the random choices for an image's crops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CropKey {
    /// Seed of the run.
    pub seed: u64,
    /// Epoch; for a weighted mix, how often the image has been used before.
    pub epoch: u64,
    /// Index of the image in its dataset.
    pub sample: u64,
}

/// A color operation of the jitter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Jitter {
    /// Factor of the blend with black.
    Brightness(f64),
    /// Factor of the blend with the mean gray.
    Contrast(f64),
    /// Factor of the blend with the pixel's gray.
    Saturation(f64),
    /// Rotation of the hue, in turns.
    Hue(f64),
}

/// All random choices for one crop.
#[derive(Debug, Clone, PartialEq)]
pub struct CropPlan {
    /// The area that the crop shows.
    pub area: CropBox,
    /// Side of the crop in pixels.
    pub side: u32,
    /// Whether the crop is mirrored.
    pub flip: bool,
    /// Color operations in order; `None` if the jitter is not applied.
    pub jitter: Option<[Jitter; 4]>,
    /// Whether the crop is converted to gray.
    pub gray: bool,
    /// Standard deviation of the blur, in pixels; `None` if the crop is not blurred.
    pub blur_sigma: Option<f64>,
    /// Whether the crop is solarized.
    pub solarize: bool,
}

impl CropPlan {
    fn job(&self) -> Job {
        Job { area: self.area, width: self.side, height: self.side, flip: self.flip }
    }
}

/// The multi-crop augmentation of a run.
#[derive(Debug, Clone)]
pub struct MultiCrop {
    config: AugmentConfig,
}

impl MultiCrop {
    /// Creates the augmentation that `config` describes.
    pub fn new(config: &AugmentConfig) -> Self {
        Self { config: config.clone() }
    }

    /// Returns the configuration of the augmentation.
    pub fn config(&self) -> &AugmentConfig {
        &self.config
    }

    /// Draws the choices for crop `view` of an image of `width` x `height` pixels, both at least 1.
    /// Views 0 and 1 are the global crops.
    ///
    /// All choices except the area take a fixed number of draws, whether they are needed or not, so
    /// changing one probability does not affect the other choices.
    pub fn plan(&self, (width, height): (u32, u32), key: CropKey, view: usize) -> CropPlan {
        let c = &self.config;
        let mut rng = Rng::new(key.seed, key.epoch, key.sample, Purpose::Crop(view as u32));
        let global = view < GLOBAL_CROPS;
        let (side, scale) = if global {
            (c.global_crops_size, c.global_crops_scale)
        } else {
            (c.local_crops_size, c.local_crops_scale)
        };
        let flip = rng.chance(c.flip_prob);
        let jitters = rng.chance(c.jitter_prob);
        let jitter = Some(self.draw_jitter(&mut rng)).filter(|_| jitters);
        let gray = rng.chance(c.gray_prob);
        let blurs = rng.chance(c.blur_prob[view.min(GLOBAL_CROPS)]);
        let sigma = rng.uniform(c.blur_sigma[0], c.blur_sigma[1]);
        let solarize = rng.chance(c.solarize_prob) && view == 1;
        // This comes last, because it takes a variable number of draws.
        let area = random_resized_crop(&mut rng, width, height, scale);
        CropPlan { area, side, flip, jitter, gray, blur_sigma: blurs.then_some(sigma), solarize }
    }

    fn draw_jitter(&self, rng: &mut Rng) -> [Jitter; 4] {
        let c = &self.config;
        let mut around = |middle: f64, reach: f64| rng.uniform(middle - reach, middle + reach);
        let mut jitter = [
            Jitter::Brightness(around(1.0, c.brightness)),
            Jitter::Contrast(around(1.0, c.contrast)),
            Jitter::Saturation(around(1.0, c.saturation)),
            Jitter::Hue(around(0.0, c.hue)),
        ];
        rng.shuffle(&mut jitter);
        jitter
    }

    /// Makes all crops of `image`, each into its slice, `[side, side, channels]`.
    ///
    /// # Errors
    /// Returns an error if the image has no pixels, or if the slices do not match the
    /// configuration: there must be two global slices of `channels * global_crops_size^2` bytes,
    /// and `local_crops_number` local slices of `channels * local_crops_size^2` bytes.
    pub fn apply(
        &self,
        image: Pixels<'_>,
        key: CropKey,
        global_out: &mut [&mut [u8]],
        local_out: &mut [&mut [u8]],
    ) -> Result<()> {
        check_count("global crops", GLOBAL_CROPS, global_out.len())?;
        check_count("local crops", self.config.local_crops_number, local_out.len())?;
        if image.data().is_empty() {
            return Err(Error::Buffer { what: "bytes of an image", expected: 1, got: 0 });
        }
        let size = (image.width(), image.height());
        let views = 0..GLOBAL_CROPS + local_out.len();
        let plans: Vec<CropPlan> = views.map(|view| self.plan(size, key, view)).collect();
        let global_out = global_out.iter_mut().map(|out| &mut **out);
        let local_out = local_out.iter_mut().map(|out| &mut **out);
        self.apply_plans(image, &plans, global_out.chain(local_out))
    }

    /// Makes all crops according to their plans, each into the next slice of `outs`.
    ///
    /// # Errors
    /// Returns an error if the size of a slice is not `channels * side^2`, or if a plan does not
    /// fit the image.
    pub fn apply_plans<'a>(
        &self,
        image: Pixels<'_>,
        plans: &[CropPlan],
        outs: impl Iterator<Item = &'a mut [u8]>,
    ) -> Result<()> {
        let jobs: Vec<Job> = plans.iter().map(CropPlan::job).collect();
        let mut crops = plans.iter().zip(outs);
        PLANES.with_borrow_mut(|planes| {
            resize_each(image, &jobs, planes, |planes| {
                let Some((plan, out)) = crops.next() else { return Ok(()) };
                check_count("bytes of a crop", planes.bytes().len(), out.len())?;
                self.recolor(planes, plan);
                planes.store(out);
                Ok(())
            })
        })
    }

    fn recolor(&self, planes: &mut Planes, plan: &CropPlan) {
        for &step in plan.jitter.iter().flatten() {
            self.jitter(planes, step);
        }
        if plan.gray {
            gray::grayscale(planes);
        }
        match (plan.blur_sigma, self.config.blur) {
            (Some(sigma), BlurKind::Pillow) => blur::pillow(planes, sigma),
            (Some(sigma), BlurKind::Kernel9) => blur::kernel9(planes, sigma),
            (None, _) => {}
        }
        if plan.solarize {
            solarize::solarize(planes, self.config.solarize_threshold);
        }
    }

    /// Applies one step of the jitter. A hue of strength 0 is skipped, as in torchvision, because
    /// even a rotation by 0 changes values slightly.
    fn jitter(&self, planes: &mut Planes, step: Jitter) {
        match step {
            Jitter::Brightness(factor) => color::brightness(planes, factor),
            Jitter::Contrast(factor) => color::contrast(planes, factor),
            Jitter::Saturation(factor) => color::saturation(planes, factor),
            Jitter::Hue(turns) if self.config.hue > 0.0 => color::hue(planes, turns),
            Jitter::Hue(_) => {}
        }
    }
}

fn check_count(what: &'static str, expected: usize, got: usize) -> Result<()> {
    if got == expected { Ok(()) } else { Err(Error::Buffer { what, expected, got }) }
}

#[cfg(test)]
#[cfg(feature = "decode")]
mod tests {
    use image::{Rgb, RgbImage};
    use proptest::prelude::*;

    use super::*;

    fn small() -> AugmentConfig {
        AugmentConfig {
            global_crops_size: 24,
            local_crops_size: 9,
            local_crops_number: 3,
            ..AugmentConfig::default()
        }
    }

    fn picture(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| Rgb([x * 5, y * 7, (x ^ y) * 11].map(|v| v as u8)))
    }

    /// Returns the pixels of all crops, one crop after the other.
    fn crops(config: &AugmentConfig, image: &RgbImage, key: CropKey) -> Vec<u8> {
        let global = 3 * (config.global_crops_size as usize).pow(2);
        let local = 3 * (config.local_crops_size as usize).pow(2);
        let mut out = vec![0; 2 * global + config.local_crops_number * local];
        let (first, second) = out.split_at_mut(2 * global);
        let mut globals: Vec<_> = first.chunks_mut(global).collect();
        let mut locals: Vec<_> = second.chunks_mut(local).collect();
        MultiCrop::new(config).apply(image.into(), key, &mut globals, &mut locals).unwrap();
        out
    }

    const KEY: CropKey = CropKey { seed: 1, epoch: 2, sample: 3 };

    #[test]
    fn crops_depend_on_the_key_alone() {
        let image = picture(50, 40);
        let first = crops(&small(), &image, KEY);
        let elsewhere = std::thread::scope(|scope| {
            scope.spawn(|| crops(&small(), &image, KEY)).join().unwrap()
        });
        assert_eq!(first, elsewhere);
        for other in
            [CropKey { seed: 9, ..KEY }, CropKey { epoch: 9, ..KEY }, CropKey { sample: 9, ..KEY }]
        {
            assert_ne!(first, crops(&small(), &image, other));
        }
    }

    #[test]
    fn a_changed_probability_leaves_the_other_choices() {
        let plan = |config: &AugmentConfig, view| MultiCrop::new(config).plan((90, 70), KEY, view);
        let never = AugmentConfig { jitter_prob: 0.0, gray_prob: 0.0, ..small() };
        let always = AugmentConfig { jitter_prob: 1.0, gray_prob: 1.0, ..small() };
        for view in 0..5 {
            let (a, b) = (plan(&never, view), plan(&always, view));
            assert!(a.jitter.is_none() && b.jitter.is_some() && !a.gray && b.gray);
            let same = CropPlan { jitter: None, gray: false, ..b };
            assert_eq!(a, same);
        }
    }

    #[test]
    fn probabilities_are_those_of_the_view() {
        let multicrop = MultiCrop::new(&AugmentConfig::default());
        let n = 4000;
        let share = |view: usize, test: fn(&CropPlan) -> bool| {
            let hits = (0..n).filter(|&sample| {
                test(&multicrop.plan((64, 64), CropKey { seed: 0, epoch: 0, sample }, view))
            });
            hits.count() as f64 / n as f64
        };
        let near = |got: f64, want: f64| assert!((got - want).abs() < 0.03, "{got} {want}");
        for (view, blur, solarize) in [(0, 1.0, 0.0), (1, 0.1, 0.2), (2, 0.5, 0.0), (11, 0.5, 0.0)]
        {
            near(share(view, |p| p.blur_sigma.is_some()), blur);
            near(share(view, |p| p.solarize), solarize);
            near(share(view, |p| p.flip), 0.5);
            near(share(view, |p| p.jitter.is_some()), 0.8);
            near(share(view, |p| p.gray), 0.2);
        }
        near(share(0, |p| matches!(p.jitter, Some([Jitter::Hue(_), ..]))), 0.2);
    }

    /// As in torchvision's ColorJitter, factors are uniform on their ranges and independent of the
    /// order, which is one of 24 with equal probability. The sigma of the blur is uniform.
    ///
    /// The Kolmogorov distance of 20,000 draws exceeds 0.0138 in one of a thousand tests. A range
    /// that is off by 3% has a distance of 0.015 or more and is detected more often than not, and
    /// one that is off by 5% almost always. Pearson's sum over 24 orders exceeds 49.7 in one of a
    /// thousand tests.
    #[test]
    fn strengths_are_distributed_as_torchvisions() {
        let multicrop = MultiCrop::new(&AugmentConfig { jitter_prob: 1.0, ..Default::default() });
        let n = 20_000;
        let mut draws: [Vec<f64>; 5] = Default::default();
        let mut orders = std::collections::BTreeMap::<Vec<usize>, usize>::new();
        for sample in 0..n {
            let plan = multicrop.plan((64, 64), CropKey { seed: 5, epoch: 0, sample }, 0);
            let steps = plan.jitter.unwrap();
            let order = steps.map(|step| {
                let (number, share) = match step {
                    Jitter::Brightness(f) => (0, (f - 0.6) / 0.8),
                    Jitter::Contrast(f) => (1, (f - 0.6) / 0.8),
                    Jitter::Saturation(f) => (2, (f - 0.8) / 0.4),
                    Jitter::Hue(turns) => (3, (turns + 0.1) / 0.2),
                };
                draws[number].push(share);
                number
            });
            draws[4].push((plan.blur_sigma.unwrap() - 0.1) / 1.9);
            *orders.entry(order.to_vec()).or_default() += 1;
        }
        for (number, shares) in draws.iter_mut().enumerate() {
            shares.sort_by(f64::total_cmp);
            let distance = shares.iter().enumerate().map(|(i, share)| {
                (share - i as f64 / n as f64).abs().max((share - (i + 1) as f64 / n as f64).abs())
            });
            let distance = distance.fold(0.0, f64::max);
            assert!(distance < 0.0138, "{number}: {distance}");
        }
        let expected = n as f64 / 24.0;
        let pearson: f64 =
            orders.values().map(|&count| (count as f64 - expected).powi(2) / expected).sum();
        assert!(orders.len() == 24 && pearson < 49.7, "{pearson} {orders:?}");
    }

    #[test]
    fn wrong_slices_are_errors() {
        let multicrop = MultiCrop::new(&AugmentConfig { local_crops_number: 0, ..small() });
        let (mut a, mut b) = (vec![0; 1728], vec![0; 1728]);
        let image = picture(8, 8);
        multicrop.apply((&image).into(), KEY, &mut [&mut a, &mut b], &mut []).unwrap();
        let wrong =
            |image: &RgbImage, globals: &mut [&mut [u8]], locals: &mut [&mut [u8]]| match multicrop
                .apply(image.into(), KEY, globals, locals)
                .unwrap_err()
            {
                Error::Buffer { what, expected, got } => (what, expected, got),
                other => panic!("{other}"),
            };
        let a = &mut a[..];
        assert_eq!(wrong(&image, &mut [a], &mut []), ("global crops", 2, 1));
        assert_eq!(wrong(&image, &mut [a, &mut b[1..]], &mut []), ("bytes of a crop", 1728, 1727));
        assert_eq!(wrong(&image, &mut [a, &mut b], &mut [&mut [0; 9]]), ("local crops", 0, 1));
        let nothing = RgbImage::new(0, 0);
        assert_eq!(wrong(&nothing, &mut [a, &mut b], &mut []), ("bytes of an image", 1, 0));
    }

    proptest! {
        #[test]
        fn every_size_works((width, height) in (1_u32..70, 1_u32..70), sample: u64, nine: bool) {
            let blur = if nine { BlurKind::Kernel9 } else { BlurKind::Pillow };
            let key = CropKey { seed: 0, epoch: 0, sample };
            crops(&AugmentConfig { blur, ..small() }, &picture(width, height), key);
        }
    }
}
