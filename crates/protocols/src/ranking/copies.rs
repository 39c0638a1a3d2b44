//! Copy detection on Copydays.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use eval::record::{DataUsed, Metrics, Record};
use eval::retrieval::copydays::{Copydays, Whitening, group_of, score_block};
use eval::retrieval::{
    EmbedOptions, Embedded, ImageFeatureKind, ImageFile, fingerprint, images_in,
};

use super::embedded::{Scores, baselines, embedded, is_pixels, notes, options, put, spread};
use crate::error::Result;
use crate::observer::Observer;
use crate::protocol::Protocol;
use crate::subject::Subject;

/// Ranks the originals of copies, compared with raw pixels and with the same network untrained.
///
/// # Source
/// DINO's eval_copy_detection.py.
#[derive(Debug, Clone)]
pub struct CopyDetection {
    /// Folder of Copydays, with the folders `original`, `strong`, `jpegqual/N`, and `crops/N`.
    pub copydays: PathBuf,
    /// Folder of additional images of the database, which are not originals.
    pub distractors: Option<PathBuf>,
    /// Folder of images from which the whitening of features is learned; `None` = no whitening.
    pub whiten: Option<PathBuf>,
    /// Side of the square to which images are resized, in pixels, rounded down to whole patches.
    pub side: u32,
    /// Do not measure the same network untrained.
    pub skip_untrained: bool,
}

impl CopyDetection {
    /// Name of the protocol.
    pub const NAME: &'static str = "copy";

    /// Returns the protocol with the published settings, without distractors and whitening.
    pub fn published(copydays: PathBuf) -> Self {
        let (distractors, whiten, side, skip_untrained) = (None, None, 320, false);
        Self { copydays, distractors, whiten, side, skip_untrained }
    }
}

/// The image files of copy detection.
struct CopyImages {
    copydays: Copydays,
    distractors: Vec<PathBuf>,
    whiten: Vec<PathBuf>,
}

impl CopyImages {
    fn find(protocol: &CopyDetection) -> Result<Self> {
        let listed = |folder: &Option<PathBuf>| -> Result<Vec<PathBuf>> {
            Ok(folder.as_deref().map(images_in).transpose()?.unwrap_or_default())
        };
        let (distractors, whiten) = (listed(&protocol.distractors)?, listed(&protocol.whiten)?);
        Ok(Self { copydays: Copydays::open(&protocol.copydays)?, distractors, whiten })
    }
}

impl Protocol for CopyDetection {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn check(&self) -> Result<()> {
        CopyImages::find(self).map(|_| ())
    }

    fn measure(&self, subject: &Subject, observer: &dyn Observer) -> Result<Vec<Record>> {
        let images = CopyImages::find(self)?;
        let patch = u32::try_from(subject.weights.model.patch_size).unwrap_or(1).max(1);
        let side = (self.side / patch).max(1) * patch;
        let kind = ImageFeatureKind::ClsGem { side };
        let of = |options: &EmbedOptions<'_>| copies(&images, options, observer);
        let scores = of(&options(subject, &subject.weights.backbone, kind))?;
        let baselines = baselines(subject, kind, self.skip_untrained, &of)?;
        let mut record = subject.record(self.name());
        record.crop = Some(side);
        record.set("whitened", self.whiten.is_some());
        let CopyImages { copydays, distractors, whiten } = &images;
        let queries = copydays.blocks.iter().map(|block| block.files.len()).sum();
        for (role, folder, files, count) in [
            ("original", Some(&self.copydays), &copydays.originals, copydays.originals.len()),
            ("query", Some(&self.copydays), &all_files(copydays), queries),
            ("distractor", self.distractors.as_ref(), distractors, distractors.len()),
            ("whitening", self.whiten.as_ref(), whiten, whiten.len()),
        ] {
            let Some(folder) = folder else { continue };
            record.data.push(DataUsed::of_files(role, folder, fingerprint(files), count));
        }
        let names = || scores.metrics.keys();
        let main = names().find(|name| *name == "map strong").or(names().next());
        let main = main.cloned().unwrap_or_default();
        put(&mut record, &main, &scores, &baselines);
        Ok(vec![record])
    }
}

fn all_files(copydays: &Copydays) -> Vec<PathBuf> {
    copydays.blocks.iter().flat_map(|block| block.files.clone()).collect()
}

/// Computes the mean average precision of each block of Copydays, and the mean over the blocks of
/// each kind.
fn copies(
    images: &CopyImages,
    options: &EmbedOptions<'_>,
    observer: &dyn Observer,
) -> Result<Scores> {
    let CopyImages { copydays, distractors, whiten } = images;
    let mut broken = Vec::new();
    let whole = |path: &PathBuf| ImageFile { path: path.clone(), part: None };
    let mut of = |task, files: &[PathBuf]| {
        let files: Vec<ImageFile> = files.iter().map(whole).collect();
        embedded((task, &files), options, &mut broken, observer)
    };
    let whitening = match whiten.is_empty() || is_pixels(options) {
        true => None,
        false => Some(learn_whitening(of("whitening images embedded", whiten)?, observer)?),
    };
    let white = |features: tch::Tensor| match &whitening {
        Some(whitening) => whitening.apply(&features),
        None => Ok(features),
    };
    let (database, missing) =
        of("database images embedded", &[copydays.originals.as_slice(), distractors].concat())?;
    let database = without(&database.features, &missing);
    let (spread, database) = (spread(&database, options)?, white(database)?);
    let groups = copydays.originals.iter().map(|path| group_of(path));
    let groups = groups.chain(std::iter::repeat_n(None, distractors.len())).enumerate();
    let groups = groups.filter(|(index, _)| !missing.contains(index)).map(|(_, group)| group);
    let groups: Vec<Option<String>> = groups.collect();
    let (mut scores, mut kinds) = (Metrics::new(), BTreeMap::<String, Vec<f64>>::new());
    for block in &copydays.blocks {
        let (queries, missing) = of("copies embedded", &block.files)?;
        // A missing query does not count.
        let group = |(index, path): (usize, &PathBuf)| match missing.contains(&index) {
            true => None,
            false => group_of(path),
        };
        let query_groups: Vec<Option<String>> = block.files.iter().enumerate().map(group).collect();
        let queries = white(queries.features)?;
        let score = score_block(&block.name, [&queries, &database], &query_groups, &groups)?;
        let kind = block.name.split('/').next().unwrap_or_default().to_owned();
        kinds.entry(kind).or_default().push(score.map);
        scores.insert(format!("map {}", block.name), score.map);
    }
    for (kind, maps) in kinds {
        scores.insert(format!("map {kind}"), maps.iter().sum::<f64>() / maps.len() as f64);
    }
    Ok(Scores { metrics: scores, spread, notes: notes(&broken, observer) })
}

/// Learns the whitening from the readable images.
fn learn_whitening(
    (learned, missing): (Embedded, HashSet<usize>),
    observer: &dyn Observer,
) -> Result<Whitening> {
    let [count, width] = [learned.features.size()[0], learned.features.size()[1]];
    if count < width {
        observer.note(&format!(
            "warning: whitening: {count} images are too few for features with {width} columns, so \
             the whitening amplifies noise"
        ));
    }
    Ok(Whitening::learn(&without(&learned.features, &missing))?)
}

/// Returns the features `[n, D]` without the rows of missing images.
fn without(features: &tch::Tensor, missing: &HashSet<usize>) -> tch::Tensor {
    let rows = (0..features.size()[0]).filter(|&row| !missing.contains(&(row as usize)));
    features.index_select(0, &tch::Tensor::from_slice(&rows.collect::<Vec<_>>()))
}
