//! The meaning of the values of label images, as given by commands and configs.

use std::path::Path;

use data::dense::{DenseOptions, LabelRules, Preset};

/// The options that define what label values mean. At most one of `preset`, `classes`, `label_map`,
/// and `palette` may be given.
#[derive(Debug, Clone, Copy, Default)]
pub struct LabelMeaning<'a> {
    /// Name of a dataset whose label values and file names are known.
    pub preset: Option<&'a str>,
    /// Number of classes.
    pub classes: Option<u16>,
    /// Label values that are ignored; used with `classes`.
    pub ignore: &'a [u16],
    /// Whether 0 is ignored and 1 is the first class; used with `classes`.
    pub reduce_zero_label: bool,
    /// File with a class for each label value.
    pub label_map: Option<&'a Path>,
    /// File with the colors of the classes.
    pub palette: Option<&'a Path>,
}

impl LabelMeaning<'_> {
    /// Returns how files are paired and label values are read, with a description in words; `None`
    /// if nothing is given.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, or if there are no classes or too many.
    pub fn options(&self) -> data::Result<Option<(DenseOptions, String)>> {
        let known = Preset::ALL.iter().find(|(name, _)| Some(*name) == self.preset);
        if let Some((name, preset)) = known {
            return Ok(Some((preset.options()?, format!("preset {name}"))));
        }
        let of_file =
            |rules, path: &Path| Some((DenseOptions::new(rules), path.display().to_string()));
        if let Some(path) = self.label_map {
            return Ok(of_file(LabelRules::read_map(path)?, path));
        }
        if let Some(path) = self.palette {
            return Ok(of_file(LabelRules::read_palette(path)?, path));
        }
        let Some(classes) = self.classes else { return Ok(None) };
        let (classes, ignore) = (usize::from(classes), self.ignore);
        let (rules, words) = match self.reduce_zero_label {
            true => (LabelRules::reduce_zero_label(classes), "from 1, 0 ignored".to_owned()),
            false => (LabelRules::numbered(classes, ignore), format!("from 0, {ignore:?} ignored")),
        };
        Ok(Some((DenseOptions::new(rules?), format!("{classes} classes {words}"))))
    }
}
