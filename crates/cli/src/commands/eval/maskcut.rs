//! `simdino eval maskcut`: finds objects in images by MaskCut, and compares them with a ground
//! truth.

mod images;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
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

use crate::console::{name_skipped, progress};
use crate::failure::{Failure, Result};

use super::networks::{Networks, Opened};
use super::outcome::{Measured, Outcome, measure_each};
use super::sheet::Sheet;
use images::{ImageSet, options};

/// The class of all masks.
const CLASS: i64 = 1;

/// Arguments of `simdino eval maskcut`.
#[derive(Debug, clap::Args)]
pub struct MaskCutArgs {
    #[command(flatten)]
    networks: Networks,
    /// Folder of images
    #[arg(long, value_name = "FOLDER")]
    images: PathBuf,
    /// The true objects, in COCO's format; their classes are ignored
    #[arg(long, value_name = "FILE")]
    ground_truth: Option<PathBuf>,
    /// JSON file for the masks that are found: a list of detections in COCO's format
    #[arg(long, value_name = "FILE")]
    detections: Option<PathBuf>,
    /// JSON file for the same masks as annotations in COCO's format, to train a detector with
    #[arg(long, value_name = "FILE")]
    annotations: Option<PathBuf>,
    /// PNG file with some images and their masks: the true ones, and those of each network
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Images in the picture
    #[arg(long, default_value_t = 16)]
    shown: usize,
    /// Maximum number of images; all by default
    #[arg(long)]
    pub limit: Option<NonZeroUsize>,
    /// Patches are alike if the cosine of their features is above this, 0 to below 1
    #[arg(long, default_value_t = 0.15)]
    tau: f64,
    /// Maximum number of masks per image
    #[arg(long, default_value_t = 3)]
    masks: usize,
    /// Vectors of the last block's attention that describe a patch
    #[arg(long, value_enum, default_value_t = Feature::Key)]
    feature: Feature,
    /// Side of the square to which images are resized, in pixels, before they become whole patches
    #[arg(long, default_value_t = objects::picture::SIDE)]
    side: usize,
    /// Do not refine masks, which consist of whole patches, to the edges of the image
    #[arg(long)]
    skip_crf: bool,
    /// Do not measure the same network untrained, which every number should be compared with
    #[arg(long)]
    pub skip_untrained: bool,
}

/// The vectors of attention, by their names on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Feature {
    Query,
    Key,
    Value,
}

impl From<Feature> for AttentionFeature {
    fn from(feature: Feature) -> Self {
        match feature {
            Feature::Query => Self::Query,
            Feature::Key => Self::Key,
            Feature::Value => Self::Value,
        }
    }
}

/// Measures all networks.
pub fn run(args: &MaskCutArgs) -> Result<Outcome> {
    let several = args.networks.paths()?.len() > 1;
    let written = [&args.detections, &args.annotations];
    if several && written.iter().any(|file| file.is_some()) {
        return Err(Failure::usage(
            "--detections and --annotations need a single network, because each network would \
             overwrite the file",
        ));
    }
    let set = args.set()?;
    let mut sheet = Sheet::new(args.picture.as_deref())?;
    measure_each(&args.networks, &mut |opened| measure(args, &set, opened, &mut sheet))
}

impl MaskCutArgs {
    /// Returns the arguments for the published settings.
    pub fn of(networks: Networks, images: PathBuf, ground_truth: Option<PathBuf>) -> Self {
        let MaskCutOptions { tau, masks, .. } = MaskCutOptions::default();
        Self {
            networks,
            images,
            ground_truth,
            detections: None,
            annotations: None,
            picture: None,
            shown: 0,
            limit: None,
            tau,
            masks,
            feature: Feature::Key,
            side: objects::picture::SIDE,
            skip_crf: false,
            skip_untrained: false,
        }
    }

    fn set(&self) -> Result<ImageSet> {
        ImageSet::open(
            &self.images,
            self.ground_truth.as_deref(),
            self.limit.map(NonZeroUsize::get),
        )
    }
}

