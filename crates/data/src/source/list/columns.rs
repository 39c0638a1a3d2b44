//! Determines which columns of a list contain paths and labels, and whether its first line is a
//! header.

use std::path::Path;

use super::super::is_image;

/// Names of the path column, the most likely first, as normalized by [`plain`]: `file_name`, which
/// the `datasets` library requires, becomes `filename`.
const PATHS: [&str; 22] = [
    "path",
    "filename",
    "filepath",
    "file",
    "imagepath",
    "imagefile",
    "imagefilename",
    "imagename",
    "image",
    "imgpath",
    "imgfile",
    "imgfilename",
    "imgname",
    "img",
    "relativepath",
    "relpath",
    "fullpath",
    "pathname",
    "fname",
    "images",
    "paths",
    "files",
];
/// Names of the label column, the most likely first, as normalized by [`plain`].
const LABELS: [&str; 14] = [
    "label",
    "labels",
    "class",
    "classname",
    "classlabel",
    "category",
    "categoryname",
    "target",
    "cls",
    "finelabel",
    "labelname",
    "classid",
    "labelid",
    "categoryid",
];

/// Indices of the path and label columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) path: usize,
    pub(super) label: Option<usize>,
}

/// The kind of the first line of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// It names the columns.
    Header(Columns),
    /// It is an image, with its path first and its label second.
    Image,
    /// Neither of these.
    Unknown,
}

/// Classifies the first line by its fields. `exists` returns whether a path names a file.
///
/// A line that contains the name of an image file is not a header, whatever else it contains. Any
/// other line is a header if it contains a known name of the path column, and an image if it begins
/// with the path of an existing file.
pub(super) fn first_line(fields: &[&str], exists: impl Fn(&str) -> bool) -> First {
    let Some(first) = fields.first() else { return First::Unknown };
    if fields.iter().any(|field| is_image(Path::new(field))) {
        let begins = is_image(Path::new(first)) || exists(first);
        return if begins { First::Image } else { First::Unknown };
    }
    match find(fields) {
        Some(columns) => First::Header(columns),
        None if exists(first) => First::Image,
        None => First::Unknown,
    }
}

/// Finds the columns by name. Returns `None` if there is no known name of a path column.
pub(super) fn find(names: &[&str]) -> Option<Columns> {
    let path = named(names, &PATHS)?;
    Some(Columns { path, label: named(names, &LABELS) })
}

/// Returns the indices of path columns among `names`, the most likely first.
pub(super) fn paths<'a>(names: &'a [&str]) -> impl Iterator<Item = usize> + 'a {
    places(names, &PATHS)
}

/// Returns the index of the most likely label column.
pub(super) fn label(names: &[&str]) -> Option<usize> {
    named(names, &LABELS)
}

fn named(names: &[&str], known: &[&str]) -> Option<usize> {
    places(names, known).next()
}

fn places<'a>(names: &'a [&str], known: &'a [&str]) -> impl Iterator<Item = usize> + 'a {
    let names: Vec<String> = names.iter().map(|name| plain(name)).collect();
    known.iter().filter_map(move |known| names.iter().position(|name| name == known))
}

/// Normalizes a column name to its letters and digits in lower case, so that `File Name`,
/// `file_name`, and `fileName` are equal.
fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Describes which columns are used, unless they are called `path` and `label`.
pub(super) fn remark(names: &[&str], columns: Columns) -> Option<String> {
    let path = names.get(columns.path)?;
    let others = names.len() > 1;
    match columns.label.and_then(|label| names.get(label)) {
        Some(&"label") if *path == "path" => None,
        Some(label) => Some(format!("paths are read from `{path}`, labels from `{label}`")),
        None if others => Some(format!(
            "paths are read from `{path}`; there are no labels, because nothing is named `label`, \
             `class`, `category`, or `target`"
        )),
        None if *path == "path" => None,
        None => Some(format!("paths are read from `{path}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Columns, First, first_line};

    #[test]
    fn a_header_is_told_from_an_image() {
        let files = ["hash", "path", "n01"];
        let look = |line: &str| {
            let fields: Vec<&str> = line.split(',').collect();
            first_line(&fields, |file| files.contains(&file))
        };
        let header = |path, label| First::Header(Columns { path, label });
        for (line, expected) in [
            ("path,label", header(0, Some(1))),
            ("file_name,label", header(0, Some(1))),
            ("label,File Name", header(1, Some(0))),
            ("id,image,path,class", header(2, Some(3))),
            ("filename", header(0, None)),
            ("imagePath,species", header(0, None)),
            ("img,category_id,label", header(0, Some(2))),
            ("\u{feff}path,label", header(0, Some(1))),
            ("a.jpg,cat", First::Image),
            ("a.JFIF", First::Image),
            ("image.jpg,image", First::Image),
            ("hash,3", First::Image),
            ("hash,b.jpg", First::Image),
            ("photo_id,breed", First::Unknown),
            ("12,a.jpg,cat", First::Unknown),
            ("path;label", First::Unknown),
            ("gone,3", First::Unknown),
        ] {
            assert_eq!(look(line), expected, "{line}");
        }
    }
}
