//! `simdino eval video`: video object segmentation without training, from the objects of the first
//! frame.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use eval::record::{DataUsed, Record};
use eval::retrieval::{fingerprint, images_in};
use eval::spectrum::{Moment, Spread};
use eval::tracking::{SIDE, TrackOptions, TrackedFrame, track};
use model::VisionTransformer;
use objects::{Grid, PropagateOptions};
use score::IndexImage;
use score::davis::{self, Report};

use crate::commands::score::davis_sequences;
use crate::console::{note, progress};
use crate::failure::{Context, Failure, Result};

use super::networks::{Networks, Opened};
use super::outcome::{Measured, Outcome, measure_each};

/// The label for ignored pixels in the annotations of DAVIS 2017.
const VOID: u8 = 255;

/// Arguments of `simdino eval video`.
#[derive(Debug, clap::Args)]
pub struct VideoArgs {
    #[command(flatten)]
    networks: Networks,
    /// Frames: a folder with one folder of images per sequence, such as JPEGImages/480p of DAVIS
    #[arg(long, value_name = "FOLDER")]
    frames: PathBuf,
    /// Annotations: a folder of the same structure with PNG files whose pixels are numbers of
    /// objects; the first of a sequence is given to the network
    #[arg(long, value_name = "FOLDER")]
    truth: PathBuf,
    /// A text file with one sequence per line, such as ImageSets/2017/val.txt; by default all of
    /// the annotations
    #[arg(long, value_name = "FILE")]
    sequences: Option<PathBuf>,
    /// Everything but 0 is one object, as in DAVIS 2016
    #[arg(long)]
    single_object: bool,
    /// Folder for the objects that were followed, as PNG files
    #[arg(long, value_name = "FOLDER")]
    results: Option<PathBuf>,
    /// Shorter side of the frames that the network sees, in pixels
    #[arg(long, default_value_t = SIDE)]
    side: usize,
    /// Do not measure the same network untrained, which every number should be compared with
    #[arg(long)]
    pub skip_untrained: bool,
}

/// Measures all networks.
pub fn run(args: &VideoArgs) -> Result<Outcome> {
    let networks = &args.networks;
    if args.results.is_some() && networks.paths()?.len() > 1 {
        return Err(Failure::usage(
            "--results needs a single network, because each network would overwrite the files",
        ));
    }
    let sequences = sequences(args)?;
    measure_each(networks, &mut |opened| measure_sequences(args, &sequences, opened))
}

impl VideoArgs {
    /// Returns the arguments for the published settings.
    pub fn of(networks: Networks, frames: PathBuf, truth: PathBuf, single_object: bool) -> Self {
        let (sequences, results, side, skip_untrained) = (None, None, SIDE, false);
        Self { networks, frames, truth, sequences, single_object, results, side, skip_untrained }
    }
}

/// Measures a network.
///
/// # Errors
/// Returns an error if the videos cannot be read.
pub fn measure(args: &VideoArgs, opened: &Opened) -> Result<Measured> {
    measure_sequences(args, &sequences(args)?, opened)
}

/// A video and its first annotation.
struct Sequence {
    name: String,
    frames: Vec<PathBuf>,
    /// Annotation files of those frames that have one.
    truth: Vec<PathBuf>,
    first: IndexImage,
}

/// Returns the sequences of the list, or else of the ground truth sorted by name.
fn sequences(args: &VideoArgs) -> Result<Vec<Sequence>> {
    let names = match &args.sequences {
        Some(list) => davis_sequences(list)?,
        None => davis::sequence_names(&args.truth)?,
    };
    names.into_iter().map(|name| sequence(args, name)).collect()
}

