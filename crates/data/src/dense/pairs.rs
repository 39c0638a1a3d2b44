//! Pairs images with their label images.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::files::{FoundFile, list};
use crate::error::{Error, Result};
use crate::source::{is_image, sample};

/// An image and its label image or depth map.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) image: FoundFile,
    pub(super) labels: FoundFile,
}

/// Computes a digest of the contents of some images and of their labels.
pub(super) fn contents(pairs: &[Pair]) -> String {
    sample(pairs.len(), |index| {
        let Pair { image, labels } = pairs.get(index)?;
        Some([image.place.read().ok()?, labels.place.read().ok()?].concat())
    })
}

/// Where the images and their labels are, and how they are named.
pub(super) struct PairOptions<'a> {
    pub(super) images: &'a Path,
    pub(super) labels: &'a Path,
    pub(super) image_suffix: &'a str,
    pub(super) label_suffix: &'a str,
    pub(super) list: Option<&'a Path>,
    /// What the labels are called in messages: singular and plural.
    pub(super) called: [&'static str; 2],
    /// Returns whether a file contains labels, judging by its name.
    pub(super) is_labels: fn(&Path) -> bool,
}

/// Returns the pairs, sorted by name, and sentences about files without a partner.
pub(super) fn pair(options: &PairOptions<'_>) -> Result<(Vec<Pair>, Vec<String>)> {
    let [one, several] = options.called;
    let mut images = by_key(options.images, options.image_suffix, is_image, "image files")?;
    let mut labels = by_key(options.labels, options.label_suffix, options.is_labels, several)?;
    if let Some(path) = options.list {
        let wanted = listed(path, &images)?;
        images.retain(|key, _| wanted.contains(key));
        labels.retain(|key, _| wanted.contains(key));
    }
    let (mut pairs, mut alone) = (Vec::new(), Vec::new());
    let first_label = labels.values().next().map_or_else(String::new, |file| file.name.clone());
    for (key, image) in images {
        match labels.remove(&key) {
            Some(labels) => pairs.push(Pair { image, labels }),
            None => alone.push(image.name),
        }
    }
    if pairs.is_empty() {
        let example = alone.first().cloned().unwrap_or_default();
        let problem = format!(
            "no image here has {one} with the same name in {}: for example, {example} is here and \
             {first_label} is there",
            options.labels.display()
        );
        return Err(Error::Path { path: options.images.into(), problem });
    }
    let strays: Vec<String> = labels.into_values().map(|file| file.name).collect();
    let mut notices = Vec::new();
    notices.extend(without(&alone, options.images, &format!("no {several}")));
    notices.extend(without(&strays, options.labels, "no image"));
    Ok((pairs, notices))
}

/// Describes the files of a folder that have no partner, if there are any.
fn without(names: &[String], folder: &Path, what: &str) -> Option<String> {
    let first = folder.join(names.first()?);
    Some(match names.len() {
        1 => format!("{}: {what} with the same name, so it is left out", first.display()),
        count => format!(
            "{} and {} more: {what} with the same names, so they are left out",
            first.display(),
            count - 1
        ),
    })
}

/// Returns the files of a folder whose names end with `suffix`, keyed by the name without suffix
/// and extension.
fn by_key(
    folder: &Path,
    suffix: &str,
    is_wanted: fn(&Path) -> bool,
    called: &str,
) -> Result<BTreeMap<String, FoundFile>> {
    let mut files = BTreeMap::new();
    for file in list(folder)?.into_iter().filter(|file| is_wanted(Path::new(&file.name))) {
        let stem = file.name.rsplit_once('.').map_or(file.name.as_str(), |(stem, _)| stem);
        let Some(key) = stem.strip_suffix(suffix) else { continue };
        let (key, name) = (key.to_owned(), file.name.clone());
        if let Some(other) = files.insert(key, file) {
            let problem = format!(
                "has the same name as {} except for the extension: remove one of the two",
                other.name
            );
            return Err(Error::Path { path: folder.join(name), problem });
        }
    }
    if files.is_empty() {
        let problem = match suffix {
            "" => format!("no {called} in this folder or its subfolders"),
            _ => format!(
                "no {called} in this folder or its subfolders have names that end in {suffix}"
            ),
        };
        return Err(Error::Path { path: folder.into(), problem });
    }
    Ok(files)
}

/// Reads the names in a list file, one per line; each must be that of an image.
fn listed(path: &Path, images: &BTreeMap<String, FoundFile>) -> Result<BTreeSet<String>> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| Error::Io { action: "read", path: path.into(), source })?;
    let mut wanted = BTreeSet::new();
    for (line, name) in (1..).zip(text.lines().map(str::trim)).filter(|(_, name)| !name.is_empty())
    {
        let stem = || name.rsplit_once('.').map(|(stem, _)| stem);
        let found =
            [Some(name), stem()].into_iter().flatten().find(|key| images.contains_key(*key));
        let Some(key) = found else {
            let problem = format!("there is no image named {name}");
            return Err(Error::List { path: path.into(), line, problem });
        };
        wanted.insert(key.to_owned());
    }
    if wanted.is_empty() {
        let problem = "the list contains no names".to_owned();
        return Err(Error::Path { path: path.into(), problem });
    }
    Ok(wanted)
}
