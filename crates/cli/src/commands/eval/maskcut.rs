//! `simdino eval maskcut`: the objects that MaskCut finds in images, and how well they match the truth.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use data::loader::BrokenImage;
use eval::discovery::{AttentionFeature, DiscoveryOptions, Found, discover, image_row, mask_row};
use eval::pictures::Row;
use eval::record::{DataUsed, Record};
use eval::retrieval::{fingerprint, images_in};
use model::VisionTransformer;
use objects::{CrfOptions, Grid, Mask, MaskCutOptions};
use score::Rle;
use score::coco::{
    Annotation, Category, Detection, Detections, GroundTruth, Image, Kind, Options, Segmentation,
    Summary, evaluate,
};

use crate::console::{name_skipped, progress};
use crate::failure::{Failure, Result};

use super::networks::{Networks, Opened};
use super::outcome::{Measured, Outcome, measure_each};
use super::sheet::Sheet;

/// The class of all masks.
const CLASS: i64 = 1;

/// What `eval maskcut` takes.
#[derive(Debug, clap::Args)]
pub struct MaskCutArgs {
    #[command(flatten)]
    networks: Networks,
    /// Folder of images
    #[arg(long, value_name = "FOLDER")]
    images: PathBuf,
    /// The objects that are there, in COCO's format; classes do not count
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
    /// Most images used; all if it is not given
    #[arg(long)]
    pub limit: Option<usize>,
    /// Patches are alike if the cosine of their features is above this, 0 to below 1
    #[arg(long, default_value_t = 0.15)]
    tau: f64,
    /// Most masks of an image
    #[arg(long, default_value_t = 3)]
    masks: usize,
    /// Vectors of the last block's attention that describe a patch
    #[arg(long, value_enum, default_value_t = Feature::Key)]
    feature: Feature,
    /// Side of the square to which images are resized, in pixels, before they become whole patches
    #[arg(long, default_value_t = objects::picture::SIDE)]
    side: usize,
    /// Masks of whole patches, not refined to the edges of the image
    #[arg(long)]
    skip_crf: bool,
    /// Do not measure the same network untrained, which every number should be compared with
    #[arg(long)]
    skip_untrained: bool,
}

/// Vectors of attention, as one types them.
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
            "--detections and --annotations need a single network: each would replace the file",
        ));
    }
    let set = ImageSet::open(args)?;
    let mut sheet = Sheet::default();
    measure_each(&args.networks, &mut |opened| measure(args, &set, opened, &mut sheet))
}

impl MaskCutArgs {
    /// The published settings.
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
}

/// Measures a network, without pictures.
///
/// # Errors
/// The images or their objects cannot be read.
pub fn measure_one(args: &MaskCutArgs, opened: &Opened) -> Result<Measured> {
    measure(args, &ImageSet::open(args)?, opened, &mut Sheet::default())
}

/// The images, and what they show.
struct ImageSet {
    files: Vec<PathBuf>,
    /// The images of `truth`, in the order of the files.
    listed: Option<Vec<Image>>,
    truth: Option<GroundTruth>,
}

