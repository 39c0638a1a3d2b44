//! Command-line options for the meaning of the values of label images.

use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use data::dense::{DenseOptions, Preset};

use crate::failure::{Failure, Result};
use crate::label_meaning::LabelMeaning;

/// Options for the meaning of label values. Exactly one of `--preset`, `--classes`, `--label-map`,
/// and `--palette` must be given.
#[derive(Debug, Clone, clap::Args)]
pub struct Labels {
    /// A dataset whose label values and file names are known
    #[arg(long, conflicts_with_all = ["classes", "label_map", "palette"])]
    preset: Option<Known>,
    /// Number of classes: label values are 0 up to this number less 1
    #[arg(long, value_name = "N", conflicts_with_all = ["label_map", "palette"])]
    classes: Option<u16>,
    /// A file with lines of a label value, its class or `ignore`, and optionally a name
    #[arg(long, value_name = "FILE", conflicts_with = "palette")]
    label_map: Option<PathBuf>,
    /// For RGB label images: a file with lines of red, green, blue, and optionally the name of the
    /// class; the name `ignore` is no class
    #[arg(long, value_name = "FILE")]
    palette: Option<PathBuf>,
    /// Label values that are ignored, with --classes
    #[arg(long, value_delimiter = ',', default_value = "255", requires = "classes", conflicts_with_all = ["preset", "label_map", "palette"])]
    ignore: Vec<u16>,
    /// The label value 0 is ignored and 1 is the first class, with --classes
    #[arg(long, requires = "classes", conflicts_with_all = ["preset", "label_map", "palette"])]
    reduce_zero_label: bool,
}

/// The name of a [`Preset`].
#[derive(Debug, Clone, Copy)]
struct Known(&'static str);

/// All presets.
const KNOWN: [Known; Preset::ALL.len()] = {
    let mut known = [Known(""); Preset::ALL.len()];
    let mut i = 0;
    while i < known.len() {
        known[i] = Known(Preset::ALL[i].0);
        i += 1;
    }
    known
};

impl ValueEnum for Known {
    fn value_variants<'a>() -> &'a [Self] {
        &KNOWN
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0))
    }
}

impl Labels {
    /// Returns how files are paired and label values are read, with a description in words.
    ///
    /// # Errors
    /// Returns an error if no meaning is given, a file cannot be read, or there are no classes or
    /// too many.
    pub fn options(&self) -> Result<(DenseOptions, String)> {
        let meaning = LabelMeaning {
            preset: self.preset.map(|known| known.0),
            classes: self.classes,
            ignore: &self.ignore,
            reduce_zero_label: self.reduce_zero_label,
            label_map: self.label_map.as_deref(),
            palette: self.palette.as_deref(),
        };
        meaning.options()?.ok_or_else(|| {
            Failure::usage(
                "the meaning of the label values is unknown: give --preset, --classes, \
                 --label-map, or --palette",
            )
        })
    }
}