/// Measures a network, without a picture.
///
/// # Errors
/// Returns an error if the images or their objects cannot be read.
pub fn measure_one(args: &MaskCutArgs, opened: &Opened) -> Result<Measured> {
    measure(args, &args.set()?, opened, &mut Sheet::default())
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

fn measure(
    args: &MaskCutArgs,
    set: &ImageSet,
    opened: &Opened,
    sheet: &mut Sheet,
) -> Result<Measured> {
    let trained = find(args, set, opened, &opened.weights.backbone)?;
    // Write the masks now: they may have taken hours, and do not depend on what follows.
    write(args, &trained)?;
    let mut record = record(args, set, opened, &trained)?;
    put(&mut record, None, set, &trained)?;
    draw(args, set, &opened.path.display().to_string(), &trained.shown, sheet);
    if !args.skip_untrained {
        let untrained = opened.untrained()?;
        let found = find(args, set, opened, untrained.network().backbone)?;
        put(&mut record, Some("untrained"), set, &found)?;
        draw(args, set, &format!("{}, untrained", opened.path.display()), &found.shown, sheet);
    }
    Measured::of(record)
}

/// Creates a record without scores.
fn record(
    args: &MaskCutArgs,
    set: &ImageSet,
    opened: &Opened,
    trained: &AllFound,
) -> Result<Record> {
    let mut record = opened.record("maskcut");
    record.crop = Some(u32::try_from(args.side).unwrap_or(u32::MAX));
    record.set("tau", args.tau);
    record.set("masks", args.masks);
    record.set("feature", format!("{:?}", args.feature).to_lowercase());
    record.set("crf", !args.skip_crf);
    trained.spread.into_iter().for_each(|spread| record.spread(spread));
    let used = DataUsed::of_files(
        "test",
        &args.images,
        fingerprint(&set.files),
        set.files.len() - trained.broken.len(),
    );
    record.data.push(used);
    if let Some(truth) = &args.ground_truth {
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

fn find(
    args: &MaskCutArgs,
    set: &ImageSet,
    opened: &Opened,
    backbone: &VisionTransformer,
) -> Result<AllFound> {
    let options = DiscoveryOptions {
        frozen: opened.frozen(backbone),
        feature: args.feature.into(),
        side: args.side,
        maskcut: MaskCutOptions { tau: args.tau, masks: args.masks, ..MaskCutOptions::default() },
        crf: (!args.skip_crf).then(CrfOptions::default),
    };
    let mut all = AllFound::default();
    let shown = if args.picture.is_some() { args.shown } else { 0 };
    let bar = progress(set.files.len(), "images segmented");
    let Discovered { broken, patches, .. } = discover(&set.files, &options, &mut |found| {
        bar.set_position(found.index as u64 + 1);
        all.add(set, found, shown)
    })?;
    bar.finish_and_clear();
    name_skipped("", &broken); // names are full paths, so they are unique
    (all.broken, all.spread) = (broken, patches.spread()?);
    Ok(all)
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

/// Adds masks to the picture, if one was requested.
fn draw(args: &MaskCutArgs, set: &ImageSet, label: &str, shown: &[Found], sheet: &mut Sheet) {
    let Some(file) = &args.picture else { return };
    let shared = || {
        let mut rows = vec![image_row(shown)];
        rows.extend(set.true_masks(shown)?);
        Ok(rows)
    };
    sheet.add(file, shared, [mask_row(label, shown)]);
}

/// Writes the requested files.
fn write(args: &MaskCutArgs, found: &AllFound) -> Result<()> {
    if let Some(path) = &args.detections {
        Detections::new(name(path), found.detections.clone())?.write(path)?;
    }
    if let Some(path) = &args.annotations {
        let classes = vec![Category { id: CLASS, name: "object".to_owned() }];
        let (images, annotations) = (found.images.clone(), found.annotations.clone());
        GroundTruth::new(name(path), images, classes, annotations)?.write(path)?;
    }
    Ok(())
}

fn name(path: &Path) -> String {
    path.display().to_string()
}
