//! A tree of image files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use walkdir::WalkDir;

use super::names::Names;
use super::notices::Notices;
use super::{Payload, Source, digest, file_size, is_image, missing, read_file};
use crate::error::{Error, Result};

/// Files in which the `datasets` library stores the labels of an image folder.
const METADATA: [&str; 2] = ["metadata.csv", "metadata.jsonl"];

/// All image files below a folder, sorted by path.
///
/// Images are recognized by their extension ([`super::IMAGE_EXTENSIONS`]); other files are counted
/// by extension ([`Notices::left_out`]). Names that begin with a dot are ignored. Symlinks are
/// followed, except for links back to an ancestor, which are skipped. A dangling link counts as a
/// broken image if it is named like one; otherwise it is reported with its target
/// ([`Notices::lost`]), because it may stand for a whole class.
///
/// The first folder level names the classes if every image is in a folder below the root and there
/// are at least two such folders. Otherwise there are no labels. If this is because of images next
/// to two or more folders, the notices say so.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    /// Paths relative to the root, sorted; lossily converted if they are not UTF-8.
    names: Names,
    /// Original paths that are not UTF-8, by index.
    odd: HashMap<usize, PathBuf>,
    labels: Vec<u32>,
    class_names: Vec<String>,
    notices: Notices,
}

impl Folder {
    /// Lists the images below `root`.
    ///
    /// # Errors
    /// Returns an error if `root` does not exist, is not a folder, cannot be listed, or contains
    /// no image files.
    pub fn open(root: &Path) -> Result<Self> {
        if !root.exists() {
            return Err(missing(root));
        }
        let problem = |problem: String| Error::Path { path: root.into(), problem };
        if !root.is_dir() {
            return Err(problem("not a folder: choose a folder or another data.source".into()));
        }
        let Listing { names, odd, mut notices } = list(root)?;
        if names.len() == 0 && notices.left_out_count() == 0 {
            let hidden = notices.sentences();
            return Err(problem(match hidden.first() {
                Some(hidden) => format!("contains no usable images: {hidden}"),
                None => "the folder is empty".into(),
            }));
        }
        if names.len() == 0 {
            return Err(problem(format!(
                "none of the files in it ({} in total) has an image extension ({}): {}",
                notices.left_out_count(),
                super::IMAGE_EXTENSIONS.join(", "),
                notices.by_suffix(),
            )));
        }
        let (labels, class_names) = classes(&names);
        notices.remarks.extend(stray(&names));
        notices.remarks.extend(metadata(root));
        Ok(Self { root: root.into(), names, odd, labels, class_names, notices })
    }

    /// Returns the path of file `index`, if there is one.
    fn file(&self, index: usize) -> Option<PathBuf> {
        let odd = self.odd.get(&index).map(PathBuf::as_path);
        let path = odd.or_else(|| self.names.get(index).map(Path::new))?;
        Some(self.root.join(path))
    }
}

impl Source for Folder {
    fn kind(&self) -> &'static str {
        "folder"
    }

    fn len(&self) -> usize {
        self.names.len()
    }

    fn name(&self, index: usize) -> String {
        self.names.get(index).unwrap_or_default().to_owned()
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels.get(index).copied()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn load(&self, index: usize) -> Result<Payload> {
        read_file(&self.file(index).ok_or(Error::Index { index, len: self.len() })?)
    }

    fn notices(&self) -> Notices {
        self.notices.clone()
    }

    fn fingerprint(&self) -> String {
        let size = |index| self.file(index).map_or(0, |file| file_size(&file));
        let sizes: Vec<u64> = (0..self.len()).into_par_iter().map(size).collect();
        digest((0..self.len()).map(|i| (self.name(i), self.label(i), sizes[i])))
    }
}

/// The result of walking a folder.
#[derive(Default)]
struct Listing {
    /// Paths of the image files relative to the root, sorted.
    names: Names,
    /// Original paths that are not UTF-8, by index.
    odd: HashMap<usize, PathBuf>,
    /// What was found besides images.
    notices: Notices,
}

