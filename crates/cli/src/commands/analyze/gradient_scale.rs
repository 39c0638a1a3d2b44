//! `simdino analyze gradient-scale`: measures the gradient of the coding rate against the bound of
//! Theorem 3.1.

use std::collections::HashSet;
use std::fmt::Write;
use std::path::PathBuf;

use eval::{read_features, unit_rows};
use objectives::gradient_scale::GradientScale;
use serde_json::json;
use tch::Tensor;

use super::arguments::{EPS, parse_eps, parse_size};
use super::charts::{charts, weighted};
use super::features::Made;
use super::figure;
use crate::console::answer;
use crate::failure::Result;

/// Arguments of `simdino analyze gradient-scale`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Numbers of rows
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "64,512", value_parser = parse_size)]
    n: Vec<usize>,
    /// Widths; saved features have their own
    #[arg(long, value_name = "D,..", value_delimiter = ',', default_value = "64,256,768", value_parser = parse_size)]
    d: Vec<usize>,
    /// The paper's eps; the published runs have 0.2236, whose square is the 0.05 of their code
    #[arg(long, value_name = "EPS,..", value_delimiter = ',', default_value = "0.2236,0.7071", value_parser = parse_eps)]
    eps: Vec<f64>,
    /// Saved features (.npy, .safetensors, .csv) in addition to the synthetic ones; their first N
    /// rows, normalized
    #[arg(long, value_name = "FILE")]
    features: Vec<PathBuf>,
    /// Seed of the random features
    #[arg(long, default_value_t = 0)]
    seed: i64,
    /// Figure to write (.svg): the gradient against n and d at the first eps
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// One JSON array instead of the table
    #[arg(long)]
    json: bool,
}

/// A row of the table.
struct Row {
    features: String,
    scale: GradientScale,
}

/// Runs the command.
///
/// # Errors
/// Returns an error if the features cannot be read or are too few, or if the figure cannot be
/// written.
pub fn run(args: &Args) -> Result<()> {
    figure::check_name(args.plot.as_ref())?;
    let mut rows = made(args)?;
    for path in &args.features {
        let features = unit_rows(&read_features(path)?);
        rows.extend(saved(args, &path.display().to_string(), &features)?);
    }
    if let Some(path) = &args.plot {
        figure::write(&charts(args.eps.first().copied().unwrap_or(EPS), args.seed)?, path)?;
    }
    if args.json {
        let rows: Vec<_> = rows.iter().map(Row::json).collect();
        return answer(&format!("{}\n", json!(rows)));
    }
    answer(&table(&rows))?;
    match &args.plot {
        Some(path) => answer(&format!("figure written to {}\n", path.display())),
        None => Ok(()),
    }
}

fn made(args: &Args) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for &n in &args.n {
        for &d in &args.d {
            for &eps in &args.eps {
                for kind in Made::ALL {
                    let scale = GradientScale::measure(&kind.rows(n, d, args.seed), eps)?;
                    rows.push(Row { features: kind.name().into(), scale });
                }
            }
        }
    }
    Ok(rows)
}

/// Measures saved features at the requested numbers of rows, or at all rows if there are fewer.
fn saved(args: &Args, name: &str, features: &Tensor) -> Result<Vec<Row>> {
    let there = features.size()[0] as usize;
    let mut counts: Vec<usize> = args.n.iter().map(|&n| n.min(there)).collect();
    let mut seen = HashSet::new();
    counts.retain(|count| seen.insert(*count));
    let mut rows = Vec::new();
    for n in counts {
        for &eps in &args.eps {
            let scale = GradientScale::measure(&features.narrow(0, 0, n as i64), eps)?;
            rows.push(Row { features: name.into(), scale });
        }
    }
    Ok(rows)
}

impl Row {
    fn json(&self) -> serde_json::Value {
        let s = &self.scale;
        let (code, theorem) = weighted(&self.scale);
        json!({
            "features": self.features, "n": s.n, "d": s.d, "eps": s.eps,
            "rate": s.rate, "floor": s.floor, "ceiling": s.ceiling,
            "gradient_norm": s.norm, "bound": s.bound,
            "gamma_code_times_norm": code, "gamma_theorem_times_norm": theorem,
        })
    }
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:>5} {:>5} {:>7}  {:<12} {:>9} {:>8} {:>9} {:>10} {:>9} {:>7} {:>10} {:>13}\n",
        "n",
        "d",
        "eps",
        "features",
        "rate",
        "floor",
        "ceiling",
        "|gradient|",
        "bound",
        "share",
        "gamma_code",
        "gamma_theorem"
    );
    for row in rows {
        let s = &row.scale;
        let (code, theorem) = weighted(&row.scale);
        let _ = writeln!(
            text,
            "{:>5} {:>5} {:>7.4}  {:<12} {:>9.3} {:>8.3} {:>9.3} {:>10.4} {:>9.4} {:>5.1}% {code:>10.4} {theorem:>13.4}",
            s.n,
            s.d,
            s.eps,
            row.features,
            s.rate,
            s.floor,
            s.ceiling,
            s.norm,
            s.bound,
            100.0 * s.norm / s.bound,
        );
    }
    text + "The last two columns are the gradient norm times each gamma; with that of the theorem \
         it is at most 0.5.\n"
}
