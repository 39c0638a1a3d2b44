//! The meaning of the values in label images.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use decode::{LabelImage, LabelPixels};

use crate::error::{Error, Result};

/// The class of a pixel that is neither learned nor scored.
pub const IGNORE: u8 = 255;

/// Maximum number of classes: their numbers are stored in a byte, and [`IGNORE`] is not one of
/// them.
const MOST_CLASSES: usize = IGNORE as usize;

/// The class of each pixel, or [`IGNORE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelMap {
    /// Number of pixels per row.
    pub width: u32,
    /// Number of rows.
    pub height: u32,
    /// One class per pixel, row by row from the top.
    pub ids: Vec<u8>,
}

/// Maps the values of label images to classes.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelRules {
    classes: usize,
    names: Vec<String>,
    values: Values,
}

#[derive(Debug, Clone, PartialEq)]
enum Values {
    /// Class by gray value or palette index; may be [`IGNORE`].
    Ids(BTreeMap<u16, u8>),
    /// Class by color; may be [`IGNORE`].
    Colors(BTreeMap<[u8; 3], u8>),
}

impl LabelRules {
    /// Creates rules by which values from 0 to `classes - 1` are classes and those of `ignore` are
    /// ignored. Any other value is invalid.
    ///
    /// # Errors
    /// Returns an error if there are no classes or more than 255, or if the value of a class is to
    /// be ignored.
    pub fn numbered(classes: usize, ignore: &[u16]) -> Result<Self> {
        if !(1..=MOST_CLASSES).contains(&classes) {
            return Err(count(classes));
        }
        if let Some(id) = ignore.iter().find(|&&id| usize::from(id) < classes) {
            let problem =
                format!("contains {id}, which is a class: the classes are 0 to {}", classes - 1);
            return Err(Error::Config { key: "ignore", problem });
        }
        let ids = (0..classes as u16).map(|id| (id, id as u8));
        let ignored = ignore.iter().map(|&id| (id, IGNORE));
        Self::from_ids(ids.chain(ignored).collect(), Vec::new())
    }

    /// Creates rules by which the value 0 is ignored and the values from 1 to `classes` are the
    /// classes from 0 on, as in ADE20K.
    ///
    /// # Errors
    /// Returns an error if there are no classes or more than 254: the value 255 is ignored too.
    pub fn reduce_zero_label(classes: usize) -> Result<Self> {
        if classes >= MOST_CLASSES {
            let problem = format!(
                "must be from 1 to {} if the value 0 is ignored, because {IGNORE} is ignored too \
                 (got {classes})",
                MOST_CLASSES - 1
            );
            return Err(Error::Config { key: "classes", problem });
        }
        let ids = (1..=classes as u16).map(|id| (id, (id - 1) as u8));
        Self::from_ids(ids.chain([(0, IGNORE), (255, IGNORE)]).collect(), Vec::new())
    }

    pub(super) fn from_ids(ids: BTreeMap<u16, u8>, names: Vec<String>) -> Result<Self> {
        let classes = classes_of(ids.values())?;
        Ok(Self { classes, names, values: Values::Ids(ids) })
    }

    /// Reads a text file with one value per line: `VALUE CLASS`, optionally followed by the name of
    /// the class. CLASS is a number from 0 on, or `ignore`. Values that are not listed are invalid.
    ///
    /// # Errors
    /// Returns an error that names the file and the line if it cannot be used, or if class numbers
    /// have gaps.
    pub fn read_map(path: &Path) -> Result<Self> {
        let mut ids = BTreeMap::new();
        let mut names: Vec<(u8, String)> = Vec::new();
        for (line, text) in lines(path)? {
            let problem = |problem: &str| bad_line(path, line, problem);
            let (value, rest) = split(&text).ok_or(problem("expected a value and a class"))?;
            let (class, name) = split(rest).unwrap_or((rest, ""));
            let value: u16 =
                value.parse().map_err(|_| problem("the value must be from 0 to 65535"))?;
            let class = match class {
                "ignore" => IGNORE,
                class => class
                    .parse()
                    .ok()
                    .filter(|&class| class != IGNORE)
                    .ok_or(problem("the class must be from 0 to 254, or ignore"))?,
            };
            if ids.insert(value, class).is_some() {
                return Err(problem("this value is listed twice"));
            }
            if !name.is_empty() {
                names.push((class, name.to_owned()));
            }
        }
        let classes = ids.values().filter(|&&class| class != IGNORE).max();
        let names = (0..=classes.copied().unwrap_or(0))
            .map(|class| names.iter().find(|(of, _)| *of == class).map_or("", |(_, name)| name));
        let names: Vec<String> = names.map(str::to_owned).collect();
        let names = if names.iter().any(String::is_empty) { Vec::new() } else { names };
        Self::from_ids(ids, names).map_err(|error| in_file(path, &error))
    }

