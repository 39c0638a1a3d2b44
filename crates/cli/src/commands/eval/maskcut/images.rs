//! The images of MaskCut, and the objects that they show.

use std::path::{Path, PathBuf};

use eval::discovery::{Found, mask_row};
use eval::pictures::Row;
use eval::retrieval::images_in;
use objects::{Grid, Mask};
use score::coco::{
    Annotation, Detections, GroundTruth, Image, Kind, Options, Segmentation, evaluate,
};

use crate::console::note;
use crate::failure::{Failure, Result};

/// The images, and what they show.
pub struct ImageSet {
    pub files: Vec<PathBuf>,
    /// The images of `truth`, in the order of the files.
    listed: Option<Vec<Image>>,
    pub truth: Option<GroundTruth>,
    /// What is compared with the truth, by name: masks, if it has any, and boxes.
    pub kinds: Vec<(&'static str, Kind)>,
}

impl ImageSet {
    /// The first `limit` images of `folder`, or of those that the ground truth names. Everything that can be checked
    /// without a network is.
    ///
    /// # Errors
    /// An image is missing or has another size than the ground truth says, or something of the ground truth cannot be
    /// compared with.
    pub fn open(folder: &Path, ground_truth: Option<&Path>, limit: Option<usize>) -> Result<Self> {
        let limit = limit.unwrap_or(usize::MAX);
        let Some(path) = ground_truth else {
            let mut files = images_in(folder)?;
            files.truncate(limit);
            return Ok(Self { files, listed: None, truth: None, kinds: Vec::new() });
        };
        let truth = GroundTruth::read(path)?;
        if truth.images().is_empty() {
            return Err(Failure::failed(format!("{}: lists no images", path.display())));
        }
        say_unlisted(folder, path, truth.images().len());
        let listed: Vec<Image> = truth.images().iter().take(limit).cloned().collect();
        let mut files = Vec::with_capacity(listed.len());
        for image in &listed {
            let file = folder.join(&image.file_name);
            if !file.is_file() {
                let (file, truth) = (file.display(), path.display());
                return Err(Failure::failed(format!(
                    "{file}: there is no such image, which {truth} names"
                )));
            }
            check_header(&file, image)?;
            files.push(file);
        }
        let shown =
            |annotation: &&Annotation| listed.iter().any(|image| image.id == annotation.image_id);
        let annotations = if listed.len() < truth.images().len() {
            truth.annotations().iter().filter(shown).cloned().collect()
        } else {
            truth.annotations().to_vec()
        };
        let (name, categories) = (truth.name().to_owned(), truth.categories().to_vec());
        let truth = GroundTruth::new(name, listed.clone(), categories, annotations)?;
        let kinds = comparable(&truth)?;
        Ok(Self { files, listed: Some(listed), truth: Some(truth), kinds })
    }

    /// The images with their true masks, if there is a truth.
    pub fn true_masks(&self, shown: &[Found]) -> Result<Option<Row>> {
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

    /// The entry of an image: that of the truth, or a new one.
    pub fn entry(&self, found: &Found) -> Result<Image> {
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

/// Says how many images of the folder the ground truth does not list.
fn say_unlisted(folder: &Path, truth: &Path, listed: usize) {
    let all = images_in(folder).map_or(0, |files| files.len());
    if all > listed {
        note(&format!(
            "{} of {all} images in {} are not in {} and are left out",
            all - listed,
            folder.display(),
            truth.display()
        ));
    }
}

/// Checks the size that the header of an image file states. One that stands on its side in the file has its sides the
/// other way round there; what the header does not tell is checked when the image is read.
fn check_header(file: &Path, image: &Image) -> Result<()> {
    let Ok((width, height)) = image::image_dimensions(file) else { return Ok(()) };
    let known = [(width, height), (height, width)];
    match known.contains(&(image.width, image.height)) {
        true => Ok(()),
        false => Err(other_size(file, image, (width, height))),
    }
}

fn other_size(file: &Path, image: &Image, (width, height): (u32, u32)) -> Failure {
    Failure::failed(format!(
        "{}: the image has {width} x {height} pixels, but the ground truth says {} x {}",
        file.display(),
        image.width,
        image.height
    ))
}

/// What can be compared with a ground truth: boxes, and masks if any object has one.
fn comparable(truth: &GroundTruth) -> Result<Vec<(&'static str, Kind)>> {
    let masks = truth.annotations().iter().any(|one| one.segmentation.is_some());
    let masks = masks.then_some(("mask", Kind::Mask));
    let kinds: Vec<_> = masks.into_iter().chain([("box", Kind::Box)]).collect();
    for (_, kind) in &kinds {
        // What is missing in the ground truth should not cost hours of work.
        evaluate(truth, &Detections::new("no masks".to_owned(), Vec::new())?, &options(*kind))?;
    }
    Ok(kinds)
}

/// Options of a comparison in which classes do not count.
pub fn options(kind: Kind) -> Options {
    let mut options = Options::default();
    (options.kind, options.class_agnostic) = (kind, true);
    options
}
