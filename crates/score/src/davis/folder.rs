//! Scores a folder of video object segmentations.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::frame::{FrameScore, score_frame};
use super::mask::ObjectMask;
use super::statistics::Statistics;
use crate::{Error, IndexImage, Result, SequenceError, table};

/// The label of pixels that belong to no object in the annotations of DAVIS 2017.
const VOID: u8 = 255;

/// Settings of [`score`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Options {
    /// Whether every pixel but 0 belongs to one object, as in DAVIS 2016, where the object has the
    /// number 255. Otherwise, each number is an object of its own, and 255 is none.
    pub single_object: bool,
    /// The sequences to score, each once even if it is listed several times; empty means all of the
    /// ground truth.
    pub sequences: Vec<String>,
}

/// The scores of a dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The mean of J and F over all objects.
    pub j_and_f: f64,
    /// Region similarity over all objects.
    pub j: Statistics,
    /// Contour accuracy over all objects.
    pub f: Statistics,
    /// The scores of each object of each sequence.
    pub objects: Vec<SequenceObject>,
}

/// The scores of an object. The first and the last frame are not scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SequenceObject {
    /// Name of the sequence.
    pub sequence: String,
    /// Number of the object, from 1.
    pub object: u8,
    /// Number of scored frames.
    pub frames: usize,
    /// Number of scored frames in which the annotation shows the object, but the result does not.
    pub missed: usize,
    /// The mean of J and F.
    pub j_and_f: f64,
    /// Region similarity.
    pub j: Statistics,
    /// Contour accuracy.
    pub f: Statistics,
}

impl Report {
    /// Writes a CSV file with a row per object.
    ///
    /// # Errors
    /// Returns [`Error::Write`] if the file cannot be written.
    pub fn write_csv(&self, path: &Path) -> Result<()> {
        let rows = self.objects.iter().map(|object| {
            let SequenceObject { sequence, object, frames, missed, j_and_f, j, f } = object;
            let counts =
                [sequence.clone(), object.to_string(), frames.to_string(), missed.to_string()];
            let scores = [*j_and_f, j.mean, j.recall, j.decay, f.mean, f.recall, f.decay];
            counts.into_iter().chain(scores.map(|score| score.to_string())).collect()
        });
        table::write(path, &COLUMNS, rows)
    }
}

/// The columns of the CSV file.
const COLUMNS: [&str; 11] = [
    "sequence", "object", "frames", "missed", "j_and_f", "j_mean", "j_recall", "j_decay", "f_mean",
    "f_recall", "f_decay",
];

/// A sequence: its folders and the frames to score.
#[derive(Debug)]
struct Sequence {
    name: String,
    truth: PathBuf,
    results: PathBuf,
    frames: Vec<String>,
    objects: u8,
}

/// Scores a folder of results against annotations.
///
/// Both contain one folder of PNG files per sequence, like `Annotations/480p` of DAVIS. The first
/// annotation of a sequence defines the number of its objects. An object that the results lack
/// scores as an empty mask.
///
/// # Errors
/// Returns [`Error::Sequence`] if a sequence, a frame, or an object does not fit the ground truth,
/// and [`Error::Read`] or [`Error::Png`] if a file cannot be read.
pub fn score(truth: &Path, results: &Path, options: &Options) -> Result<Report> {
    let mut names = match options.sequences.as_slice() {
        [] => sequence_names(truth)?,
        names => names.to_vec(),
    };
    let mut listed = HashSet::new();
    names.retain(|name| listed.insert(name.clone()));
    let open = |name: &String| open(name, truth, results, options.single_object);
    let sequences = names.par_iter().map(open).collect::<Result<Vec<_>>>()?;
    // All frames of all sequences are scored in one parallel loop to keep all threads busy.
    let frames: Vec<(&Sequence, &String)> = sequences
        .iter()
        .flat_map(|sequence| sequence.frames.iter().map(move |frame| (sequence, frame)))
        .collect();
    let scores = frames
        .into_par_iter()
        .map(|(sequence, frame)| frame_scores(sequence, frame, options.single_object))
        .collect::<Result<Vec<_>>>()?;
    let mut scores = scores.as_slice();
    let mut objects = Vec::new();
    for sequence in &sequences {
        let (own, rest) = scores.split_at(sequence.frames.len());
        objects
            .extend((1..=sequence.objects).filter_map(|object| of_object(sequence, object, own)));
        scores = rest;
    }
    let j = Statistics::mean_of(objects.iter().map(|object| &object.j));
    let f = Statistics::mean_of(objects.iter().map(|object| &object.f));
    match j.zip(f) {
        Some((j, f)) => Ok(Report { j_and_f: (j.mean + f.mean) / 2.0, j, f, objects }),
        None => Err(wrong(truth, SequenceError::NoSequences)),
    }
}

