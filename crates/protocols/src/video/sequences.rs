//! The videos of a measurement.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use eval::retrieval::images_in;
use score::IndexImage;
use score::davis;

use crate::error::{Result, input};

/// The label for ignored pixels in the annotations of DAVIS 2017.
const VOID: u8 = 255;

/// A video and its first annotation.
pub(super) struct Sequence {
    pub(super) name: String,
    pub(super) frames: Vec<PathBuf>,
    /// Annotation files of those frames that have one.
    pub(super) truth: Vec<PathBuf>,
    pub(super) first: IndexImage,
}

/// Returns the sequences of these names, or else all of the ground truth sorted by name.
pub(super) fn sequences(
    [frames, truth]: [&Path; 2],
    names: Option<&[String]>,
    single_object: bool,
) -> Result<Vec<Sequence>> {
    let names = match names {
        Some(names) => names.to_vec(),
        None => davis::sequence_names(truth)?,
    };
    names.into_iter().map(|name| sequence([frames, truth], name, single_object)).collect()
}

/// Finds the files of a sequence, and reads the first annotation.
fn sequence([frames, truth]: [&Path; 2], name: String, single_object: bool) -> Result<Sequence> {
    let annotations = truth.join(&name);
    let folder = frames.join(&name);
    if !folder.is_dir() {
        let why = match annotations.is_dir() {
            true => format!("although {} has annotations for it", annotations.display()),
            false => "although its sequence was asked for".to_owned(),
        };
        return Err(input(format!("{}: no such folder of frames, {why}", folder.display())));
    }
    let frames = images_in(&folder)?;
    let annotation = |frame: &PathBuf| {
        let stem = frame.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        annotations.join(format!("{stem}.png"))
    };
    let path = match frames.first() {
        Some(frame) => annotation(frame),
        None => return Err(input(format!("{}: no frames found", folder.display()))),
    };
    let stems: HashSet<&OsStr> = frames.iter().filter_map(|frame| frame.file_stem()).collect();
    let truth = davis::annotations(&annotations)?;
    let truth: Vec<PathBuf> = truth.iter().map(|file| annotations.join(file)).collect();
    if let Some(alone) =
        truth.iter().find(|path| path.file_stem().is_none_or(|stem| !stems.contains(stem)))
    {
        return Err(input(format!(
            "{}: annotates no frame in {}",
            alone.display(),
            folder.display()
        )));
    }
    let mut first = IndexImage::read(&path)?;
    let number = |id: &mut u8| match *id {
        0 => {}
        _ if single_object => *id = 1,
        VOID => *id = 0,
        _ => {}
    };
    first.pixels.iter_mut().for_each(number);
    // Without an object there is nothing to score, so fail before the network computes anything.
    if first.pixels.iter().all(|&id| id == 0) {
        let hint = match single_object {
            true => "",
            false => {
                " with a number from 1 to 254; if 255 is the object, as in DAVIS 2016, choose a \
                 single object (--single-object)"
            }
        };
        return Err(input(format!("{}: contains no object{hint}", path.display())));
    }
    Ok(Sequence { name, frames, truth, first })
}
