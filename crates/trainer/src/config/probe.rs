//! What is measured during a run.

use base::check::{Check, Problem};
use serde::{Deserialize, Serialize};

use super::every::{self, EveryEpochs};
use super::segment_probe::SegmentProbeConfig;

/// What is measured of the teacher during training. Section `probe`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ProbeConfig {
    /// Labeled images that k-NN and logistic regression learn from. If it is absent, neither is
    /// measured.
    pub train_path: Option<String>,
    /// Labeled images that are classified.
    pub test_path: Option<String>,
    /// Number of epochs between two measurements of k-NN accuracy. The start and the last step have
    /// one, too; if it is null, only they do.
    pub every_epochs: Option<EveryEpochs>,
    /// Largest number of images of `train_path` that are used, spread evenly over the set. If it is
    /// null, all.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub max_train: Option<usize>,
    /// Largest number of images of `test_path` that are used, spread evenly over the set. If it is
    /// null, all.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub max_test: Option<usize>,
    /// Number of neighbors that vote. 20 in DINO.
    pub k: usize,
    /// Temperature of the votes. 0.07 in DINO.
    pub temperature: f64,
    /// Length, in pixels, that the shorter side of images is resized to before the center crop of
    /// `model.image_size`, and at least that size. If it is absent, 8/7 of that size, rounded up to a multiple of 8: 256 for
    /// 224, as in DINO, and 40 for 32.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub resize: Option<u32>,
    /// Logistic regression on the features of the same labeled images.
    pub logistic: LogisticProbeConfig,
    /// How many directions the features use. It needs no labels.
    pub rank: RankProbeConfig,
    /// Segmentation by the nearest patches, on images with a class for every pixel.
    pub segment: SegmentProbeConfig,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self {
            train_path: None,
            test_path: None,
            every_epochs: Some(EveryEpochs::Number(5.0)),
            max_train: Some(5000),
            max_test: Some(2000),
            k: 20,
            temperature: 0.07,
            resize: None,
            logistic: LogisticProbeConfig::default(),
            rank: RankProbeConfig::default(),
            segment: SegmentProbeConfig::default(),
        }
    }
}

/// Logistic regression during training. Section `probe.logistic`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct LogisticProbeConfig {
    /// Number of epochs between two measurements, as `probe.every_epochs`.
    pub every_epochs: Option<EveryEpochs>,
}

impl Default for LogisticProbeConfig {
    fn default() -> Self {
        Self { every_epochs: Some(EveryEpochs::Never) }
    }
}

/// Effective rank and dimension during training. Section `probe.rank`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RankProbeConfig {
    /// Number of epochs between two measurements, as `probe.every_epochs`. With `never`, the
    /// k-NN probe measures them on the images of `probe.train_path`.
    pub every_epochs: Option<EveryEpochs>,
    /// Images, whose labels are not used. If it is absent, those of `probe.train_path`; if that is
    /// absent, too, those of `data`.
    pub path: Option<String>,
    /// Largest number of images of `path` or `data` that are used, spread evenly over the set. If it
    /// is null, all.
    #[cfg_attr(feature = "schema", schemars(range(min = 2)))]
    pub max_images: Option<usize>,
}

impl Default for RankProbeConfig {
    fn default() -> Self {
        Self { every_epochs: Some(EveryEpochs::Never), path: None, max_images: Some(2000) }
    }
}

impl ProbeConfig {
    /// Returns whether k-NN accuracy is measured.
    pub fn knn_is_on(&self) -> bool {
        self.train_path.is_some() && self.every_epochs != Some(EveryEpochs::Never)
    }

    /// Returns whether logistic regression is measured.
    pub fn logistic_is_on(&self) -> bool {
        self.logistic.every_epochs != Some(EveryEpochs::Never)
    }

    /// Returns whether the rank is measured at intervals of its own.
    pub fn rank_is_on(&self) -> bool {
        self.rank.every_epochs != Some(EveryEpochs::Never)
    }

    /// Returns whether segmentation is measured.
    pub fn segment_is_on(&self) -> bool {
        self.segment.every_epochs != Some(EveryEpochs::Never)
    }

    /// Returns every invalid value.
    pub fn validate(&self) -> Vec<Problem> {
        let mut check = Check::default();
        every::check("every_epochs", &mut check, self.every_epochs);
        check.at_least("max_train", self.max_train, 1);
        check.at_least("max_test", self.max_test, 1);
        check.at_least("resize", self.resize, 1);
        check.at_least("k", self.k, 1);
        check.positive("temperature", self.temperature);
        every::check("logistic.every_epochs", &mut check, self.logistic.every_epochs);
        every::check("rank.every_epochs", &mut check, self.rank.every_epochs);
        check.at_least("rank.max_images", self.rank.max_images, 2);
        self.check_paths(&mut check);
        if self.segment_is_on() {
            self.segment.check(&mut check);
        }
        check.problems()
    }

    /// Checks that k-NN and regression have the two sets that they need.
    fn check_paths(&self, check: &mut Check) {
        let (train, test) = (&self.train_path, &self.test_path);
        let missing = if train.is_none() { "train_path" } else { "test_path" };
        check.that(missing, train.is_none() == test.is_none(), || {
            "required when the other path is given: the probe needs both".into()
        });
        let regression = self.logistic_is_on() && train.is_none() && test.is_none();
        check.that("train_path", !regression, || {
            "required by probe.logistic, which needs labeled images; set probe.test_path, too"
                .into()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_value_is_named() {
        assert_eq!(ProbeConfig::default().validate(), []);
        let zero = Some(EveryEpochs::Number(0.0));
        let probe = ProbeConfig {
            temperature: 0.0,
            every_epochs: zero,
            logistic: LogisticProbeConfig { every_epochs: zero },
            ..Default::default()
        };
        let zero = || "must be greater than 0 (got 0)".to_owned();
        let missing =
            "required by probe.logistic, which needs labeled images; set probe.test_path, too";
        assert_eq!(
            probe.validate(),
            [
                ("every_epochs", zero()),
                ("temperature", zero()),
                ("logistic.every_epochs", zero()),
                ("train_path", missing.to_owned())
            ]
        );
    }

    #[test]
    fn an_interval_is_a_number_or_never_or_null() {
        let of = |text: &str| serde_json::from_str::<Option<EveryEpochs>>(text).unwrap();
        assert_eq!(of("2.5"), Some(EveryEpochs::Number(2.5)));
        assert_eq!(of("2"), Some(EveryEpochs::Number(2.0)));
        assert_eq!(of("\"never\""), Some(EveryEpochs::Never));
        assert_eq!(of("null"), None);
        for every in ["2.5", "\"never\"", "null"] {
            assert_eq!(serde_json::to_string(&of(every)).unwrap(), every);
        }
    }
}
