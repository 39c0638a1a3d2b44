//! Video object segmentation without training, from the objects of the first frame.

mod sequences;

use std::fs;
use std::path::{Path, PathBuf};

use eval::record::{DataUsed, Record};
use eval::retrieval::fingerprint;
use eval::spectrum::{Moment, Spread};
use eval::tracking::{SIDE, TrackOptions, TrackedFrame, track};
use model::VisionTransformer;
use objects::{Grid, PropagateOptions};
use score::IndexImage;
use score::davis::{self, Report};

use crate::error::{Error, Result, input};
use crate::observer::{Counter, Observer};
use crate::protocol::Protocol;
use crate::subject::Subject;
use sequences::{Sequence, sequences};

/// Follows the objects of the first frame of each video, without training, and scores them by J and
/// F as in DAVIS.
///
/// # Source
/// DINO's eval_video_segmentation.py.
#[derive(Debug, Clone)]
pub struct Video {
    /// A folder with one folder of frames per sequence, such as `JPEGImages/480p` of DAVIS.
    pub frames: PathBuf,
    /// A folder of the same structure with PNG files whose pixels are numbers of objects; the first
    /// of a sequence is given to the network.
    pub truth: PathBuf,
    /// Names of the sequences; `None` = all that have annotations.
    pub sequences: Option<Vec<String>>,
    /// Everything but 0 is one object, as in DAVIS 2016.
    pub single_object: bool,
    /// Folder for the objects that were followed, as PNG files; `None` = they are not kept.
    pub results: Option<PathBuf>,
    /// Shorter side of the frames that the network sees, in pixels.
    pub side: usize,
    /// Do not measure the same network untrained.
    pub skip_untrained: bool,
}

impl Video {
    /// Name of the protocol.
    pub const NAME: &'static str = "video";

    /// Returns the protocol with the published settings.
    pub fn published(frames: PathBuf, truth: PathBuf) -> Self {
        let (sequences, single_object, results, skip_untrained) = (None, false, None, false);
        Self { frames, truth, sequences, single_object, results, side: SIDE, skip_untrained }
    }

    /// Finds the frames and their annotations.
    fn open(&self) -> Result<Vec<Sequence>> {
        let folders = [self.frames.as_path(), &self.truth];
        sequences(folders, self.sequences.as_deref(), self.single_object)
    }

    /// Creates a record of these sequences without scores.
    fn record(&self, sequences: &[&Sequence], subject: &Subject) -> Result<Record> {
        let options = PropagateOptions::default();
        let mut record = subject.record(self.name());
        record.resize = Some(u32::try_from(self.side).unwrap_or(u32::MAX));
        record.set("sequences", sequences.len());
        record.set("frames", options.frames);
        record.set("radius", options.radius);
        record.set("topk", options.topk);
        record.set("temperature", options.temperature);
        record.set("single_object", self.single_object);
        let files: Vec<PathBuf> = sequences.iter().flat_map(|s| s.frames.clone()).collect();
        let frames = DataUsed::of_files("test", &self.frames, fingerprint(&files), files.len());
        record.data.push(frames);
        let truth: Vec<PathBuf> = sequences.iter().flat_map(|s| s.truth.clone()).collect();
        record.data.push(DataUsed::truth(&self.truth, &truth)?);
        Ok(record)
    }
}

impl Protocol for Video {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn check(&self) -> Result<()> {
        self.open().map(|_| ())
    }

    fn measure(&self, subject: &Subject, observer: &dyn Observer) -> Result<Vec<Record>> {
        let sequences = self.open()?;
        let all: Vec<&Sequence> = sequences.iter().collect();
        let own = Task { video: self, subject, observer, results: self.results.as_deref() };
        let trained = own.follow(&all, &subject.weights.backbone)?;
        let mut record = self.record(&trained.sequences, subject)?;
        put(&mut record, None, &trained.report);
        trained.spread.into_iter().for_each(|spread| record.spread(spread));
        trained.notes.iter().for_each(|text| record.note(text));
        if !self.skip_untrained {
            let random = subject.untrained()?;
            let other = Task { results: None, ..own };
            let untrained = other.follow(&trained.sequences, random.network().backbone)?;
            if let Some(text) = untrained.notes.first() {
                return Err(input(format!(
                    "{text}; the untrained network must be measured on the same sequences as the \
                     trained one, or skipped (--skip-untrained)"
                )));
            }
            put(&mut record, Some("untrained"), &untrained.report);
        }
        Ok(vec![record])
    }
}

/// What the trained and the untrained network share.
#[derive(Clone, Copy)]
struct Task<'a> {
    video: &'a Video,
    subject: &'a Subject,
    observer: &'a dyn Observer,
    /// Folder for the objects that were followed.
    results: Option<&'a Path>,
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

impl Task<'_> {
    /// Tracks all objects and scores them. Sequences that cannot be processed, such as those with
    /// an unreadable frame, are left out with a warning.
    fn follow<'s>(
        &self,
        sequences: &[&'s Sequence],
        backbone: &VisionTransformer,
    ) -> Result<Followed<'s>> {
        let temporary = tempfile::tempdir()
            .map_err(|source| Error::Folder { path: std::env::temp_dir(), source })?;
        let results = self.results.unwrap_or(temporary.path());
        let options = TrackOptions {
            frozen: self.subject.frozen(backbone),
            side: self.video.side,
            propagate: PropagateOptions::default(),
        };
        let (mut done, mut notes, mut first_problem) = (Vec::new(), Vec::new(), None);
        let mut patches = Moment::default();
        let total = sequences.iter().map(|s| s.frames.len()).sum();
        let mut counter = Counter::new(self.observer, "frames", total);
        for &sequence in sequences {
            let folder = results.join(&sequence.name);
            match follow_one(sequence, &options, &folder, &mut || counter.add()) {
                Ok(of_sequence) => {
                    patches.merge(of_sequence)?;
                    done.push(sequence);
                }
                Err(error) => {
                    let reason = base::error_chain(&error);
                    notes.push(format!("skipped sequence {}: {reason}", sequence.name));
                    first_problem = first_problem.or(Some(error));
                }
            }
        }
        counter.finish();
        if let (true, Some(error)) = (done.is_empty(), first_problem) {
            return Err(error);
        }
        notes.iter().for_each(|text| self.observer.note(&format!("warning: {text}")));
        let mut scored = davis::Options::default();
        scored.single_object = self.video.single_object;
        scored.sequences = done.iter().map(|sequence| sequence.name.clone()).collect();
        let report = davis::score(&self.video.truth, results, &scored)?;
        Ok(Followed { report, sequences: done, notes, spread: patches.spread()? })
    }
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
        .map_err(|source| Error::Folder { path: folder.to_owned(), source })?;
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