fn sequence(args: &VideoArgs, name: String) -> Result<Sequence> {
    let folder = args.frames.join(&name);
    if !folder.is_dir() {
        return Err(Failure::failed(format!(
            "{}: no such folder of frames, although {} has annotations for it",
            folder.display(),
            args.truth.join(&name).display()
        )));
    }
    let frames = images_in(&folder)?;
    let annotation = |frame: &PathBuf| {
        let stem = frame.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        args.truth.join(&name).join(format!("{stem}.png"))
    };
    let path = match frames.first() {
        Some(frame) => annotation(frame),
        None => return Err(Failure::failed(format!("{}: no frames found", folder.display()))),
    };
    let stems: HashSet<&OsStr> = frames.iter().filter_map(|frame| frame.file_stem()).collect();
    let truth = davis::annotations(&args.truth.join(&name))?;
    let truth: Vec<PathBuf> = truth.iter().map(|file| args.truth.join(&name).join(file)).collect();
    if let Some(alone) =
        truth.iter().find(|path| path.file_stem().is_none_or(|stem| !stems.contains(stem)))
    {
        return Err(Failure::failed(format!(
            "{}: annotates no frame in {}",
            alone.display(),
            folder.display()
        )));
    }
    let mut first = IndexImage::read(&path)?;
    let single = args.single_object;
    let number = |id: &mut u8| match *id {
        0 => {}
        _ if single => *id = 1,
        VOID => *id = 0,
        _ => {}
    };
    first.pixels.iter_mut().for_each(number);
    // Without an object there is nothing to score, so fail before the network computes anything.
    if first.pixels.iter().all(|&id| id == 0) {
        let hint = match single {
            true => "",
            false => {
                " with a number from 1 to 254; if 255 is the object, as in DAVIS 2016, give --single-object"
            }
        };
        return Err(Failure::failed(format!("{}: contains no object{hint}", path.display())));
    }
    Ok(Sequence { name, frames, truth, first })
}

fn measure_sequences(
    args: &VideoArgs,
    sequences: &[Sequence],
    opened: &Opened,
) -> Result<Measured> {
    let all: Vec<&Sequence> = sequences.iter().collect();
    let trained = follow(args, &all, opened, &opened.weights.backbone, true)?;
    let mut record = record(args, &trained.sequences, opened)?;
    put(&mut record, None, &trained.report);
    trained.spread.into_iter().for_each(|spread| record.spread(spread));
    trained.notes.iter().for_each(|text| record.note(text));
    if !args.skip_untrained {
        let untrained = opened.untrained()?;
        let backbone = untrained.network().backbone;
        let untrained = follow(args, &trained.sequences, opened, backbone, false)?;
        if let Some(text) = untrained.notes.first() {
            return Err(Failure::failed(format!(
                "{text}; the untrained network must be measured on the same sequences as the \
                 trained one, or skipped with --skip-untrained"
            )));
        }
        put(&mut record, Some("untrained"), &untrained.report);
    }
    Measured::of(record)
}

/// Creates a record of these sequences without scores.
fn record(args: &VideoArgs, sequences: &[&Sequence], opened: &Opened) -> Result<Record> {
    let options = PropagateOptions::default();
    let mut record = opened.record("video");
    record.resize = Some(u32::try_from(args.side).unwrap_or(u32::MAX));
    record.set("sequences", sequences.len());
    record.set("frames", options.frames);
    record.set("radius", options.radius);
    record.set("topk", options.topk);
    record.set("temperature", options.temperature);
    record.set("single_object", args.single_object);
    let files: Vec<PathBuf> = sequences.iter().flat_map(|s| s.frames.clone()).collect();
    record.data.push(DataUsed::of_files("test", &args.frames, fingerprint(&files), files.len()));
    let truth: Vec<PathBuf> = sequences.iter().flat_map(|s| s.truth.clone()).collect();
    record.data.push(DataUsed::truth(&args.truth, &truth)?);
    Ok(record)
}

