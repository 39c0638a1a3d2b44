//! `simdino analyze gradient-scale`: Theorem 3.1, measured.

use std::fmt::Write;
use std::path::PathBuf;

use eval::unit_rows;
use objectives::gradient_scale::{GradientScale, gamma_code, gamma_theorem};
use serde_json::json;
use tch::Tensor;

use super::arguments::{EPS, parse_eps, parse_size};
use super::features::{Made, read};
use super::figure;
use crate::console::answer;
use crate::failure::{Failure, Result};
use report::chart::{Chart, Series};

/// What `gradient-scale` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Numbers of rows
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "64,512", value_parser = parse_size)]
    n: Vec<usize>,
    /// Widths; saved features have their own
    #[arg(long, value_name = "D,..", value_delimiter = ',', default_value = "64,256,768", value_parser = parse_size)]
    d: Vec<usize>,
    /// The paper's eps; the published code's 0.05 is its square, 0.2236
    #[arg(long, value_name = "EPS,..", value_delimiter = ',', default_value = "0.2236,0.7071", value_parser = parse_eps)]
    eps: Vec<f64>,
    /// Saved features (.npy, .safetensors, .csv) beside the made-up ones; their first N rows, made unit
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

/// A line of the table.
struct Row {
    features: String,
    scale: GradientScale,
}

/// Runs the verb.
///
/// # Errors
/// The features cannot be read or are too few, or the figure cannot be written.
pub fn run(args: &Args) -> Result<()> {
    figure::check_name(args.plot.as_ref())?;
    let mut rows = made(args)?;
    for path in &args.features {
        let features = unit_rows(&read(path)?);
        rows.extend(saved(args, &path.display().to_string(), &features)?);
    }
    if let Some(path) = &args.plot {
        figure::write(&charts(args)?, path)?;
    }
    if args.json {
        let rows: Vec<_> = rows.iter().map(Row::json).collect();
        return answer(&format!("{}\n", json!(rows)));
    }
    answer(&table(&rows))?;
    match &args.plot {
        Some(path) => answer(&format!("figure in {}\n", path.display())),
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

/// The numbers of rows asked for; all rows of the file where it has fewer.
fn saved(args: &Args, name: &str, features: &Tensor) -> Result<Vec<Row>> {
    let there = features.size()[0] as usize;
    let mut counts: Vec<usize> = args.n.iter().map(|&n| n.min(there)).collect();
    counts.dedup();
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
    /// The gradient's norm times each weight: as in the code, as from the theorem.
    fn weighted(&self) -> (f64, f64) {
        let GradientScale { n, d, eps, norm, .. } = self.scale;
        (gamma_code(n, d) * norm, gamma_theorem(eps, n, d) * norm)
    }

    fn json(&self) -> serde_json::Value {
        let s = &self.scale;
        let (code, theorem) = self.weighted();
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
        let (code, theorem) = row.weighted();
        let _ = writeln!(
            text,
            "{:>5} {:>5} {:>7.4}  {:<12} {:>9.3} {:>8.3} {:>9.3} {:>10.4} {:>9.4} {:>5.1} % {code:>10.4} {theorem:>13.4}",
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
    text + "The last two columns are the gradient's norm times each weight; the theorem's is at most 0.5.\n"
}

/// The study as three charts: the bound, and what two weights make of the gradient, over n and d.
fn charts(args: &Args) -> Result<Vec<Chart>> {
    let eps = args.eps.first().copied().unwrap_or(EPS);
    let (ns, ds): (Vec<usize>, Vec<usize>) =
        ((3..=12).map(|i| 1 << i).collect(), (4..=10).map(|i| 1 << i).collect());
    let (n, d) = (512, 256);
    let measure = |kind: Made, n: usize, d: usize| -> Result<Row> {
        let scale =
            GradientScale::measure(&kind.rows(n, d, args.seed), eps).map_err(Failure::from)?;
        Ok(Row { features: kind.name().into(), scale })
    };
    let mut shares = Vec::new();
    for kind in Made::ALL {
        let mut points = Vec::new();
        for &n in &ns {
            let row = measure(kind, n, d)?;
            points.push(((n as f64).log2(), row.scale.norm / row.scale.bound));
        }
        shares.push(Series { name: kind.name().into(), points });
    }
    let weighted = |sizes: &[usize], at: &dyn Fn(usize) -> (usize, usize)| -> Result<Vec<Series>> {
        let (mut code, mut theorem) = (Vec::new(), Vec::new());
        for &size in sizes {
            let (n, d) = at(size);
            let (by_code, by_theorem) = measure(Made::Random, n, d)?.weighted();
            code.push(((size as f64).log2(), by_code));
            theorem.push(((size as f64).log2(), by_theorem));
        }
        let series = |name: &str, points| Series { name: name.into(), points };
        Ok(vec![series("gamma: code", code), series("gamma: theorem", theorem)])
    };
    let chart = |title: &str, note: String, x_label: &str, series| Chart {
        title: title.into(),
        note,
        x_label: x_label.into(),
        x_is_log2: true,
        from_zero: true,
        series,
        ..Chart::default()
    };
    let at = |what: &str| format!("random unit rows, {what}, eps {eps}");
    Ok(vec![
        Chart {
            guides: vec![("bound", 1.0)].into_iter().map(|(s, y)| (s.to_owned(), y)).collect(),
            ..chart("Gradient norm over its bound", format!("d = {d}, eps {eps}"), "rows n", shares)
        },
        chart(
            "Weighted gradient norm over n",
            at("d = 256"),
            "rows n",
            weighted(&ns, &|n| (n, d))?,
        ),
        chart(
            "Weighted gradient norm over d",
            at("n = 512"),
            "width d",
            weighted(&ds, &|d| (n, d))?,
        ),
    ])
}
