//! `simdino analyze coding-rate`: measures how far saved features spread.

use std::fmt::Write;
use std::path::PathBuf;

use eval::spectrum::{directions, spectrum};
use eval::{read_features, unit_rows};
use objectives::gradient_scale::GradientScale;
use objectives::health::effective_rank;
use serde_json::json;
use tch::{Kind, Tensor};

use super::arguments::{EPS, parse_eps};
use super::figure;
use crate::console::answer;
use crate::failure::Result;
use report::chart::{Chart, Series};
use report::percent;

/// Arguments of `simdino analyze coding-rate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Saved features, one row per image: .npy, .safetensors or .csv, as `simdino embed` writes
    /// them
    features: PathBuf,
    /// The paper's eps; the published runs have 0.2236, whose square is the 0.05 of their code
    #[arg(long, default_value_t = EPS, value_parser = parse_eps)]
    eps: f64,
    /// Do not normalize rows; the floor and the ceiling remain those of unit rows
    #[arg(long)]
    raw: bool,
    /// Subtract the mean row first
    #[arg(long)]
    center: bool,
    /// Figure of the spectrum to write (.svg)
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Returns an error if the features cannot be read or the figure cannot be written.
pub fn run(args: &Args) -> Result<()> {
    figure::check_name(args.plot.as_ref())?;
    let mut z = read_features(&args.features)?;
    if !args.raw {
        z = unit_rows(&z);
    }
    if args.center {
        z = &z - z.mean_dim(0, true, Kind::Double);
    }
    let scale = GradientScale::measure(&z, args.eps)?;
    let spectrum = spectrum(&z)?;
    let rank = effective_rank(&Tensor::from_slice(&spectrum))?;
    if let Some(path) = &args.plot {
        figure::write(&[chart(&spectrum)], path)?;
    }
    if args.json {
        return answer(&format!("{}\n", json(&scale, rank, &spectrum)));
    }
    answer(&text(args, &scale, rank, &spectrum))
}

/// Returns the position of the rate between the floor (0) and the ceiling (1) of unit rows; `None`
/// if the two are equal, as for a single row.
fn position(scale: &GradientScale) -> Option<f64> {
    let range = scale.ceiling - scale.floor;
    (range > 1e-9 * scale.ceiling).then(|| (scale.rate - scale.floor) / range)
}

fn json(scale: &GradientScale, rank: f64, spectrum: &[f64]) -> serde_json::Value {
    json!({
        "n": scale.n, "d": scale.d, "eps": scale.eps,
        "rate": scale.rate, "floor": scale.floor, "ceiling": scale.ceiling,
        "position": position(scale),
        "gradient_norm": scale.norm, "bound": scale.bound,
        "effective_rank": rank, "spectrum": spectrum,
    })
}

fn text(args: &Args, scale: &GradientScale, rank: f64, spectrum: &[f64]) -> String {
    let GradientScale { n, d, eps, rate, floor, ceiling, norm, bound } = *scale;
    let rows = if args.raw { "rows as given" } else { "unit rows" };
    let centered = if args.center { ", centered" } else { "" };
    let share = position(scale).map(|at| format!(", position {}", percent(at, 1)));
    let share = share.unwrap_or_default();
    let mut text = format!(
        "{}: {n} x {d}, {rows}{centered}, eps {eps:.4}\n\
         coding rate     {rate:.3} nats; floor {floor:.3} (all rows equal), ceiling {ceiling:.3} \
         (rows spread evenly){share}\n\
         gradient        norm {norm:.4}, bound {bound:.4} (Theorem 3.1)\n\
         effective rank  {rank:.1} of {}\n",
        args.features.display(),
        n.min(d),
    );
    let _ = writeln!(
        text,
        "spectrum        directions that hold 50%, 90%, and 99% of the energy: {}, {}, {}",
        directions(spectrum, 0.5),
        directions(spectrum, 0.9),
        directions(spectrum, 0.99)
    );
    for (i, share) in spectrum.iter().take(10).enumerate() {
        let bar = "#".repeat((share * 60.0).round() as usize);
        let _ = writeln!(text, "  {:>3} {:>6.2}% {bar}", i + 1, 100.0 * share);
    }
    if let Some(path) = &args.plot {
        let _ = writeln!(text, "figure written to {}", path.display());
    }
    text
}

fn chart(spectrum: &[f64]) -> Chart {
    let log = |share: f64| if share > 0.0 { share.log10() } else { f64::NAN };
    let points = |of: &dyn Fn(f64) -> f64| {
        let numbered = spectrum.iter().enumerate();
        numbered.map(|(i, &share)| ((i + 1) as f64, of(share))).collect()
    };
    Chart {
        title: "Spectrum".into(),
        note: "log10 of the share of the energy in each direction".into(),
        x_label: "direction, strongest first".into(),
        series: vec![Series {
            name: "log10(share)".into(),
            points: points(&log),
            ..Series::default()
        }],
        ..Chart::default()
    }
}
