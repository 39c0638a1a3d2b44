//! Writes the synthetic set as a folder of PNG files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::classes::{class_names, label_of};
use super::draw;
use crate::config::SyntheticConfig;
use crate::error::{Error, Result};

/// The parts of a written set. The last one is moved into place last and marks the set as complete.
const PARTS: [&str; 3] = ["images", "masks", "labels.csv"];

/// Writes all images of the set to `dir`, which must be absent or empty:
///
/// ```text
/// dir/images/<class>/000000.png    the images; a folder source reads this folder
/// dir/masks/<class>/000000.png     255 where the object is, else 0
/// dir/labels.csv                   path,label,class
/// ```
///
/// Runs on the threads of the current rayon pool and calls `progress` with the number of images
/// done. Everything is first written to a temporary folder next to `dir`, which is then renamed, so
/// `dir` is either complete or absent. If `dir` already exists, the temporary folder is created
/// inside it, and its contents are moved up at the end, `labels.csv` last.
///
/// # Errors
/// Returns an error if `dir` is not empty or something cannot be written.
pub fn write_folder(
    config: &SyntheticConfig,
    dir: &Path,
    progress: impl Fn(usize) + Sync,
) -> Result<()> {
    // An existing folder is kept rather than replaced: it may be a symlink, or the current
    // directory of this process.
    let exists = require_empty(dir)?;
    let place = match dir.parent() {
        _ if exists => dir,
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(place).map_err(io("create", place))?;
    let partial = tempfile::Builder::new()
        .prefix(".synthetic-")
        .tempdir_in(place)
        .map_err(io("create a temporary folder in", place))?;
    // Uses a subfolder, because the temporary folder itself is not accessible to other users.
    let root = partial.path().join("set");
    for kind in ["images", "masks"] {
        for class in class_names() {
            let folder = root.join(kind).join(class);
            fs::create_dir_all(&folder).map_err(io("create", &folder))?;
        }
    }
    let done = AtomicUsize::new(0);
    (0..config.count).into_par_iter().try_for_each(|index| {
        write_one(config, &root, index)?;
        progress(done.fetch_add(1, Ordering::Relaxed) + 1);
        Ok::<(), Error>(())
    })?;
    write_labels(config, &root)?;
    if !exists {
        return fs::rename(&root, dir).map_err(io("rename the finished set to", dir));
    }
    PARTS.into_iter().try_for_each(|part| {
        fs::rename(root.join(part), dir.join(part)).map_err(io("move the finished set to", dir))
    })
}

/// Returns whether the folder exists, or an error if it is not empty.
fn require_empty(dir: &Path) -> Result<bool> {
    let mut entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !dir.is_symlink() => {
            return Ok(false);
        }
        Err(error) => return Err(io("read", dir)(error)),
    };
    if entries.next().is_none() {
        return Ok(true);
    }
    let problem =
        "the folder is not empty: use a new one, because nothing is overwritten".to_owned();
    Err(Error::Path { path: dir.to_owned(), problem })
}

/// Returns the path of image `index` relative to `images` or `masks`.
fn relative(index: usize) -> PathBuf {
    Path::new(&class_names()[label_of(index) as usize]).join(format!("{index:06}.png"))
}

fn write_one(config: &SyntheticConfig, root: &Path, index: usize) -> Result<()> {
    let drawing = draw(config, index);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::WriteImage { path, source }
    };
    let path = root.join("images").join(relative(index));
    drawing.image.save(&path).map_err(failed(&path))?;
    let path = root.join("masks").join(relative(index));
    drawing.mask.save(&path).map_err(failed(&path))
}

fn write_labels(config: &SyntheticConfig, root: &Path) -> Result<()> {
    let path = root.join("labels.csv");
    let mut text = String::from("path,label,class\n");
    for index in 0..config.count {
        let label = label_of(index);
        let class = &class_names()[label as usize];
        text += &format!("images/{class}/{index:06}.png,{label},{class}\n");
    }
    fs::write(&path, text).map_err(io("write", &path))
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> SyntheticConfig {
        SyntheticConfig { count: 23, size: 16, seed: 3 }
    }

    #[test]
    fn the_folder_holds_every_image_mask_and_label() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("new").join("set");
        let most = AtomicUsize::new(0);
        write_folder(&config(), &dir, |done| {
            most.fetch_max(done, Ordering::Relaxed);
        })
        .unwrap();
        assert_eq!(most.into_inner(), 23);
        let labels = fs::read_to_string(dir.join("labels.csv")).unwrap();
        assert_eq!(labels.lines().count(), 24);
        for (index, line) in labels.lines().skip(1).enumerate() {
            let mut cells = line.split(',');
            let path = cells.next().unwrap();
            let drawing = draw(&config(), index);
            let image = image::open(dir.join(path)).unwrap().into_rgb8();
            let mask = image::open(dir.join(path.replacen("images", "masks", 1))).unwrap();
            assert_eq!((image, mask.into_luma8()), (drawing.image, drawing.mask));
            assert_eq!(cells.next().unwrap(), drawing.label.to_string());
            assert!(path.contains(cells.next().unwrap()));
        }
        let beside = fs::read_dir(dir.parent().unwrap()).unwrap().count();
        assert_eq!(beside, 1, "the temporary folder is gone");
    }

    #[test]
    fn a_folder_with_content_is_refused_and_left_alone() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("mine.txt"), "keep").unwrap();
        let error = write_folder(&config(), base.path(), |_| {}).unwrap_err();
        assert!(error.to_string().contains("not empty"), "{error}");
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
        let empty = tempfile::tempdir().unwrap();
        write_folder(&config(), empty.path(), |_| {}).unwrap();
        assert!(empty.path().join("labels.csv").is_file());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_an_empty_folder_is_that_folder() {
        let base = tempfile::tempdir().unwrap();
        let (folder, link) = (base.path().join("folder"), base.path().join("link"));
        fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        write_folder(&config(), &link, |_| {}).unwrap();
        let mut parts: Vec<_> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        parts.sort();
        assert_eq!(parts, ["images", "labels.csv", "masks"]);
        assert!(link.is_symlink());
        // A dangling link is refused before any work is done.
        let lost = base.path().join("lost");
        std::os::unix::fs::symlink(base.path().join("nowhere"), &lost).unwrap();
        assert!(write_folder(&config(), &lost, |_| panic!("work")).is_err());
    }
}
