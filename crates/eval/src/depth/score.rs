//! Depth errors and their means over a test set.

use data::decode::Image;
use data::dense::{DepthMap, DepthSample};
use data::loader::BrokenImage;
use tch::{Device, Kind, Tensor};

use super::DepthData;
use super::config::{DepthConfig, Scored};
use super::head::{DepthHead, of_pixels};
use crate::error::{Error, Result};
use crate::segmentation::{DenseNetwork, read_each, threads};

/// Errors of the pixels of an image, or their means over images.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct DepthScore {
    /// Fractions of pixels whose predicted depth is within a factor of 1.25, 1.25^2, and 1.25^3,
    /// 0-1.
    pub within: [f64; 3],
    /// Mean absolute error divided by the true depth.
    pub abs_rel: f64,
    /// Root of the mean squared error, in meters.
    pub rmse: f64,
    /// Root of the mean squared error of natural logarithms.
    pub rmse_log: f64,
    /// Mean absolute error of decimal logarithms.
    pub log10: f64,
    /// Standard deviation of the error of natural logarithms, which a common factor does not
    /// change.
    pub silog: f64,
}

impl DepthScore {
    /// Returns the errors by name, the main one first. Only `rmse (m)` has a unit, meters.
    pub fn named(&self) -> [(&'static str, f64); 8] {
        let [d1, d2, d3] = self.within;
        [
            ("d1", d1),
            ("d2", d2),
            ("d3", d3),
            ("abs_rel", self.abs_rel),
            ("rmse (m)", self.rmse),
            ("rmse_log", self.rmse_log),
            ("log10", self.log10),
            ("silog", self.silog),
        ]
    }
}

/// Sums of the errors over images.
#[derive(Debug, Clone, Default)]
pub struct Errors {
    sums: [f64; 8],
    images: usize,
}

impl Errors {
    /// Adds an image and returns its errors. Pixels count if they are in the scored part and their
    /// true depth is strictly between the smallest and the largest one; predictions are clamped to
    /// that range. If no pixel counts, adds nothing and returns `None`.
    ///
    /// # Errors
    /// Returns an error if the numbers of pixels differ, a prediction is NaN, or the crop of NYU is
    /// requested for an image that is not 640x480.
    pub fn add(
        &mut self,
        predicted: &[f32],
        truth: &DepthMap,
        config: &DepthConfig,
    ) -> Result<Option<DepthScore>> {
        let pixels = truth.meters.len();
        if predicted.len() != pixels || pixels != truth.width as usize * truth.height as usize {
            let got = vec![predicted.len() as i64];
            return Err(Error::Shape { what: "depths", expected: "[H, W], as the truth", got });
        }
        let [rows, columns] = scored(config.scored, truth.width, truth.height)?;
        let (least, most) = (config.min_depth, config.max_depth);
        let (mut sums, mut of_log, mut count) = ([0.0; 8], 0.0, 0_u64);
        for y in rows {
            for x in columns.clone() {
                let place = y * truth.width as usize + x;
                let depth = f64::from(truth.meters[place]);
                if depth <= least || depth >= most {
                    continue;
                }
                let guess = f64::from(predicted[place]);
                if guess.is_nan() {
                    return Err(Error::DepthNotFinite);
                }
                let guess = guess.clamp(least, most);
                let (ratio, log) = ((guess / depth).max(depth / guess), guess.ln() - depth.ln());
                for (power, sum) in (1..).zip(&mut sums[..3]) {
                    *sum += f64::from(u8::from(ratio < 1.25_f64.powi(power)));
                }
                sums[3] += (guess - depth).abs() / depth;
                sums[4] += (guess - depth).powi(2);
                sums[5] += log * log;
                sums[6] += log.abs() / std::f64::consts::LN_10;
                of_log += log;
                count += 1;
            }
        }
        if count == 0 {
            return Ok(None);
        }
        let mut of_image = sums.map(|sum| sum / count as f64);
        let mean_log = of_log / count as f64;
        of_image[7] = (of_image[5] - mean_log * mean_log).max(0.0).sqrt();
        of_image[4] = of_image[4].sqrt();
        of_image[5] = of_image[5].sqrt();
        self.images += 1;
        self.sums.iter_mut().zip(of_image).for_each(|(sum, value)| *sum += value);
        Ok(Some(score(of_image)))
    }

