//! Object discovery by MaskCut.

mod images;

use std::path::{Path, PathBuf};

use data::loader::BrokenImage;
use eval::discovery::{
    AttentionFeature, Discovered, DiscoveryOptions, Found, discover, image_row, mask_row,
};
use eval::record::{DataUsed, Record};
use eval::retrieval::fingerprint;
use eval::spectrum::Spread;
use model::VisionTransformer;
use objects::{CrfOptions, MaskCutOptions};
use score::Rle;
use score::coco::{
    Annotation, Category, Detection, Detections, GroundTruth, Image, Summary, evaluate,
};

use crate::error::Result;
use crate::observer::{Counter, Observer, Silent};
use crate::protocol::Protocol;
use crate::subject::Subject;
use images::{ImageSet, options};

/// The class of all masks.
const CLASS: i64 = 1;

/// Finds objects in images by MaskCut, without training, and compares them with a ground truth.
///
/// # Source
/// CutLER, *Cut and Learn for Unsupervised Object Detection and Instance Segmentation*.
#[derive(Debug, Clone)]
pub struct MaskCut {
    /// Folder of images.
    pub images: PathBuf,
    /// The true objects, in COCO's format; their classes are ignored. Without them, only the share
    /// of images with a mask is measured.
    pub ground_truth: Option<PathBuf>,
    /// JSON file for the masks that are found: a list of detections in COCO's format.
    pub detections: Option<PathBuf>,
    /// JSON file for the same masks as annotations in COCO's format, to train a detector with.
    pub annotations: Option<PathBuf>,
    /// Maximum number of images, which are the first ones; `None` = all.
    pub limit: Option<usize>,
    /// Patches are alike if the cosine of their features is above this, 0 to below 1.
    pub tau: f64,
    /// Maximum number of masks per image.
    pub masks: usize,
    /// Vectors of the last block's attention that describe a patch.
    pub feature: AttentionFeature,
    /// Side of the square to which images are resized, in pixels, before they become whole patches.
    pub side: usize,
    /// Refine masks, which consist of whole patches, to the edges of the image.
    pub crf: bool,
    /// Do not measure the same network untrained.
    pub skip_untrained: bool,
    /// Number of images in the picture that [`Observer::draw`] receives; 0 = no picture.
    pub shown: usize,
}

impl MaskCut {
    /// Name of the protocol.
    pub const NAME: &'static str = "maskcut";

    /// Returns the protocol with the published settings.
    pub fn published(images: PathBuf, ground_truth: Option<PathBuf>) -> Self {
        let MaskCutOptions { tau, masks, .. } = MaskCutOptions::default();
        Self {
            images,
            ground_truth,
            detections: None,
            annotations: None,
            limit: None,
            tau,
            masks,
            feature: AttentionFeature::Key,
            side: objects::picture::SIDE,
            crf: true,
            skip_untrained: false,
            shown: 0,
        }
    }

    fn open(&self, observer: &dyn Observer) -> Result<ImageSet> {
        ImageSet::open(&self.images, self.ground_truth.as_deref(), self.limit, observer)
    }

    fn find(
        &self,
        set: &ImageSet,
        about: About<'_>,
        backbone: &VisionTransformer,
    ) -> Result<AllFound> {
        let (tau, masks) = (self.tau, self.masks);
        let options = DiscoveryOptions {
            frozen: about.subject.frozen(backbone),
            feature: self.feature,
            side: self.side,
            maskcut: MaskCutOptions { tau, masks, ..MaskCutOptions::default() },
            crf: self.crf.then(CrfOptions::default),
        };
        let mut all = AllFound::default();
        let mut counter = Counter::new(about.observer, "images segmented", set.files.len());
        let Discovered { broken, patches, .. } = discover(&set.files, &options, &mut |found| {
            counter.set(found.index + 1);
            all.add(set, found, self.shown)
        })?;
        counter.finish();
        about.observer.skipped("", &broken); // names are full paths, so they are unique
        (all.broken, all.spread) = (broken, patches.spread()?);
        Ok(all)
    }

    /// Creates a record without scores.
    fn record(&self, set: &ImageSet, subject: &Subject, trained: &AllFound) -> Result<Record> {
        let mut record = subject.record(self.name());
        record.crop = Some(u32::try_from(self.side).unwrap_or(u32::MAX));
        record.set("tau", self.tau);
        record.set("masks", self.masks);
        record.set("feature", format!("{:?}", self.feature).to_lowercase());
        record.set("crf", self.crf);
        trained.spread.into_iter().for_each(|spread| record.spread(spread));
        let images = set.files.len() - trained.broken.len();
        let print = fingerprint(&set.files);
        record.data.push(DataUsed::of_files("test", &self.images, print, images));
        if let Some(truth) = &self.ground_truth {
            record.data.push(DataUsed::truth(truth, std::slice::from_ref(truth))?);
        }
        if let Some(first) = trained.broken.first() {
            let (count, name, reason) = (trained.broken.len(), &first.name, &first.reason);
            record.note(&format!(
                "{count} of the images could not be read; the first is {name}: {reason}"
            ));
        }
        Ok(record)
    }