/// Lists the files below `root`. Walks them in sorted order, so that no list of paths has to be
/// kept for sorting.
fn list(root: &Path) -> Result<Listing> {
    let mut listing = Listing::default();
    let mut walk =
        WalkDir::new(root).min_depth(1).follow_links(true).sort_by_file_name().into_iter();
    while let Some(entry) = walk.next() {
        let (path, is_folder, is_lost) = match entry {
            Ok(entry) => (entry.path().to_path_buf(), entry.file_type().is_dir(), false),
            Err(error) => match unreadable(root, error)? {
                Some(path) => (path, false, true),
                None => continue,
            },
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') && is_folder {
            listing.notices.hidden_folders += 1;
            walk.skip_current_dir();
        } else if name.starts_with('.') {
            listing.notices.hide(&name);
        } else if is_lost && !is_image(&path) {
            let file = path.strip_prefix(root).unwrap_or(&path).to_string_lossy();
            listing.notices.lost.push(file, lost_link(&path));
        } else if !is_folder && !is_image(&path) {
            listing.notices.leave_out(&name);
        } else if !is_folder {
            let file = path.strip_prefix(root).unwrap_or(&path);
            if file.to_str().is_none() {
                listing.odd.insert(listing.names.len(), file.into());
            }
            listing.names.push(&file.to_string_lossy());
        }
    }
    listing.names.shrink();
    Ok(listing)
}

/// Points out a metadata file of the `datasets` library, which a folder source ignores, and how to
/// use it.
fn metadata(root: &Path) -> Option<String> {
    let found = METADATA.map(|name| root.join(name)).into_iter().find(|path| path.is_file())?;
    Some(format!(
        "{} is ignored: to use its list of images and labels, pass it as the path",
        found.display()
    ))
}

/// Explains that folders that look like classes are not used as such because there are images next
/// to them.
fn stray(files: &Names) -> Option<String> {
    let (mut beside, mut first) = (0_u64, None);
    let mut folders: Vec<&str> = Vec::new();
    for file in (0..files.len()).filter_map(|index| files.get(index)) {
        match file.split_once('/') {
            Some((folder, _)) if folders.last() == Some(&folder) => {}
            Some((folder, _)) => folders.push(folder),
            None => {
                beside += 1;
                first.get_or_insert(file);
            }
        }
    }
    let (first, 2..) = (first?, folders.len()) else { return None };
    let what = match beside {
        1 => format!("{first} is"),
        _ => format!("{first} and {} more are", beside - 1),
    };
    Some(format!(
        "there are no labels: {what} next to the {} folders, so the folders are not used as \
         classes; if they are classes, move the files next to them",
        folders.len()
    ))
}

/// Handles an entry that cannot be read. A loop of links is skipped, a dangling link is returned
/// (to be counted as a broken image or reported), and anything else is an error.
fn unreadable(root: &Path, error: walkdir::Error) -> Result<Option<PathBuf>> {
    if error.loop_ancestor().is_some() {
        return Ok(None);
    }
    let path = error.path().unwrap_or(root).to_path_buf();
    if path.is_symlink() {
        return Ok(Some(path));
    }
    Err(Error::Io { action: "list", path, source: error.into() })
}

/// Describes what is wrong with a link that cannot be followed.
fn lost_link(path: &Path) -> String {
    let target = std::fs::read_link(path).unwrap_or_default();
    match path.metadata() {
        Err(error) => format!("a link to {}, which cannot be followed: {error}", target.display()),
        Ok(_) => format!("a link to {}, which could not be followed", target.display()),
    }
}

/// Returns labels and class names from the first folder level; both are empty if it does not name
/// classes.
fn classes(files: &Names) -> (Vec<u32>, Vec<String>) {
    let mut labels = Vec::with_capacity(files.len());
    let mut names: Vec<String> = Vec::new();
    // Paths are sorted, so the files of a class are adjacent.
    for file in (0..files.len()).filter_map(|index| files.get(index)) {
        let Some((first, _)) = file.split_once('/') else {
            return (Vec::new(), Vec::new());
        };
        if names.last().is_none_or(|last| last != first) {
            names.push(first.to_owned());
        }
        labels.push(names.len() as u32 - 1);
    }
    if names.len() < 2 { (Vec::new(), Vec::new()) } else { (labels, names) }
}