/// The result of tracking objects.
struct Followed<'a> {
    report: Report,
    /// The sequences that were scored.
    sequences: Vec<&'a Sequence>,
    /// Sentences about the sequences that were left out.
    notes: Vec<String>,
    /// Of the patches of all frames.
    spread: Option<Spread>,
}

/// Tracks all objects and scores them. Sequences that cannot be processed, such as those with an
/// unreadable frame, are left out with a warning.
fn follow<'a>(
    args: &VideoArgs,
    sequences: &[&'a Sequence],
    opened: &Opened,
    backbone: &VisionTransformer,
    keep: bool,
) -> Result<Followed<'a>> {
    let temporary =
        tempfile::tempdir().context(|| "cannot create a temporary folder".to_owned())?;
    let results = match &args.results {
        Some(folder) if keep => folder.as_path(),
        _ => temporary.path(),
    };
    let options = TrackOptions {
        frozen: opened.frozen(backbone),
        side: args.side,
        propagate: PropagateOptions::default(),
    };
    let (mut done, mut notes, mut first_problem) = (Vec::new(), Vec::new(), None);
    let mut patches = Moment::default();
    let bar = progress(sequences.iter().map(|s| s.frames.len()).sum(), "frames");
    for &sequence in sequences {
        match follow_one(sequence, &options, &results.join(&sequence.name), &mut || bar.inc(1)) {
            Ok(of_sequence) => {
                patches.merge(of_sequence)?;
                done.push(sequence);
            }
            Err(failure) => {
                let reason = failure.lines().join("; ");
                let text = format!("skipped sequence {}: {reason}", sequence.name);
                notes.push(text);
                first_problem = first_problem.or(Some(failure));
            }
        }
    }
    bar.finish_and_clear();
    if let (true, Some(failure)) = (done.is_empty(), first_problem) {
        return Err(failure);
    }
    notes.iter().for_each(|text| note(&format!("warning: {text}")));
    let mut scored = davis::Options::default();
    scored.single_object = args.single_object;
    scored.sequences = done.iter().map(|sequence| sequence.name.clone()).collect();
    let report = davis::score(&args.truth, results, &scored)?;
    Ok(Followed { report, sequences: done, notes, spread: patches.spread()? })
}

/// Tracks the objects of a sequence, and writes a PNG file for each frame to `folder`. Returns the
/// second moment of the features of all patches.
fn follow_one(
    sequence: &Sequence,
    options: &TrackOptions<'_>,
    folder: &Path,
    done: &mut dyn FnMut(),
) -> Result<Moment> {
    fs::create_dir_all(folder)
        .context(|| format!("{}: cannot create the folder", folder.display()))?;
    let file = |index: usize| {
        let stem = sequence.frames[index].file_stem().unwrap_or_default().to_string_lossy();
        folder.join(format!("{stem}.png"))
    };
    let IndexImage { width, height, pixels } = &sequence.first;
    sequence.first.write(&file(0))?;
    done();
    let size = Grid::new(*height as usize, *width as usize);
    let first = TrackedFrame { size, ids: pixels.clone() };
    let mut failure = None;
    let patches = track(&sequence.frames, &first, options, &mut |index, frame| {
        let image = IndexImage { width: *width, height: *height, pixels: frame.ids };
        failure = failure.take().or_else(|| image.write(&file(index)).err());
        done();
        Ok(())
    })?;
    failure.map_or(Ok(patches), |failure| Err(failure.into()))
}

/// Adds scores to a record, as those of this network or of `baseline`.
fn put(record: &mut Record, baseline: Option<&str>, report: &Report) {
    let scores = [
        ("j&f", report.j_and_f),
        ("j", report.j.mean),
        ("j recall", report.j.recall),
        ("j decay", report.j.decay),
        ("f", report.f.mean),
        ("f recall", report.f.recall),
        ("f decay", report.f.decay),
    ];
    for (name, value) in scores {
        match baseline {
            None => record.score(name, value),
            Some(of) => record.baseline(of, name, value),
        }
    }
}
