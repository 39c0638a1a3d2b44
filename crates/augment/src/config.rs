//! How images are cropped and augmented.

use base::check::{Check, Problem};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Allowed sides of crops, in pixels.
const SIDES: std::ops::RangeInclusive<u32> = 4..=4096;

/// Which Gaussian blur is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum BlurKind {
    /// Pillow's `GaussianBlur`, which is three passes of a box filter; used by DINO and SimDINO.
    #[default]
    Pillow,
    /// torchvision's Gaussian kernel of 9 x 9 pixels; used by DINOv2 and SimDINOv2.
    Kernel9,
}

/// The augmentation of a published recipe, from which the keys that are not given are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// 10 local crops and Pillow's blur.
    #[default]
    Simdino,
    /// As `simdino`, with the blur `kernel9`.
    Simdinov2,
    /// 8 local crops and Pillow's blur.
    Dino,
    /// 8 local crops, area ranges [0.32, 1] and [0.05, 0.32], and the blur `kernel9`. Blur
    /// probabilities are 1, 0.1, and 0.5, as the reference states and SimDINO's copy applies;
    /// Meta's own code draws the complement, so its published runs had `blur_prob: [0, 0.9, 0.5]`.
    Dinov2,
}

/// Multi-crop augmentation. Section `augment`. Names as in the reference implementation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Published augmentation that supplies the values of the keys that are not given.
    pub preset: Preset,
    /// Side of the two global crops, in pixels. 224 in all four papers.
    pub global_crops_size: u32,
    /// Fraction of the image area that a global crop covers, [low, high]. [0.4, 1] in SimDINO,
    /// [0.32, 1] in DINOv2.
    pub global_crops_scale: [f64; 2],
    /// Number of local crops per image. 10 in SimDINO and SimDINOv2, 8 in DINO and DINOv2.
    pub local_crops_number: usize,
    /// Side of the local crops, in pixels. 96 in the published recipes (98 with patches of 14
    /// pixels).
    pub local_crops_size: u32,
    /// Fraction of the image area that a local crop covers, [low, high]. [0.05, 0.4] in SimDINO,
    /// [0.05, 0.32] in DINOv2.
    pub local_crops_scale: [f64; 2],
    /// Probability of a horizontal flip.
    pub flip_prob: f64,
    /// Probability of color jitter.
    pub jitter_prob: f64,
    /// Strength of the brightness jitter b: the factor is drawn from [1 - b, 1 + b].
    pub brightness: f64,
    /// Strength of the contrast jitter c: the factor is drawn from [1 - c, 1 + c].
    pub contrast: f64,
    /// Strength of the saturation jitter s: the factor is drawn from [1 - s, 1 + s].
    pub saturation: f64,
    /// Strength of the hue jitter h, at most 0.5: the shift is drawn from [-h, h], where 1 is a
    /// full turn.
    pub hue: f64,
    /// Probability of conversion to grayscale.
    pub gray_prob: f64,
    /// Implementation of the Gaussian blur.
    pub blur: BlurKind,
    /// Standard deviation of the blur, [low, high], in pixels of the crop.
    pub blur_sigma: [f64; 2],
    /// Probability of blur for the first global crop, the second, and each local crop. Meta's
    /// published runs of DINOv2 had [0, 0.9, 0.5].
    pub blur_prob: [f64; 3],
    /// Probability of solarization for the second global crop.
    pub solarize_prob: f64,
    /// Values at or above this are inverted by solarization (0 to 255).
    pub solarize_threshold: u8,
    /// Mean of each channel on the scale [0, 1], which is subtracted from images. The default is
    /// that of ImageNet; `simdino data check --stats` prints that of your images.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel on the scale [0, 1], by which images are divided. The
    /// default is that of ImageNet.
    pub std: Vec<f32>,
}

