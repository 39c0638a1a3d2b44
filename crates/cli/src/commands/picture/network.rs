//! `simdino picture pca` and `simdino picture attention`: draw what backbones see in images.

use std::path::PathBuf;

use base::counted;
use clap::ValueEnum;
use eval::pictures::{
    AttentionOptions, AttentionView, PatchExtractor, PatchKeys, PcaOptions, PcaView, Row,
    attention_rows, pca_rows,
};

use super::networks::{Images, Networks, SheetImages, Subject};
use super::out::{png, save_sheet};
use crate::console::{answer, note};
use crate::failure::{Failure, Result};

/// Arguments of `simdino picture pca`.
#[derive(Debug, clap::Args)]
pub struct PcaArgs {
    #[command(flatten)]
    images: Images,
    #[command(flatten)]
    networks: Networks,
    /// PNG file to write
    #[arg(short, long, default_value = "pca.png")]
    out: PathBuf,
    /// Features of patches
    #[arg(long, value_enum, value_delimiter = ',', default_value = "tokens")]
    of: Vec<Features>,
    /// Rows of each network
    #[arg(long, value_enum, value_delimiter = ',', default_value = "all,foreground")]
    show: Vec<Patches>,
    /// Where the first component over all images starts to count as foreground, 0 to 1 over its
    /// range; by default, the foreground of each image is found separately
    #[arg(long)]
    threshold: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Features {
    /// Patch tokens after the final norm
    Tokens,
    /// Keys of the last block's attention
    Keys,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Patches {
    /// All patches
    All,
    /// The foreground, on black
    Foreground,
}

/// Arguments of `simdino picture attention`.
#[derive(Debug, clap::Args)]
pub struct AttentionArgs {
    #[command(flatten)]
    images: Images,
    #[command(flatten)]
    networks: Networks,
    /// PNG file to write
    #[arg(short, long, default_value = "attention.png")]
    out: PathBuf,
    /// Rows of each network
    #[arg(long, value_enum, value_delimiter = ',', default_value = "mean,mass")]
    show: Vec<Attention>,
    /// Share of the attention that `mass` keeps bright
    #[arg(long, default_value_t = 0.6)]
    mass: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Attention {
    /// The mean over heads
    Mean,
    /// The images, bright only where most of the mean attention lies
    Mass,
    /// Each head
    Heads,
}

/// Draws the principal components of patch features.
///
/// # Errors
/// Returns an error if weights or images cannot be read or the picture cannot be written.
pub fn pca(args: &PcaArgs) -> Result<()> {
    png(&args.out)?;
    if let Some(got) = args.threshold.filter(|threshold| !(0.0..1.0).contains(threshold)) {
        let sentence = format!("--threshold: must be at least 0 and below 1 (got {got})");
        return Err(Failure::usage(sentence));
    }
    sheet(&args.images, &args.networks, &args.out, &mut |subject, seen| {
        let mut options = PcaOptions::new(subject.weights.normalize.clone());
        (options.device, options.threshold) = (subject.device, args.threshold);
        options.views = args.show.iter().map(|&view| view.into()).collect();
        let mut rows = Vec::new();
        for features in &args.of {
            let keys = PatchKeys(subject.backbone);
            let (extractor, name): (&dyn PatchExtractor, _) = match features {
                Features::Tokens => (subject.backbone, String::new()),
                Features::Keys => (&keys, ", keys".to_owned()),
            };
            let label = format!("{}{name}", subject.label);
            let drawn = pca_rows(&seen.scene(), &label, extractor, &options)?;
            if !drawn.whole.is_empty() {
                let names: Vec<String> = drawn.whole.iter().map(|&i| seen.name(i)).collect();
                note(&format!(
                    "{label}: no foreground found, so these images are shown whole: {}",
                    names.join(", ")
                ));
            }
            rows.extend(drawn.rows);
        }
        Ok(rows)
    })
}

impl From<Patches> for PcaView {
    fn from(view: Patches) -> Self {
        match view {
            Patches::All => Self::All,
            Patches::Foreground => Self::Foreground,
        }
    }
}

/// Draws the attention of the class token.
///
/// # Errors
/// Same as for [`pca`].
pub fn attention(args: &AttentionArgs) -> Result<()> {
    png(&args.out)?;
    let mass = args.mass;
    if !(mass > 0.0 && mass <= 1.0) {
        let sentence = format!("--mass: must be greater than 0 and at most 1 (got {mass})");
        return Err(Failure::usage(sentence));
    }
    sheet(&args.images, &args.networks, &args.out, &mut |subject, seen| {
        let mut options = AttentionOptions::new(subject.weights.normalize.clone());
        (options.device, options.mass) = (subject.device, args.mass);
        options.views = args.show.iter().map(|&view| view.into()).collect();
        Ok(attention_rows(&seen.scene(), &subject.label, subject.backbone, &options)?)
    })
}

impl From<Attention> for AttentionView {
    fn from(view: Attention) -> Self {
        match view {
            Attention::Mean => Self::Mean,
            Attention::Mass => Self::Mass,
            Attention::Heads => Self::Heads,
        }
    }
}

/// Draws the images, and below them the rows of each network.
fn sheet(
    images: &Images,
    networks: &Networks,
    out: &std::path::Path,
    draw: &mut dyn FnMut(&Subject<'_>, &SheetImages) -> Result<Vec<Row>>,
) -> Result<()> {
    let (mut rows, mut words) = (Vec::new(), Vec::new());
    networks.each(&mut |subject| {
        let seen = images.open(subject)?;
        if rows.is_empty() {
            rows.push(seen.scene().row()?);
        }
        rows.extend(draw(subject, &seen)?);
        words.push(format!("{} at {} pixels", subject.label, seen.side));
        if words.len() == 1 {
            words.insert(0, counted(seen.len(), "image", "images"));
        }
        Ok(())
    })?;
    save_sheet(&rows, out)?;
    answer(&format!("{}: {}\n", out.display(), words.join("; ")))
}
