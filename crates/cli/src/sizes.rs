//! The image size of an evaluation.

use std::path::Path;

use augment::EvalTransform;
use clap::value_parser;
use model::ModelConfig;
use protocols::labeled::LabeledImages;
use simdino::assemble::probe_transform;

use crate::config;
use crate::failure::{Failure, Result};
use crate::weights::run_of;

/// Image sizes on the command line.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Sizes {
    /// Shorter side before the center crop, in pixels; by default that of the run's probe, or 8/7
    /// of the crop (256 for 224), rounded up to a multiple of 8
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    resize: Option<u32>,
    /// Side of the center crop, in pixels; by default that of the run's probe, or 224, or less if
    /// the network was made for smaller images
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    crop: Option<u32>,
}

impl Sizes {
    /// Returns whether a size was given.
    pub fn given(&self) -> bool {
        self.resize.is_some() || self.crop.is_some()
    }

    /// Returns the transform for an evaluation of `model`, whose weights are at `weights`. Sizes
    /// that were not given are those of the run's probe, or of the published protocols.
    ///
    /// # Errors
    /// Returns an error if the crop does not consist of whole patches, or exceeds a given resize.
    pub fn transform(&self, weights: &Path, model: &ModelConfig) -> Result<EvalTransform> {
        let probe = probe_of_run(weights);
        let published = LabeledImages::published_transform(model);
        let usual = probe.map_or(published.crop, |probe| probe.crop);
        let crop = self.crop.unwrap_or(usual);
        whole_patches("--crop", crop, model)?;
        let resize = match (self.resize, probe) {
            (Some(resize), _) => resize,
            (None, Some(probe)) if probe.crop == crop => probe.resize,
            (None, _) => EvalTransform::for_crop(crop).resize,
        };
        at_most("--resize", resize)?;
        if self.resize.is_some() && resize < crop {
            let sentence = match self.crop {
                Some(_) => format!("--resize {resize}: must be at least --crop {crop}"),
                None => format!(
                    "--resize {resize}: must be at least the crop of {crop} pixels, or give a \
                     smaller --crop"
                ),
            };
            return Err(Failure::usage(sentence));
        }
        Ok(EvalTransform { resize, crop })
    }
}

/// Checks that a crop, the value of `option`, consists of whole patches of `model`.
///
/// # Errors
/// Returns an error if `crop` is 0 or not a multiple of the patch size.
pub fn whole_patches(option: &str, crop: u32, model: &ModelConfig) -> Result<()> {
    at_most(option, crop)?;
    let (patch, side) = (model.patch_size, i64::from(crop));
    if crop > 0 && side % patch == 0 {
        return Ok(());
    }
    let above = (side / patch + 1) * patch;
    let near = match above - patch {
        0 => above.to_string(),
        below => format!("{below} or {above}"),
    };
    Err(Failure::usage(format!(
        "{option} {crop}: must be a multiple of the patch size of {patch} pixels, such as {near}"
    )))
}

/// Maximum side of an image in pixels, which bounds the memory that an image takes.
pub const MOST: u32 = 16_384;

/// Checks that a side in pixels, the value of `option`, is not above the maximum.
///
/// # Errors
/// Returns an error if it is.
pub fn at_most(option: &str, side: u32) -> Result<()> {
    match side <= MOST {
        true => Ok(()),
        false => Err(Failure::usage(format!("{option} {side}: must be at most {MOST} pixels"))),
    }
}

/// Describes the transform in words.
pub fn words(transform: EvalTransform) -> String {
    let EvalTransform { resize, crop } = transform;
    format!("shorter side resized to {resize} pixels, center crop of {crop}")
}

/// Returns the transform of the probe of the run that `weights` belong to, if they belong to one.
fn probe_of_run(weights: &Path) -> Option<EvalTransform> {
    let text = std::fs::read_to_string(run_of(weights)?.join("config.resolved.yaml")).ok()?;
    Some(probe_transform(&config::of_run(&text).ok()?))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn sizes(image_size: i64, patch_size: i64, [resize, crop]: [Option<u32>; 2]) -> [u32; 2] {
        let model = ModelConfig { image_size, patch_size, ..ModelConfig::default() };
        let sizes = Sizes { resize, crop };
        let found = sizes.transform(Path::new("no run"), &model).unwrap();
        [found.resize, found.crop]
    }

    #[test]
    fn the_published_protocol_is_the_default() {
        assert_eq!(sizes(224, 16, [None; 2]), [256, 224]);
        assert_eq!(sizes(518, 14, [None; 2]), [256, 224]);
        assert_eq!(sizes(384, 16, [None; 2]), [256, 224]);
        assert_eq!(sizes(260, 13, [None; 2]), [256, 221]);
        assert_eq!(sizes(32, 4, [None; 2]), [40, 32]);
        assert_eq!(sizes(96, 8, [Some(96), None]), [96, 96]);
        assert_eq!(sizes(518, 14, [None, Some(518)]), [592, 518]);
    }

    #[test]
    fn a_run_and_its_checkpoints_are_seen_at_one_size() {
        let run = tempfile::tempdir().unwrap();
        let values = ["model.image_size=96", "augment.global_crops_size=96", "probe.resize=112"];
        let config = config::load_unchecked(Path::new("demo"), &values.map(str::to_owned)).unwrap();
        let text = config::to_yaml(&config.config).unwrap();
        std::fs::write(run.path().join("config.resolved.yaml"), text).unwrap();
        for part in ["", "weights/teacher.safetensors", "checkpoints/step-00000010"] {
            let model = ModelConfig { image_size: 224, ..ModelConfig::default() };
            let found = Sizes::default().transform(&run.path().join(part), &model).unwrap();
            assert_eq!([found.resize, found.crop], [112, 96], "{part}");
        }
    }

    #[test]
    fn no_size_is_zero() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            sizes: Sizes,
        }
        assert!(Line::try_parse_from(["eval", "--resize", "64", "--crop", "64"]).is_ok());
        for key in ["--resize", "--crop"] {
            let error = Line::try_parse_from(["eval", key, "0"]).err().unwrap().to_string();
            assert!(error.contains(key) && error.contains('1'), "{error}");
        }
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        let model = ModelConfig::default();
        for [resize, crop] in [[None, Some(100)], [Some(200), Some(224)], [Some(200), None]] {
            let refused = Sizes { resize, crop }.transform(Path::new("no run"), &model);
            assert_eq!(refused.unwrap_err().code(), 2);
        }
    }
}
