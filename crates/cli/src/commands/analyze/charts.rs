//! Charts of the gradient of the coding rate: its norm relative to the bound, and multiplied by
//! either form of gamma.

use objectives::gradient_scale::{GradientScale, gamma_code, gamma_theorem};
use report::chart::{Chart, Series};

use super::features::Made;
use crate::failure::Result;

/// Number of rows and width, each while the other is varied.
const FIXED: (usize, usize) = (512, 256);

/// Returns the norm of the gradient times gamma, for gamma as in the published code and as in the
/// theorem.
pub(super) fn weighted(scale: &GradientScale) -> (f64, f64) {
    let GradientScale { n, d, eps, norm, .. } = *scale;
    (gamma_code(n, d) * norm, gamma_theorem(eps, n, d) * norm)
}

/// Draws three charts over the number of rows `n` and the width `d`, at one `eps`.
pub(super) fn charts(eps: f64, seed: i64) -> Result<Vec<Chart>> {
    let ns: Vec<usize> = (3..=12).map(|i| 1 << i).collect();
    let ds: Vec<usize> = (4..=10).map(|i| 1 << i).collect();
    let study = Study { eps, seed };
    let (n, d) = FIXED;
    let of_bound = study.shares_of_bound(&ns, d)?;
    let over_n = study.weighted(ns.iter().map(|&n| (n, (n, d))))?;
    let over_d = study.weighted(ds.iter().map(|&d| (d, (n, d))))?;
    let at = |what: &str| format!("random unit rows, {what}, eps {eps}");
    Ok(vec![
        Chart {
            guides: vec![("bound".to_owned(), 1.0)],
            ..chart(
                "Gradient norm relative to its bound",
                format!("d = {d}, eps {eps}"),
                "rows n",
                of_bound,
            )
        },
        chart("Weighted gradient norm vs. n", at(&format!("d = {d}")), "rows n", over_n),
        chart("Weighted gradient norm vs. d", at(&format!("n = {n}")), "width d", over_d),
    ])
}

fn chart(title: &str, note: String, x_label: &str, series: Vec<Series>) -> Chart {
    Chart {
        title: title.into(),
        note,
        x_label: x_label.into(),
        x_is_log2: true,
        from_zero: true,
        series,
        ..Chart::default()
    }
}

struct Study {
    eps: f64,
    seed: i64,
}

impl Study {
    fn measure(&self, kind: Made, n: usize, d: usize) -> Result<GradientScale> {
        Ok(GradientScale::measure(&kind.rows(n, d, self.seed), self.eps)?)
    }

    /// Returns a line for each kind of features: the norm of the gradient over its bound.
    fn shares_of_bound(&self, ns: &[usize], d: usize) -> Result<Vec<Series>> {
        let mut shares = Vec::new();
        for kind in Made::ALL {
            let mut points = Vec::new();
            for &n in ns {
                let scale = self.measure(kind, n, d)?;
                points.push(((n as f64).log2(), scale.norm / scale.bound));
            }
            shares.push(Series { name: kind.name().into(), points, ..Series::default() });
        }
        Ok(shares)
    }

    /// Returns a line for each form of gamma: the weighted norm of the gradient at random rows.
    /// `sizes` yields a value of the axis with its `(n, d)`.
    fn weighted(
        &self,
        sizes: impl Iterator<Item = (usize, (usize, usize))>,
    ) -> Result<Vec<Series>> {
        let (mut code, mut theorem) = (Vec::new(), Vec::new());
        for (size, (n, d)) in sizes {
            let (by_code, by_theorem) = weighted(&self.measure(Made::Random, n, d)?);
            code.push(((size as f64).log2(), by_code));
            theorem.push(((size as f64).log2(), by_theorem));
        }
        let series = |name: &str, points| Series { name: name.into(), points, ..Series::default() };
        Ok(vec![series("gamma: code", code), series("gamma: theorem", theorem)])
    }
}