impl ImageSet {
    fn open(args: &MaskCutArgs) -> Result<Self> {
        let limit = args.limit.unwrap_or(usize::MAX);
        let Some(path) = &args.ground_truth else {
            let mut files = images_in(&args.images)?;
            files.truncate(limit);
            return Ok(Self { files, listed: None, truth: None });
        };
        let truth = GroundTruth::read(path)?;
        let listed: Vec<Image> = truth.images().iter().take(limit).cloned().collect();
        let mut files = Vec::with_capacity(listed.len());
        for image in &listed {
            let file = args.images.join(&image.file_name);
            if !file.is_file() {
                let (file, truth) = (file.display(), path.display());
                return Err(Failure::failed(format!(
                    "{file}: there is no such image, which {truth} names"
                )));
            }
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
        Ok(Self { files, listed: Some(listed), truth: Some(truth) })
    }

    /// The images with their true masks, if there is a truth.
    fn true_masks(&self, shown: &[Found]) -> Result<Option<Row>> {
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
    fn entry(&self, found: &Found) -> Result<Image> {
        let (width, height) = found.image.dimensions();
        let Some(listed) = &self.listed else {
            let file = &self.files[found.index];
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let id = (found.index as i64 + 1).into();
            return Ok(Image { id, file_name: name, height, width });
        };
        let image = listed[found.index].clone();
        if (image.width, image.height) != (width, height) {
            return Err(Failure::failed(format!(
                "{}: the image has {width} x {height} pixels, but the ground truth says {} x {}",
                self.files[found.index].display(),
                image.width,
                image.height
            )));
        }
        Ok(image)
    }
}

/// What was found in all images.
#[derive(Default)]
struct AllFound {
    images: Vec<Image>,
    detections: Vec<Detection>,
    annotations: Vec<Annotation>,
    with_mask: usize,
    shown: Vec<Found>,
    broken: Vec<BrokenImage>,
}

impl AllFound {
    fn add(&mut self, set: &ImageSet, found: Found, most_shown: usize) -> Result<()> {
        let image = set.entry(&found)?;
        self.with_mask += usize::from(!found.masks.is_empty());
        for mask in &found.masks {
            let rle = Rle::from_mask(image.height, image.width, mask.cells())?;
            // MaskCut says nothing about its certainty; equal scores rank in this order.
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
    let mut record = opened.record("maskcut");
    record.crop = Some(u32::try_from(args.side).unwrap_or(u32::MAX));
    record.set("tau", args.tau);
    record.set("masks", args.masks);
    record.set("feature", format!("{:?}", args.feature).to_lowercase());
    record.set("crf", !args.skip_crf);
    let used = DataUsed::of_files(
        "test",
        &args.images,
        fingerprint(&set.files),
        set.files.len() - trained.broken.len(),
    );
    record.data.push(used);
    put(&mut record, None, set, &trained)?;
    draw(args, set, &opened.path.display().to_string(), &trained.shown, sheet)?;
    if !args.skip_untrained {
        let untrained = opened.untrained()?;
        let found = find(args, set, opened, untrained.network().backbone)?;
        put(&mut record, Some("untrained"), set, &found)?;
        draw(args, set, &format!("{}, untrained", opened.path.display()), &found.shown, sheet)?;
    }
    if let Some(first) = trained.broken.first() {
        let (count, name, reason) = (trained.broken.len(), &first.name, &first.reason);
        record.note(&format!("{count} images could not be read; the first: {name}: {reason}"));
    }
    write(args, trained)?;
    Measured::of(record)
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
    let (mut all, mut failure) = (AllFound::default(), None);
    let shown = if args.picture.is_some() { args.shown } else { 0 };
    let bar = progress(set.files.len(), "images cut");
    let broken = discover(&set.files, &options, &mut |found| {
        bar.set_position(found.index as u64 + 1);
        if failure.is_none() {
            failure = all.add(set, found, shown).err();
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    if let Some(failure) = failure {
        return Err(failure);
    }
    name_skipped("", &broken); // names are whole paths
    all.broken = broken;
    Ok(all)
}

/// Puts scores into a record: those of this network, or of `baseline`.
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
        for (name, kind) in [("mask", Kind::Mask), ("box", Kind::Box)] {
            let mut options = Options::default();
            (options.kind, options.class_agnostic) = (kind, true);
            let summary: Summary = evaluate(truth, &detections, &options)?;
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

/// Adds masks to the picture, if one was asked for.
fn draw(
    args: &MaskCutArgs,
    set: &ImageSet,
    label: &str,
    shown: &[Found],
    sheet: &mut Sheet,
) -> Result<()> {
    let Some(file) = &args.picture else { return Ok(()) };
    let shared = || {
        let mut rows = vec![image_row(shown)];
        rows.extend(set.true_masks(shown)?);
        Ok(rows)
    };
    sheet.add(file, shared, [mask_row(label, shown)])
}

/// Writes the files that were asked for.
fn write(args: &MaskCutArgs, found: AllFound) -> Result<()> {
    if let Some(path) = &args.detections {
        Detections::new(name(path), found.detections)?.write(path)?;
    }
    if let Some(path) = &args.annotations {
        let classes = vec![Category { id: CLASS, name: "object".to_owned() }];
        GroundTruth::new(name(path), found.images, classes, found.annotations)?.write(path)?;
    }
    Ok(())
}

fn name(path: &Path) -> String {
    path.display().to_string()
}
