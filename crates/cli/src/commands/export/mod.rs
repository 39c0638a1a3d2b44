//! `simdino export`: exports a backbone as a folder that timm, transformers, or DINOv2's own code
//! can open.

mod card;

use std::path::PathBuf;

use clap::ValueEnum;
use model::weights::{
    Backbone, ImportPolicy, Layout, LoadOptions, Role, export, loading_lines, verify,
};
use model::{ModelConfig, PosInterpolation};
use tch::Device;

use crate::console::answer;
use crate::failure::{Context, Failure, Result};
use crate::weights::say_assumed;

/// Arguments of `simdino export`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A run, a checkpoint, or a weight file of any kind that `simdino import` reads
    weights: PathBuf,
    /// Library whose file and tensor names are used
    #[arg(long, value_enum)]
    to: To,
    /// Folder to write
    #[arg(short, long)]
    out: PathBuf,
    /// The student instead of the teacher
    #[arg(long)]
    student: bool,
    /// Prefix of the keys of the network, if the file contains several
    #[arg(long, conflicts_with = "student")]
    prefix: Option<String>,
    /// Read the folder back, compare, and print the Python code that opens it
    #[arg(long)]
    check: bool,
}

/// The layouts, by their names on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum To {
    /// DINOv2's own code (and DINO's, for networks without its additions)
    Dinov2,
    /// timm
    Timm,
    /// Hugging Face transformers
    Hf,
}

impl To {
    fn layout(self) -> Layout {
        match self {
            Self::Dinov2 => Layout::Dinov2,
            Self::Timm => Layout::Timm,
            Self::Hf => Layout::HuggingFace,
        }
    }

    /// Returns the library's own spelling of its name.
    fn title(self) -> &'static str {
        match self {
            Self::Dinov2 => "DINOv2",
            Self::Timm => "timm",
            Self::Hf => "transformers",
        }
    }
}

/// Returns a warning if the library interpolates the positional embedding differently: with the
/// same tensors, its outputs then differ for images of other sizes. Empty if they do not.
fn other_positions(model: &ModelConfig, theirs: PosInterpolation, layout: Layout) -> String {
    let ours = model.pos_interpolation;
    if theirs == ours {
        return String::new();
    }
    let form = |form: PosInterpolation| match form {
        PosInterpolation::Offset => "offset",
        PosInterpolation::Size => "size",
        PosInterpolation::Antialias => "antialias",
    };
    format!(
        ", but the outputs match only for images of {side}x{side} pixels: for other sizes, {} \
         interpolates the positional embedding by '{}', and this network by '{}'",
        layout.name(),
        form(theirs),
        form(ours),
        side = model.image_size,
    )
}

/// Runs the command.
///
/// # Errors
/// Returns an error if the weights cannot be read, the library does not support the network, the
/// folder cannot be written, or it does not read back as written.
pub fn run(args: &Args) -> Result<()> {
    let role = if args.student { Role::Student } else { Role::Teacher };
    let policy = ImportPolicy { role, prefix: args.prefix.clone(), ..Default::default() };
    let options = LoadOptions { policy, ..LoadOptions::default() };
    let weights = simdino::weights::open(&args.weights, &options, Device::Cpu)?;
    say_assumed(&weights);
    let tensors = weights.tensors();
    let (model, normalize) = (&weights.model, weights.normalize.clone());
    let backbone = Backbone { tensors: &tensors, model, normalize };
    let layout = args.to.layout();
    export(&args.out, &backbone, layout)?;
    let lines = loading_lines(&args.out, layout);
    let card = card::write(&args.weights, &weights, role, &lines);
    let path = args.out.join("README.md");
    std::fs::write(&path, card).context(|| format!("{}: cannot write the file", path.display()))?;
    let mut text = format!(
        "{}: wrote {} tensors for {}\n",
        args.out.display(),
        tensors.len(),
        args.to.title()
    );
    if args.check {
        let back = verify(&args.out, &backbone)?;
        if back.difference > 0.0 {
            return Err(Failure::failed(format!(
                "{}: the tensors that were read back differ by up to {:e}",
                args.out.display(),
                back.difference
            )));
        }
        text.push_str("read back without any difference");
        text.push_str(&other_positions(model, back.pos_interpolation, layout));
        text.push_str("; to load it in Python:\n");
        text.push_str(&lines.map(|line| format!("    {line}\n")).concat());
    }
    answer(&text)
}
