//! Image retrieval of the revisited Oxford and Paris benchmarks.

use std::collections::BTreeMap;
use std::path::PathBuf;

use eval::record::{DataUsed, Metrics, Record};
use eval::retrieval::{
    Difficulty, EmbedOptions, GroundTruth, ImageFeatureKind, ImageFile, Revisited, fingerprint,
    images_in,
};

use super::embedded::{Scores, baselines, embedded, notes, options, put, spread};
use crate::error::{Error, Result, input};
use crate::observer::Observer;
use crate::protocol::Protocol;
use crate::subject::Subject;

/// Ranks images of the same place, compared with raw pixels and with the same network untrained.
///
/// # Source
/// DINO's eval_image_retrieval.py and the benchmark of Radenović et al., *Revisiting Oxford and
/// Paris*.
#[derive(Debug, Clone)]
pub struct Retrieval {
    /// Folder of the database images and of the query images.
    pub images: PathBuf,
    /// `gnd_roxford5k.pkl`, `gnd_rparis6k.pkl`, or a JSON file of the same form.
    pub ground_truth: PathBuf,
    /// Maximum length of the longer side, in pixels; DINO uses 224 for Oxford and 512 for Paris.
    pub max_side: u32,
    /// Average the features of three image sizes.
    pub multi_scale: bool,
    /// Use only the part of a query image that shows the place.
    pub crop_queries: bool,
    /// Do not measure the same network untrained.
    pub skip_untrained: bool,
}

impl Retrieval {
    /// Name of the protocol.
    pub const NAME: &'static str = "retrieval";

    /// Returns the protocol with the published settings for Oxford.
    pub fn published(images: PathBuf, ground_truth: PathBuf) -> Self {
        let (multi_scale, crop_queries, skip_untrained) = (false, false, false);
        let max_side = 224;
        Self { images, ground_truth, max_side, multi_scale, crop_queries, skip_untrained }
    }

    /// Checks that images are at least a patch wide at every size.
    fn check_side(&self, subject: &Subject) -> Result<()> {
        let least = subject.weights.model.patch_size * if self.multi_scale { 2 } else { 1 };
        match i64::from(self.max_side) >= least {
            true => Ok(()),
            false => Err(Error::Setting {
                name: "max_side",
                problem: format!(
                    "must be at least {least} pixels for this network (got {})",
                    self.max_side
                ),
            }),
        }
    }
}

impl Protocol for Retrieval {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn check(&self) -> Result<()> {
        Places::find(self, &GroundTruth::read(&self.ground_truth)?).map(|_| ())
    }

    fn measure(&self, subject: &Subject, observer: &dyn Observer) -> Result<Vec<Record>> {
        let truth = GroundTruth::read(&self.ground_truth)?;
        let files = Places::find(self, &truth)?;
        self.check_side(subject)?;
        let (most, multi_scale) = (self.max_side, self.multi_scale);
        let kind = ImageFeatureKind::Cls { most, multi_scale };
        let of = |options: &EmbedOptions<'_>| files.scores(&truth, options, observer);
        let scores = of(&options(subject, &subject.weights.backbone, kind))?;
        let baselines = baselines(subject, kind, self.skip_untrained, &of)?;
        let mut record = subject.record(self.name());
        record.set("max_side", self.max_side);
        record.set("multi_scale", self.multi_scale);
        record.set("crop_queries", self.crop_queries);
        let all = [&files.database, &files.queries].map(|files| paths(files));
        for (role, files) in ["database", "query"].into_iter().zip(&all) {
            let used = DataUsed::of_files(role, &self.images, fingerprint(files), files.len());
            record.data.push(used);
        }
        let truth_file = std::slice::from_ref(&self.ground_truth);
        record.data.push(DataUsed::truth(&self.ground_truth, truth_file)?);
        put(&mut record, "map medium", &scores, &baselines);
        Ok(vec![record])
    }
}

/// The image files that a ground truth names.
struct Places {
    database: Vec<ImageFile>,
    queries: Vec<ImageFile>,
}

impl Places {
    fn find(args: &Retrieval, truth: &GroundTruth) -> Result<Self> {
        let mut by_name: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for path in images_in(&args.images)? {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            by_name.entry(name).or_default().push(path);
        }
        let file = |name: &String, part| match by_name.get(name).map_or(&[][..], Vec::as_slice) {
            [path] => Ok(ImageFile { path: path.clone(), part }),
            [] => {
                let (folder, truth) = (args.images.display(), args.ground_truth.display());
                Err(input(format!("{folder}: no image named {name}, although {truth} lists it")))
            }
            [first, second, ..] => Err(input(format!(
                "{} and {}: both could be the image {name} that {} lists; keep only one of them in \
                 the folder",
                first.display(),
                second.display(),
                args.ground_truth.display()
            ))),
        };
        let database = truth.images.iter().map(|name| file(name, None)).collect::<Result<_>>()?;
        let part = |bbox: Option<[f64; 4]>| bbox.filter(|_| args.crop_queries);
        let queries = truth.queries.iter().map(|query| file(&query.name, part(query.bbox)));
        Ok(Self { database, queries: queries.collect::<Result<_>>()? })
    }

    fn scores(
        &self,
        truth: &GroundTruth,
        options: &EmbedOptions<'_>,
        observer: &dyn Observer,
    ) -> Result<Scores> {
        let mut broken = Vec::new();
        let (database, missing) =
            embedded(("database images embedded", &self.database), options, &mut broken, observer)?;
        let (queries, missing_queries) =
            embedded(("query images embedded", &self.queries), options, &mut broken, observer)?;
        let ranked = Revisited::new(&queries.features, &database.features)?;
        let (mut scores, spread) = (Metrics::new(), spread(&database.features, options)?);
        for (name, difficulty) in Difficulty::ALL {
            let score = match ranked.score(truth, difficulty, &missing, &missing_queries) {
                Ok(score) => score,
                Err(eval::Error::NoPositives) => continue,
                Err(error) => return Err(error.into()),
            };
            scores.insert(format!("map {name}"), score.map);
            for (k, precision) in [1, 5, 10].into_iter().zip(score.precision_at) {
                scores.insert(format!("mp@{k} {name}"), precision);
            }
        }
        if scores.is_empty() {
            return Err(eval::Error::NoPositives.into());
        }
        Ok(Scores { metrics: scores, spread, notes: notes(&broken, observer) })
    }
}

fn paths(files: &[ImageFile]) -> Vec<PathBuf> {
    files.iter().map(|file| file.path.clone()).collect()
}