    /// Writes the files that were asked for.
    fn write(&self, found: &AllFound) -> Result<()> {
        let name = |path: &Path| path.display().to_string();
        if let Some(path) = &self.detections {
            Detections::new(name(path), found.detections.clone())?.write(path)?;
        }
        if let Some(path) = &self.annotations {
            let classes = vec![Category { id: CLASS, name: "object".to_owned() }];
            let (images, annotations) = (found.images.clone(), found.annotations.clone());
            GroundTruth::new(name(path), images, classes, annotations)?.write(path)?;
        }
        Ok(())
    }
}

impl Protocol for MaskCut {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn check(&self) -> Result<()> {
        self.open(&Silent).map(|_| ())
    }

    fn measure(&self, subject: &Subject, observer: &dyn Observer) -> Result<Vec<Record>> {
        let set = self.open(observer)?;
        let about = About { subject, observer };
        let trained = self.find(&set, about, &subject.weights.backbone)?;
        // Write the masks now: they may have taken hours, and do not depend on what follows.
        self.write(&trained)?;
        let mut record = self.record(&set, subject, &trained)?;
        put(&mut record, None, &set, &trained)?;
        about.draw(&set, "", &trained.shown);
        if !self.skip_untrained {
            let random = subject.untrained()?;
            let found = self.find(&set, about, random.network().backbone)?;
            put(&mut record, Some("untrained"), &set, &found)?;
            about.draw(&set, ", untrained", &found.shown);
        }
        Ok(vec![record])
    }
}

/// The network of a measurement, and who watches it.
#[derive(Clone, Copy)]
struct About<'a> {
    subject: &'a Subject,
    observer: &'a dyn Observer,
}

impl About<'_> {
    /// Adds masks to the picture, if one was requested. `name` is appended to the label.
    fn draw(&self, set: &ImageSet, name: &str, shown: &[Found]) {
        if shown.is_empty() {
            return;
        }
        let shared = || {
            let mut rows = vec![image_row(shown)];
            rows.extend(set.true_masks(shown)?);
            Ok(rows)
        };
        let label = format!("{}{name}", self.subject.path.display());
        self.observer.draw(&shared, mask_row(&label, shown));
    }
}

/// The objects found in all images.
#[derive(Default)]
struct AllFound {
    images: Vec<Image>,
    detections: Vec<Detection>,
    annotations: Vec<Annotation>,
    with_mask: usize,
    shown: Vec<Found>,
    broken: Vec<BrokenImage>,
    /// Of the vectors of all patches.
    spread: Option<Spread>,
}

impl AllFound {
    fn add(&mut self, set: &ImageSet, found: Found, most_shown: usize) -> Result<()> {
        let image = set.entry(&found)?;
        self.with_mask += usize::from(!found.masks.is_empty());
        for mask in &found.masks {
            let rle = Rle::from_mask(image.height, image.width, mask.cells())?;
            // MaskCut gives no confidence. Detections with equal scores keep this order.
            self.detections.push(Detection::from_mask(image.id.clone(), CLASS, 1.0, &rle));
            let id = self.annotations.len() as i64 + 1;
            self.annotations.push(Annotation::from_mask(id, image.id.clone(), CLASS, &rle));
        }
        self.images.push(image);
        if self.shown.len() < most_shown {
            self.shown.push(found);
        }
        Ok(())
    }
}

/// Adds scores to a record, as those of this network or of `baseline`.
fn put(
    record: &mut Record,
    baseline: Option<&str>,
    set: &ImageSet,
    found: &AllFound,
) -> Result<()> {
    let mut score = |name: &str, value: Option<f64>| match (value, baseline) {
        (Some(value), None) => record.score(name, value),
        (Some(value), Some(of)) => record.baseline(of, name, value),
        (None, _) => {}
    };
    if let Some(truth) = &set.truth {
        let detections = Detections::new("the masks".to_owned(), found.detections.clone())?;
        let truth = truth.of_images(&found.images)?; // without those that could not be read
        for (name, kind) in &set.kinds {
            let summary: Summary = evaluate(&truth, &detections, &options(*kind))?;
            score(&format!("{name} ap"), summary.ap);
            score(&format!("{name} ap50"), summary.ap50);
            score(&format!("{name} ap75"), summary.ap75);
            score(&format!("{name} ar100"), summary.ar_100);
        }
    }
    let images = found.images.len().max(1) as f64;
    score("images with a mask", Some(found.with_mask as f64 / images));
    Ok(())
}
