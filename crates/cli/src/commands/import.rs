//! `simdino import`: converts weights of other programs to simdino's format, and accounts for every
//! tensor.

use std::fmt::Write;
use std::path::PathBuf;

use base::counted;
use model::weights::{ImportPolicy, ImportReport, LoadOptions, PretrainedBackbone, Role};
use serde_json::json;
use tch::Device;

use crate::console::answer;
use crate::failure::{Context, Failure, Result};
use crate::out::folder_for;

/// A note on weights of SimDINOv2 whose config sets `qknorm`.
const QK_NORM: &str = "model.qk_norm is true: SimDINOv2's code skips this norm where xformers \
                       computes attention; import weights that were trained that way without it\n";

/// Arguments of `simdino import`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A .pth or safetensors file of DINO, DINOv2, SimDINO, timm or Hugging Face, or a folder of
    /// one
    file: PathBuf,
    /// safetensors file to write; absent: only the report
    #[arg(short, long)]
    out: Option<PathBuf>,
    /// Values that the tensors do not determine: model.pos_interpolation=size, model.num_heads=8,
    /// model.norm_eps=1e-5, model.qk_norm=true, model.layer_scale=1
    #[arg(value_name = "KEY=VALUE")]
    model: Vec<String>,
    /// The student of a training checkpoint instead of the teacher
    #[arg(long)]
    student: bool,
    /// Prefix of the keys of the network, if the file contains several
    #[arg(long, conflicts_with = "student")]
    prefix: Option<String>,
    /// Minimum fraction of the backbone's tensors that must be found; the others stay random
    #[arg(long, default_value_t = 1.0)]
    min_matched: f64,
    /// Ignore tensors of the network that simdino does not compute with, which changes its features
    #[arg(long)]
    ignore_unused: bool,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Returns an error if the file cannot be read, contains too little of a vision transformer, or the
/// result cannot be written.
pub fn run(args: &Args) -> Result<()> {
    if !(0.0..=1.0).contains(&args.min_matched) {
        let got = args.min_matched;
        return Err(Failure::usage(format!("--min-matched: must be between 0 and 1 (got {got})")));
    }
    let role = if args.student { Role::Student } else { Role::Teacher };
    let policy = ImportPolicy {
        role,
        prefix: args.prefix.clone(),
        min_matched: args.min_matched,
        ignore_unused: args.ignore_unused,
        ..ImportPolicy::default()
    };
    let options = LoadOptions { policy, model: args.model.clone() };
    let weights = simdino::weights::open(&args.file, &options, Device::Cpu)?;
    if let Some(out) = &args.out {
        folder_for(out).context(|| format!("cannot write {}", out.display()))?;
        weights.save(out, role)?;
    }
    if args.json {
        answer(&format!("{}\n", as_json(&weights)))
    } else {
        answer(&text(args, &weights))
    }
}

fn text(args: &Args, weights: &PretrainedBackbone) -> String {
    let mut text = format!("{}\n", weights.report);
    let model = &weights.model;
    let _ = writeln!(
        text,
        "{}, patch size {}, image size {}, {}, {}",
        name(model.arch),
        model.patch_size,
        model.image_size,
        counted(model.in_channels, "channel", "channels"),
        counted(model.num_register_tokens, "register token", "register tokens")
    );
    list(&mut text, &weights.report);
    for assumption in &weights.assumed {
        let _ = writeln!(text, "assumed, because no file specifies it: {assumption}");
    }
    if model.qk_norm {
        text.push_str(QK_NORM);
    }
    if weights.head.is_some() {
        text.push_str(
            "the file also contains a projection head; training with init.head=true loads it\n",
        );
    }
    if let Some(out) = &args.out {
        let _ = writeln!(text, "written to {}", out.display());
    }
    text
}

/// Lists every tensor that was not loaded unchanged, one per line.
fn list(text: &mut String, report: &ImportReport) {
    for resized in &report.resized {
        let (name, from, to) = (&resized.name, &resized.from, &resized.to);
        let _ = writeln!(text, "  resized     {name} from {from:?} to {to:?}");
    }
    for other in &report.other_shape {
        let (name, got, here) = (&other.name, &other.in_file, &other.here);
        let _ = writeln!(
            text,
            "  other shape {name} is {got:?} in the file and {here:?} in the network"
        );
    }
    for name in &report.missing {
        let _ = writeln!(text, "  missing     {name}");
    }
    for name in &report.unexpected {
        let _ = writeln!(text, "  unexpected  {name}");
    }
    for name in &report.zero {
        let _ = writeln!(text, "  0           {name}, which the network in the file does not have");
    }
    for name in &report.behind {
        let _ = writeln!(text, "  left out    {name}, which does not affect the features");
    }
}

fn as_json(weights: &PretrainedBackbone) -> serde_json::Value {
    let report = &weights.report;
    let resized =
        report.resized.iter().map(|r| json!({"name": r.name, "from": r.from, "to": r.to}));
    json!({
        "file": report.path,
        "style": report.style.name(),
        "prefix": report.prefix,
        "backbone": {"found": report.backbone.0, "total": report.backbone.1},
        "matched": report.matched,
        "resized": resized.collect::<Vec<_>>(),
        "missing": report.missing,
        "unexpected": report.unexpected,
        "zero": report.zero,
        "left_out": report.behind,
        "other_shape": report.other_shape.iter().map(|o| &o.name).collect::<Vec<_>>(),
        "model": weights.model,
        "head": weights.head,
        "assumed": weights.assumed,
    })
}

/// Returns the name of an enum value in a config.
pub fn name(value: impl serde::Serialize) -> String {
    serde_json::to_value(value)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}