impl Default for AugmentConfig {
    fn default() -> Self {
        Self {
            preset: Preset::Simdino,
            global_crops_size: 224,
            global_crops_scale: [0.4, 1.0],
            local_crops_number: 10,
            local_crops_size: 96,
            local_crops_scale: [0.05, 0.4],
            flip_prob: 0.5,
            jitter_prob: 0.8,
            brightness: 0.4,
            contrast: 0.4,
            saturation: 0.2,
            hue: 0.1,
            gray_prob: 0.2,
            blur: BlurKind::Pillow,
            blur_sigma: [0.1, 2.0],
            blur_prob: [1.0, 0.1, 0.5],
            solarize_prob: 0.2,
            solarize_threshold: 128,
            mean: vec![0.485, 0.456, 0.406],
            std: vec![0.229, 0.224, 0.225],
        }
    }
}

impl AugmentConfig {
    /// Returns the augmentation of a published recipe.
    pub fn of(preset: Preset) -> Self {
        let v1 = Self { preset, ..Self::default() };
        match preset {
            Preset::Simdino => v1,
            Preset::Simdinov2 => Self { blur: BlurKind::Kernel9, ..v1 },
            Preset::Dino => Self { local_crops_number: 8, ..v1 },
            Preset::Dinov2 => Self {
                local_crops_number: 8,
                global_crops_scale: [0.32, 1.0],
                local_crops_scale: [0.05, 0.32],
                blur: BlurKind::Kernel9,
                ..v1
            },
        }
    }

    /// Returns every invalid value.
    pub fn validate(&self) -> Vec<Problem> {
        let mut check = Check::default();
        check.within("global_crops_size", self.global_crops_size, SIDES);
        check.within("local_crops_size", self.local_crops_size, SIDES);
        let fractions = (0.0, true, 1.0);
        check.ordered("global_crops_scale", self.global_crops_scale, fractions);
        check.ordered("local_crops_scale", self.local_crops_scale, fractions);
        check.fraction("flip_prob", self.flip_prob);
        check.fraction("jitter_prob", self.jitter_prob);
        check.fraction("gray_prob", self.gray_prob);
        self.blur_prob.iter().for_each(|&p| check.fraction("blur_prob", p));
        check.fraction("solarize_prob", self.solarize_prob);
        check.fraction("brightness", self.brightness);
        check.fraction("contrast", self.contrast);
        check.fraction("saturation", self.saturation);
        check.within("hue", self.hue, 0.0..=0.5);
        check.ordered("blur_sigma", self.blur_sigma, (0.0, true, f64::INFINITY));
        check.that("std", self.std.iter().all(|&s| s > 0.0), || {
            format!("every value must be greater than 0 (got {:?})", self.std)
        });
        check.problems()
    }

    /// Returns the settings that do not fit images with `channels` values per pixel.
    pub fn validate_channels(&self, channels: usize) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self.color_problem(channels).into_iter().collect();
        for (key, values) in [("mean", &self.mean), ("std", &self.std)] {
            if values.len() != channels {
                let got = values.len();
                let each = match channels {
                    1 => "the only channel".to_owned(),
                    _ => format!("each of the {channels} channels"),
                };
                let problem = format!(
                    "needs one value for {each} (got {got}); `simdino data check --channels \
                     {channels} --stats` prints them"
                );
                problems.push((key, problem));
            }
        }
        problems
    }

    /// Rejects changes of color for images that have no color.
    ///
    /// # Errors
    /// Returns [`Error::Config`] with the first offending key.
    pub fn check_colors(&self, channels: usize) -> Result<()> {
        let problem = self.color_problem(channels);
        problem.map_or(Ok(()), |(key, problem)| Err(Error::Config { key, problem }))
    }

    /// Returns the first setting that changes colors although there are none. Saturation, hue, and
    /// gray are only defined for red, green, and blue; everything else applies to any channels.
    fn color_problem(&self, channels: usize) -> Option<Problem> {
        let strengths =
            [("saturation", self.saturation), ("hue", self.hue), ("gray_prob", self.gray_prob)];
        let (key, _) = strengths.into_iter().find(|&(_, strength)| strength > 0.0)?;
        (channels != 3).then(|| {
            let problem = format!(
                "needs RGB images, which have 3 channels (got {channels}): set \
                 augment.saturation, augment.hue, and augment.gray_prob to 0"
            );
            (key, problem)
        })
    }
}