fn wrong(folder: impl Into<PathBuf>, source: SequenceError) -> Error {
    Error::Sequence { folder: folder.into(), source }
}

/// Returns the scores of one object, given the scores of all objects in each frame.
fn of_object(
    sequence: &Sequence,
    object: u8,
    scores: &[Vec<FrameScore>],
) -> Option<SequenceObject> {
    let own = |value: fn(&FrameScore) -> f64| {
        let frames = scores.iter().map(|frame| value(&frame[usize::from(object) - 1]));
        Statistics::of_frames(&frames.collect::<Vec<_>>())
    };
    let (j, f) = own(|score| score.j).zip(own(|score| score.f))?;
    Some(SequenceObject {
        sequence: sequence.name.clone(),
        object,
        frames: scores.len(),
        missed: scores.iter().filter(|frame| frame[usize::from(object) - 1].missed).count(),
        j_and_f: (j.mean + f.mean) / 2.0,
        j,
        f,
    })
}

/// Returns the scores of all objects in one frame.
fn frame_scores(sequence: &Sequence, frame: &str, single: bool) -> Result<Vec<FrameScore>> {
    let annotation = IndexImage::read(&sequence.truth.join(frame))?;
    let path = sequence.results.join(frame);
    if !path.is_file() {
        return Err(wrong(path, SequenceError::MissingFrame));
    }
    let result = IndexImage::read(&path)?;
    let [expected, found] = [&annotation, &result].map(|image| [image.width, image.height]);
    if expected != found {
        return Err(wrong(path, SequenceError::Size { expected, found }));
    }
    let found = result.pixels.iter().copied().max().unwrap_or(0);
    if !single && found > sequence.objects {
        let objects = sequence.objects;
        return Err(wrong(path, SequenceError::UnknownObject { found, objects }));
    }
    let scores = (1..=sequence.objects).filter_map(|object| {
        score_frame(&mask(&result, object, single)?, &mask(&annotation, object, single)?)
    });
    Ok(scores.collect())
}

fn mask(image: &IndexImage, object: u8, single: bool) -> Option<ObjectMask> {
    let is_object = |&value: &u8| if single { value > 0 } else { value == object };
    let pixels = image.pixels.iter().map(is_object).collect();
    ObjectMask::new(image.width as usize, image.height as usize, pixels)
}

/// Finds the scored frames and the number of objects of a sequence.
fn open(name: &str, truth: &Path, results: &Path, single: bool) -> Result<Sequence> {
    let (own, results) = (truth.join(name), results.join(name));
    let mut frames = annotations(&own)?;
    if !results.is_dir() {
        let truth = truth.to_owned();
        return Err(wrong(results, SequenceError::MissingSequence { truth }));
    }
    let first = own.join(&frames[0]);
    let image = IndexImage::read(&first)?;
    let is_object = |value: &u8| if single { *value > 0 } else { *value != VOID };
    let objects = image.pixels.iter().copied().filter(is_object).max().unwrap_or(0);
    if objects == 0 {
        return Err(wrong(first, SequenceError::NoObject));
    }
    frames.pop();
    frames.remove(0);
    let objects = if single { 1 } else { objects };
    Ok(Sequence { name: name.to_owned(), truth: own, results, frames, objects })
}

/// Returns the names of the annotations of a sequence, in order.
///
/// # Errors
/// Returns an error if the folder cannot be read, or has fewer than three PNG files: the first is
/// given, and the last is not scored.
pub fn annotations(sequence: &Path) -> Result<Vec<String>> {
    let names = png_files(sequence)?;
    match names.len() {
        ..3 => Err(wrong(sequence, SequenceError::Short { frames: names.len() })),
        _ => Ok(names),
    }
}

/// Returns the names of the folders that contain PNG files, sorted.
///
/// # Errors
/// Returns an error if a folder cannot be read, or there is no such folder.
pub fn sequence_names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for name in entries(folder)? {
        let path = folder.join(&name);
        if path.is_dir() && !png_files(&path)?.is_empty() {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Err(wrong(folder, SequenceError::NoSequences));
    }
    Ok(names)
}

fn png_files(folder: &Path) -> Result<Vec<String>> {
    let mut names = entries(folder)?;
    names.retain(|name| name.to_ascii_lowercase().ends_with(".png"));
    Ok(names)
}

/// Returns the names in a folder, sorted and without hidden files.
fn entries(folder: &Path) -> Result<Vec<String>> {
    let failed = |source| Error::Read { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
