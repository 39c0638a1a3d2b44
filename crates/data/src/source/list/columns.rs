//! Which columns of a list hold paths and labels, and whether its first line says so.

use std::path::Path;

use super::super::is_image;

/// Names of the column of paths, the likeliest first, as [`plain`] makes them: `file_name`, which the
/// library `datasets` demands, is `filename`.
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
/// Names of the column of labels, the likeliest first.
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

/// Numbers of the columns that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) path: usize,
    pub(super) label: Option<usize>,
}

/// What the first line of a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// It names the columns.
    Header(Columns),
    /// It is an image already: its path comes first, its label second.
    Image,
    /// Neither can be told.
    Unknown,
}

/// What the first line, of these fields, is; `exists` tells whether a path names a file.
///
/// A line with the name of an image file is no header, whatever else it holds. Of the others one is a
/// header if it has a known name for the paths, and an image if it begins with a file that exists.
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

/// The columns among those of these names; none if none is known to hold paths.
pub(super) fn find(names: &[&str]) -> Option<Columns> {
    let path = named(names, &PATHS)?;
    Some(Columns { path, label: named(names, &LABELS) })
}

/// Places of the names of paths among `names`, the likeliest first.
pub(super) fn paths<'a>(names: &'a [&str]) -> impl Iterator<Item = usize> + 'a {
    places(names, &PATHS)
}

/// The place of the likeliest name of labels.
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

/// Letters and digits alone, in lower case: `File Name`, `file_name` and `fileName` are one.
fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// What the columns are, where that is not plain from `path` and `label`.
pub(super) fn remark(names: &[&str], columns: Columns) -> Option<String> {
    let path = names.get(columns.path)?;
    let others = names.len() > 1;
    match columns.label.and_then(|label| names.get(label)) {
        Some(&"label") if *path == "path" => None,
        Some(label) => Some(format!("paths are taken from `{path}`, labels from `{label}`")),
        None if others => Some(format!(
            "paths are taken from `{path}`; there are no labels, because nothing is called `label`, \
             `class`, `category` or `target`"
        )),
        None if *path == "path" => None,
        None => Some(format!("paths are taken from `{path}`")),
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