    /// Reads a text file with one color per line: `RED GREEN BLUE`, optionally followed by the name
    /// of the class. The first line is class 0, the next one class 1, and so on; colors with the
    /// name `ignore` are ignored and not counted.
    ///
    /// # Errors
    /// Returns an error that names the file and the line if it cannot be used.
    pub fn read_palette(path: &Path) -> Result<Self> {
        let (mut colors, mut names) = (BTreeMap::new(), Vec::new());
        for (line, text) in lines(path)? {
            let problem = |problem: &str| bad_line(path, line, problem);
            let needed = "expected red, green, and blue values from 0 to 255";
            let (mut color, mut rest) = ([0; 3], text.as_str());
            for value in &mut color {
                let (word, after) = split(rest).unwrap_or((rest, ""));
                (*value, rest) = (word.parse().map_err(|_| problem(needed))?, after);
            }
            let class = match rest {
                "ignore" => IGNORE,
                name if names.len() < MOST_CLASSES => {
                    names.push(name.to_owned());
                    (names.len() - 1) as u8
                }
                _ => return Err(problem("at most 255 colors can be classes")),
            };
            if colors.insert(color, class).is_some() {
                return Err(problem("this color is listed twice"));
            }
        }
        let classes = classes_of(colors.values()).map_err(|error| in_file(path, &error))?;
        let names = if names.iter().any(String::is_empty) { Vec::new() } else { names };
        Ok(Self { classes, names, values: Values::Colors(colors) })
    }

    /// Returns the number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Returns the name of a class, or its number if it has no name.
    pub fn name(&self, class: usize) -> String {
        self.names.get(class).cloned().unwrap_or_else(|| class.to_string())
    }

    /// Returns the classes of a label image, or what is wrong with it.
    pub(super) fn apply(&self, image: LabelImage) -> std::result::Result<LabelMap, String> {
        let LabelImage { width, height, pixels } = image;
        let classes = self.classes;
        let place =
            |index: usize| format!("({}, {})", index % width as usize, index / width as usize);
        let ids: Vec<u8> = match (&self.values, pixels) {
            (Values::Ids(known), LabelPixels::Ids(ids)) => {
                let mut table = vec![None; 1 << 16];
                known.iter().for_each(|(&id, &class)| table[usize::from(id)] = Some(class));
                let class = |(index, &id): (usize, &u16)| {
                    table[usize::from(id)].ok_or_else(|| {
                        format!(
                            "the value {id} at {} is neither one of the {classes} classes nor \
                             ignored",
                            place(index)
                        )
                    })
                };
                ids.iter().enumerate().map(class).collect::<std::result::Result<_, _>>()?
            }
            (Values::Colors(known), LabelPixels::Colors(colors)) => {
                let class = |(index, color): (usize, &[u8; 3])| {
                    known.get(color).copied().ok_or_else(|| {
                        format!("the color {color:?} at {} is not in the palette", place(index))
                    })
                };
                colors.iter().enumerate().map(class).collect::<std::result::Result<_, _>>()?
            }
            (Values::Ids(_), LabelPixels::Colors(_)) => {
                return Err(
                    "the label image is RGB: a palette file is needed to map its colors to \
                     classes"
                        .to_owned(),
                );
            }
            (Values::Colors(_), LabelPixels::Ids(_)) => {
                return Err(
                    "the label image contains class numbers, not colors of the palette: leave the \
                     palette file out"
                        .to_owned(),
                );
            }
        };
        Ok(LabelMap { width, height, ids })
    }
}

/// Returns the number of classes. Class numbers must be 0, 1, 2, and so on without gaps.
fn classes_of<'a>(classes: impl Iterator<Item = &'a u8>) -> Result<usize> {
    let mut used = [false; MOST_CLASSES];
    classes.filter(|&&class| class != IGNORE).for_each(|&class| used[usize::from(class)] = true);
    let classes = used.iter().rposition(|&used| used).map_or(0, |last| last + 1);
    match used[..classes].iter().position(|&used| !used) {
        _ if classes == 0 => Err(count(0)),
        Some(gap) => {
            let problem = format!("class {gap} has no value, but class {} has one", classes - 1);
            Err(Error::Config { key: "classes", problem })
        }
        None => Ok(classes),
    }
}

fn count(got: usize) -> Error {
    let problem = format!("must be from 1 to {MOST_CLASSES} (got {got})");
    Error::Config { key: "classes", problem }
}

fn in_file(path: &Path, error: &Error) -> Error {
    Error::Path { path: path.into(), problem: error.reason() }
}

fn bad_line(path: &Path, line: usize, problem: &str) -> Error {
    Error::List { path: path.into(), line, problem: problem.to_owned() }
}

/// Reads the lines of a file that are neither empty nor comments, with their numbers.
fn lines(path: &Path) -> Result<Vec<(usize, String)>> {
    let text = fs::read_to_string(path);
    let text = text.map_err(|source| Error::Io { action: "read", path: path.into(), source })?;
    let lines = (1..).zip(text.lines().map(|line| line.trim().to_owned()));
    Ok(lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).collect())
}

/// Splits off the first word, and returns it with the rest of the line.
fn split(text: &str) -> Option<(&str, &str)> {
    let (word, rest) = text.split_once([' ', '\t', ',', ';'])?;
    Some((word, rest.trim_matches([' ', '\t', ',', ';'])))
}
