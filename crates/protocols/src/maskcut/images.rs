//! The images for MaskCut, and the true objects in them.

use std::path::{Path, PathBuf};

use eval::discovery::{Found, mask_row};
use eval::pictures::Row;
use eval::retrieval::images_in;
use objects::{Grid, Mask};
use score::coco::{Detections, GroundTruth, Image, Kind, Options, Segmentation, evaluate};

use crate::error::{Error, Result, input};
use crate::observer::Observer;

/// The images, with their true objects if there is a ground truth.
pub(super) struct ImageSet {
    pub(super) files: Vec<PathBuf>,
    /// The entries of the images in `truth`, in the order of `files`.
    listed: Option<Vec<Image>>,
    pub(super) truth: Option<GroundTruth>,
    /// What is compared with the ground truth, by name: masks, if it has any, and boxes.
    pub(super) kinds: Vec<(&'static str, Kind)>,
}

impl ImageSet {
    /// Opens the first `limit` images of `folder`, or of those that the ground truth lists. Checks
    /// everything that can be checked without a network.
    ///
    /// # Errors
    /// Returns an error if an image is missing or its size differs from the ground truth, or if the
    /// ground truth is unusable.
    pub(super) fn open(
        folder: &Path,
        ground_truth: Option<&Path>,
        limit: Option<usize>,
        observer: &dyn Observer,
    ) -> Result<Self> {
        let limit = limit.unwrap_or(usize::MAX);
        let Some(path) = ground_truth else {
            let mut files = images_in(folder)?;
            files.truncate(limit);
            return Ok(Self { files, listed: None, truth: None, kinds: Vec::new() });
        };
        let truth = GroundTruth::read(path)?;
        if truth.images().is_empty() {
            return Err(input(format!("{}: lists no images", path.display())));
        }
        say_unlisted(folder, path, truth.images().len(), observer);
        let listed: Vec<Image> = truth.images().iter().take(limit).cloned().collect();
        let mut files = Vec::with_capacity(listed.len());
        for image in &listed {
            let file = folder.join(&image.file_name);
            if !file.is_file() {
                let (file, truth) = (file.display(), path.display());
                return Err(input(format!("{file}: no such image, although {truth} lists it")));
            }
            check_header(&file, image)?;
            files.push(file);
        }
        let truth = truth.of_images(&listed)?;
        let kinds = comparable(&truth)?;
        Ok(Self { files, listed: Some(listed), truth: Some(truth), kinds })
    }

    /// Returns the images with their true masks, if there is a ground truth.
    pub(super) fn true_masks(&self, shown: &[Found]) -> Result<Option<Row>> {
        let (Some(truth), Some(listed)) = (&self.truth, &self.listed) else { return Ok(None) };
        let masks = |found: &Found| -> Result<Found> {
            let Image { id, width, height, .. } = &listed[found.index];
            let grid = Grid::new(*height as usize, *width as usize);
            let of_image = truth.annotations().iter().filter(|one| one.image_id == *id);
            let regions =
                of_image.filter(|one| !one.iscrowd).filter_map(|one| one.segmentation.as_ref());
            let mask = |region: &Segmentation| -> Result<Mask> {
                Ok(Mask::new(grid, region.to_rle(*height, *width)?.to_mask())?)
            };
            let masks = regions.map(mask).collect::<Result<_>>()?;
            Ok(Found { index: found.index, image: found.image.clone(), masks, rounds: Vec::new() })
        };
        let found = shown.iter().map(masks).collect::<Result<Vec<_>>>()?;
        Ok(Some(mask_row("true objects", &found)))
    }

    /// Returns the entry of an image in the ground truth, or a new one if there is none.
    ///
    /// # Errors
    /// Returns an error if the size of the image differs from the ground truth.
    pub(super) fn entry(&self, found: &Found) -> Result<Image> {
        let (width, height) = found.image.dimensions();
        let Some(listed) = &self.listed else {
            let file = &self.files[found.index];
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let id = (found.index as i64 + 1).into();
            return Ok(Image { id, file_name: name, height, width });
        };
        let image = listed[found.index].clone();
        match (image.width, image.height) == (width, height) {
            true => Ok(image),
            false => Err(other_size(&self.files[found.index], &image, (width, height))),
        }
    }
}

/// Tells how many images of the folder the ground truth does not list, if any.
fn say_unlisted(folder: &Path, truth: &Path, listed: usize, observer: &dyn Observer) {
    let all = images_in(folder).map_or(0, |files| files.len());
    if all > listed {
        observer.note(&format!(
            "skipped {} of the {all} images in {}, because {} does not list them",
            all - listed,
            folder.display(),
            truth.display()
        ));
    }
}

/// Checks the size in the header of an image file. Width and height may be swapped, because Exif
/// metadata may rotate the image. The exact size is checked when the image is read.
fn check_header(file: &Path, image: &Image) -> Result<()> {
    let Ok((width, height)) = image::image_dimensions(file) else { return Ok(()) };
    let known = [(width, height), (height, width)];
    match known.contains(&(image.width, image.height)) {
        true => Ok(()),
        false => Err(other_size(file, image, (width, height))),
    }
}

fn other_size(file: &Path, image: &Image, (width, height): (u32, u32)) -> Error {
    input(format!(
        "{}: the image is {width} x {height} pixels, but the ground truth says {} x {}",
        file.display(),
        image.width,
        image.height
    ))
}

/// Returns what can be compared with a ground truth: boxes, and masks if any object has one.
fn comparable(truth: &GroundTruth) -> Result<Vec<(&'static str, Kind)>> {
    let masks = truth.annotations().iter().any(|one| one.segmentation.is_some());
    let masks = masks.then_some(("mask", Kind::Mask));
    let kinds: Vec<_> = masks.into_iter().chain([("box", Kind::Box)]).collect();
    for (_, kind) in &kinds {
        // Report a deficient ground truth before measuring, which may take hours.
        evaluate(truth, &Detections::new("no masks".to_owned(), Vec::new())?, &options(*kind))?;
    }
    Ok(kinds)
}

/// Returns the options of a class-agnostic comparison.
pub(super) fn options(kind: Kind) -> Options {
    let mut options = Options::default();
    (options.kind, options.class_agnostic) = (kind, true);
    options
}
