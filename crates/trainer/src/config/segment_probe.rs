//! Segmentation during a run.

use base::check::Check;
use data::dense::Preset;
use serde::{Deserialize, Serialize};

use super::every::{self, EveryEpochs};

/// Segmentation by the nearest patches during training. Section `probe.segment`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SegmentProbeConfig {
    /// Number of epochs between two measurements, as `probe.every_epochs`.
    pub every_epochs: Option<EveryEpochs>,
    /// Images whose patches are looked up: a folder, or a folder in a tar file.
    pub images: Option<String>,
    /// Their label images (PNG), which have the same names.
    pub labels: Option<String>,
    /// Images that are segmented.
    pub test_images: Option<String>,
    /// Their label images.
    pub test_labels: Option<String>,
    /// Dataset whose label values and file names are known: ade20k, voc2012, cityscapes, coco-stuff,
    /// or camvid. One of `preset`, `classes`, `label_map`, and `palette` says what label values mean.
    pub preset: Option<String>,
    /// Number of classes, if label values range from 0 to this number minus 1.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub classes: Option<u16>,
    /// Label values that are ignored, with `classes`.
    pub ignore: Vec<u16>,
    /// With `classes`, the label value 0 is ignored and 1 is the first class.
    pub reduce_zero_label: bool,
    /// File with lines of a label value, its class or `ignore`, and optionally a name.
    pub label_map: Option<String>,
    /// For RGB label images: file with lines of red, green, blue, and optionally the name of the class.
    pub palette: Option<String>,
    /// Largest number of `images` that are used, spread evenly over the set. If it is null, all.
    #[cfg_attr(feature = "schema", schemars(range(min = 2)))]
    pub max_train: Option<usize>,
    /// Largest number of `test_images` that are used, spread evenly over the set. If it is null, all.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub max_test: Option<usize>,
    /// Side, in pixels, of the square to which images and masks are resized. If it is absent, twice
    /// `model.image_size`, such as 448 for 224, as in CAPI.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub side: Option<u32>,
    /// Largest number of patches that are looked up, the same number of each image. Every process
    /// keeps them all.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub memory: usize,
}

impl Default for SegmentProbeConfig {
    fn default() -> Self {
        Self {
            every_epochs: Some(EveryEpochs::Never),
            images: None,
            labels: None,
            test_images: None,
            test_labels: None,
            preset: None,
            classes: None,
            ignore: vec![255],
            reduce_zero_label: false,
            label_map: None,
            palette: None,
            max_train: Some(500),
            max_test: Some(200),
            side: None,
            memory: 100_000,
        }
    }
}

impl SegmentProbeConfig {
    /// Checks the values of an enabled probe; keys are relative to the section `probe`.
    pub(super) fn check(&self, check: &mut Check) {
        every::check("segment.every_epochs", check, self.every_epochs);
        for (key, path) in [
            ("segment.images", &self.images),
            ("segment.labels", &self.labels),
            ("segment.test_images", &self.test_images),
            ("segment.test_labels", &self.test_labels),
        ] {
            check.that(key, path.is_some(), || {
                "required: segmentation needs two sets of images and their label images".into()
            });
        }
        self.check_meaning(check);
        check.at_least("segment.max_train", self.max_train, 2);
        check.at_least("segment.max_test", self.max_test, 1);
        check.at_least("segment.side", self.side, 1);
        check.at_least("segment.memory", self.memory, 1);
    }

    /// Checks that exactly one key says what label values mean, and that others go with it.
    fn check_meaning(&self, check: &mut Check) {
        let given = [
            ("preset", self.preset.is_some()),
            ("classes", self.classes.is_some()),
            ("label_map", self.label_map.is_some()),
            ("palette", self.palette.is_some()),
        ];
        let given: Vec<&str> = given.iter().filter(|(_, on)| *on).map(|(key, _)| *key).collect();
        check.that("segment.classes", given.len() == 1, || {
            let got = if given.is_empty() { "none".to_owned() } else { given.join(", ") };
            format!(
                "set exactly one of preset, classes, label_map, and palette, which define the \
                 label values (got {got})"
            )
        });
        check.at_least("segment.classes", self.classes.map(u32::from), 1);
        let most = if self.reduce_zero_label { 254 } else { 255 };
        let too_many = self.classes.is_some_and(|classes| usize::from(classes) > most);
        check.that("segment.classes", !too_many, || format!("must be at most {most}"));
        let default = Self::default();
        let meant = self.classes.is_some() || self.reduce_zero_label == default.reduce_zero_label;
        check.that("segment.reduce_zero_label", meant, || "requires probe.segment.classes".into());
        let meant = self.classes.is_some() || self.ignore == default.ignore;
        check.that("segment.ignore", meant, || "requires probe.segment.classes".into());
        let known = Preset::ALL.map(|(name, _)| name);
        let unknown = self.preset.as_deref().filter(|name| !known.contains(name));
        check.that("segment.preset", unknown.is_none(), || {
            format!("must be one of {} (got {})", known.join(", "), unknown.unwrap_or_default())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(segment: &SegmentProbeConfig) -> Vec<&'static str> {
        let mut check = Check::default();
        segment.check(&mut check);
        check.problems().into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn what_is_missing_is_named() {
        let path = || Some("a".to_owned());
        let good = SegmentProbeConfig {
            every_epochs: None,
            images: path(),
            labels: path(),
            test_images: path(),
            test_labels: path(),
            classes: Some(3),
            ..Default::default()
        };
        assert_eq!(problems(&good), Vec::<&str>::new());
        let no_labels = SegmentProbeConfig { test_labels: None, ..good.clone() };
        assert_eq!(problems(&no_labels), ["segment.test_labels"]);
        for (segment, key) in [
            (SegmentProbeConfig { classes: None, ..good.clone() }, "segment.classes"),
            (SegmentProbeConfig { palette: path(), ..good.clone() }, "segment.classes"),
            (
                SegmentProbeConfig { classes: None, preset: path(), ..good.clone() },
                "segment.preset",
            ),
            (SegmentProbeConfig { max_train: Some(1), ..good.clone() }, "segment.max_train"),
            (SegmentProbeConfig { memory: 0, ..good.clone() }, "segment.memory"),
            (
                SegmentProbeConfig { classes: Some(255), reduce_zero_label: true, ..good.clone() },
                "segment.classes",
            ),
            (
                SegmentProbeConfig {
                    classes: None,
                    palette: path(),
                    ignore: vec![],
                    ..good.clone()
                },
                "segment.ignore",
            ),
        ] {
            assert_eq!(problems(&segment), [key]);
        }
    }
}
