//! `simdino score coco`: average precision and recall of boxes and masks.

use std::collections::HashSet;
use std::fmt::Write;
use std::path::PathBuf;

use base::counted;
use clap::ValueEnum;
use score::coco::{self, Detections, GroundTruth, Kind, Options, Summary};
use serde_json::json;

use crate::console::answer;
use crate::failure::Result;

use super::words::percent;

/// Arguments of `simdino score coco`.
#[derive(Debug, clap::Args)]
pub struct CocoArgs {
    /// COCO annotations: a JSON file with images, categories, and annotations
    #[arg(long, value_name = "FILE")]
    truth: PathBuf,
    /// Results: a JSON list of detections with image_id, category_id, score, and bbox or
    /// segmentation
    #[arg(long, value_name = "FILE")]
    results: PathBuf,
    /// What is compared; by default boxes, and masks if the results contain any
    #[arg(long, value_enum, value_delimiter = ',')]
    kind: Vec<KindArg>,
    /// Count all classes as one, as for object discovery
    #[arg(long)]
    class_agnostic: bool,
    /// Take the area of a detected mask from its box, as pycocotools does if the results contain
    /// boxes
    #[arg(long)]
    box_areas: bool,
    /// Write a table of all classes
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
enum KindArg {
    Box,
    Mask,
}

impl KindArg {
    fn name(self) -> &'static str {
        match self {
            Self::Box => "box",
            Self::Mask => "mask",
        }
    }
}

/// Runs the command.
///
/// # Errors
/// Returns an error if a file is invalid or cannot be read or written.
pub fn run(args: &CocoArgs) -> Result<()> {
    let truth = GroundTruth::read(&args.truth)?;
    let results = Detections::read(&args.results)?;
    let mut kinds = args.kind.clone();
    if kinds.is_empty() {
        kinds.push(KindArg::Box);
        if results.list().iter().any(|detection| detection.segmentation.is_some()) {
            kinds.push(KindArg::Mask);
        }
    }
    let mut seen = HashSet::new();
    kinds.retain(|kind| seen.insert(*kind));
    let mut summaries = Vec::new();
    for kind in kinds {
        let mut options = Options::default();
        options.kind = if kind == KindArg::Box { Kind::Box } else { Kind::Mask };
        (options.class_agnostic, options.box_areas) = (args.class_agnostic, args.box_areas);
        summaries.push((kind.name(), coco::evaluate(&truth, &results, &options)?));
    }
    if let Some(path) = &args.csv {
        let tables: Vec<_> = summaries.iter().map(|(kind, summary)| (*kind, summary)).collect();
        coco::write_csv(path, &tables)?;
    }
    answer(&if args.json { json(args, &summaries) } else { text(args, &summaries) })
}

fn json(args: &CocoArgs, summaries: &[(&str, Summary)]) -> String {
    let mut object = json!({
        "protocol": "coco",
        "truth": args.truth.display().to_string(),
        "results": args.results.display().to_string(),
        "class_agnostic": args.class_agnostic,
        "box_areas": args.box_areas,
    });
    for (kind, summary) in summaries {
        object[*kind] = json!(summary);
    }
    format!("{object}\n")
}

/// Returns a number of a summary.
type Score = fn(&Summary) -> Option<f64>;

const ROWS: [(&str, Score); 12] = [
    ("AP", |s| s.ap),
    ("AP50", |s| s.ap50),
    ("AP75", |s| s.ap75),
    ("AP small", |s| s.ap_small),
    ("AP medium", |s| s.ap_medium),
    ("AP large", |s| s.ap_large),
    ("AR@1", |s| s.ar_1),
    ("AR@10", |s| s.ar_10),
    ("AR@100", |s| s.ar_100),
    ("AR small", |s| s.ar_small),
    ("AR medium", |s| s.ar_medium),
    ("AR large", |s| s.ar_large),
];

fn text(args: &CocoArgs, summaries: &[(&str, Summary)]) -> String {
    let mut text = String::new();
    if let Some((_, summary)) = summaries.first() {
        let of = match args.class_agnostic {
            true => " of any class".to_owned(),
            false => format!(" of {}", counted(summary.categories.len(), "class", "classes")),
        };
        let _ = writeln!(
            text,
            "{} with {}{of}; {}, none in {}",
            counted(summary.images, "image", "images"),
            counted(summary.instances, "instance", "instances"),
            counted(summary.detections, "detection", "detections"),
            counted(summary.images_without_detections, "image", "images"),
        );
    }
    let _ = write!(text, "{:10}", "");
    summaries.iter().for_each(|(kind, _)| {
        let _ = write!(text, "{kind:>9}");
    });
    for (name, score) in ROWS {
        let _ = write!(text, "\n{name:10}");
        for (_, summary) in summaries {
            let _ = write!(text, "{:>9}", percent(score(summary)));
        }
    }
    text + "\n"
}