    /// Returns the means over all images.
    ///
    /// # Errors
    /// Returns an error if no image had a scored pixel.
    pub fn mean(&self, config: &DepthConfig) -> Result<DepthScore> {
        match self.images {
            0 => Err(Error::NoDepths { least: config.min_depth, most: config.max_depth }),
            images => Ok(score(self.sums.map(|sum| sum / images as f64))),
        }
    }
}

fn score([d1, d2, d3, abs_rel, rmse, rmse_log, log10, silog]: [f64; 8]) -> DepthScore {
    DepthScore { within: [d1, d2, d3], abs_rel, rmse, rmse_log, log10, silog }
}

/// Returns the rows and the columns that are scored.
fn scored(part: Scored, width: u32, height: u32) -> Result<[std::ops::Range<usize>; 2]> {
    let share = |side: u32, share: f64| (share * f64::from(side)) as usize;
    match part {
        Scored::All => Ok([0..height as usize, 0..width as usize]),
        Scored::Nyu if (width, height) == (640, 480) => Ok([45..471, 41..601]),
        Scored::Nyu => Err(Error::Setting {
            key: "scored",
            problem: format!(
                "the NYU crop is defined for images of 640x480 (got {width}x{height})"
            ),
        }),
        Scored::Garg => Ok([
            share(height, 0.408_108_11)..share(height, 0.991_891_89),
            share(width, 0.035_947_71)..share(width, 0.964_052_29),
        ]),
    }
}

/// Checks that the scored part exists in the first readable map of a set.
///
/// # Errors
/// Returns an error if the crop of NYU is requested for maps of another size.
pub fn check_scored(data: &DepthData<'_>, config: &DepthConfig) -> Result<()> {
    if config.scored == Scored::All {
        return Ok(());
    }
    match data.indices().into_iter().find_map(|index| data.set.load(index).ok()) {
        Some(sample) => scored(config.scored, sample.depth.width, sample.depth.height).map(|_| ()),
        None => Ok(()), // the evaluation says that no image is readable
    }
}

/// Estimates the depth of each pixel.
pub trait Estimator {
    /// Returns the depths of all pixels of an image in meters, in row-major order.
    ///
    /// # Errors
    /// Returns an error if the image cannot be processed.
    fn depths(&self, image: &Image) -> Result<Vec<f32>>;
}

/// A frozen network with a trained head.
#[derive(Debug)]
pub struct LinearEstimator<'a> {
    /// The network.
    pub network: DenseNetwork<'a>,
    /// The trained head.
    pub head: DepthHead,
    /// Settings of the test.
    pub config: DepthConfig,
}

impl Estimator for LinearEstimator<'_> {
    fn depths(&self, image: &Image) -> Result<Vec<f32>> {
        let input = self.network.input(&[image])?; // [1, C, H, W]
        let (height, width) = (input.size()[2], input.size()[3]);
        let patch = i64::from(self.network.frozen.network.patch_size());
        let of = |input: &Tensor| -> Result<Tensor> {
            let depths = tch::no_grad(|| self.head.depths(&self.network.maps(input)?))?;
            of_pixels(&depths, patch, [height, width])
        };
        let mut depths = of(&input)?;
        if self.config.test_flip {
            depths = (depths + of(&input.f_flip([3])?)?.f_flip([2])?) * 0.5;
        }
        let depths = depths.f_to_device(Device::Cpu)?.to_kind(Kind::Float).contiguous();
        Ok(Vec::<f32>::try_from(depths.flatten(0, -1))?)
    }
}

/// The result of [`evaluate`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Evaluated {
    /// Means over the images.
    pub score: DepthScore,
    /// Number of images scored.
    pub images: usize,
    /// Images that could not be read or have no depth in range; they are not scored.
    pub broken: Vec<BrokenImage>,
}

/// Scores an estimator on a set. Calls `seen` after each image that could be read.
///
/// # Errors
/// Returns an error if no image is readable, no image has a scored depth, or the estimator fails.
pub fn evaluate(
    data: &DepthData<'_>,
    estimator: &dyn Estimator,
    config: &DepthConfig,
    seen: &mut dyn FnMut(),
) -> Result<Evaluated> {
    config.check()?;
    let (indices, mut errors) = (data.indices(), Errors::default());
    let mut empty = Vec::new();
    let load = |index| data.set.load(index).map_err(Error::from);
    let name = |index| data.set.name(index);
    let take = |place: usize, DepthSample { image, depth }: DepthSample| {
        let predicted = estimator.depths(&image)?;
        if errors.add(&predicted, &depth, config)?.is_none() {
            let index = indices[place];
            let reason = "no depth within range in the scored region".to_owned();
            empty.push(BrokenImage { index, name: data.set.name(index), reason });
        }
        seen();
        Ok(())
    };
    let mut broken =
        read_each(&indices, threads(data.workers), load, name, take)?.not_empty()?.broken;
    broken.extend(empty);
    Ok(Evaluated { score: errors.mean(config)?, images: errors.images, broken })
}
