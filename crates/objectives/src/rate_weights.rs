//! The values of a step: `eps`, the weights of both terms, and the quantities that follow from
//! batch size, groups, and width.

use std::f64::consts::PI;

use crate::config::{EpsSemantics, Gamma, SimDinoConfig};
use crate::gradient_scale::{gamma_code, gamma_theorem, rate_ceiling, rate_floor, spread_over};
use crate::inputs::StepContext;
use crate::{Error, Result};

/// The sizes on which the weights depend.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// `n` of the formulas: images per step of the whole run, or, with `group_rows`, of a group.
    pub batch_size: usize,
    /// Rows per rate group.
    pub rows: usize,
    /// Width of a feature.
    pub width: usize,
}

impl Sizes {
    /// Returns `d m / (n r)` for groups of `m` rows and `r = min(m, d)` directions. If `eps` is
    /// multiplied by it, `alpha` is `r / (m eps)`, and evenly spread features have `1 / eps` times
    /// the variance of the noise in each direction.
    fn dilution(self) -> f64 {
        let Self { batch_size, rows, width } = self;
        (width * rows) as f64 / (batch_size * rows.min(width)) as f64
    }
}

/// The values for one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weights {
    /// `eps` of this step, as configured.
    pub eps: f64,
    /// Weight of the similarity.
    pub coeff: f64,
    /// Weight of the coding rate; with `gamma: balanced`, that of the first step.
    pub gamma: f64,
    /// Factor of the covariance.
    pub alpha: f64,
}

impl Weights {
    /// Computes the values for a step.
    ///
    /// # Errors
    /// Returns an error if the fraction of the training is not between 0 and 1, or if `gamma` is
    /// determined by the ceiling and the ceiling is 0.
    pub(crate) fn at(config: &SimDinoConfig, context: StepContext, sizes: Sizes) -> Result<Self> {
        let progress = context.progress;
        if !(0.0..=1.0).contains(&progress) {
            let expected = "between 0 and 1";
            return Err(Error::Number { what: "progress", expected, got: progress });
        }
        let eps = cosine(config.eps, config.eps_end, progress);
        let coeff = cosine(config.coeff, config.coeff_end, progress);
        let (n, d) = (sizes.batch_size, sizes.width);
        // `eps` is squared in the rate, as in the formulas of the paper.
        let eps_squared = match config.eps_semantics {
            EpsSemantics::Code => eps,
            EpsSemantics::Paper => eps * eps,
            EpsSemantics::Relative => eps * sizes.dilution(),
        };
        let alpha = d as f64 / (n as f64 * eps_squared);
        let gamma = match config.gamma {
            Gamma::Code => gamma_code(n, d),
            Gamma::Theorem => gamma_theorem(eps_squared.sqrt(), n, d),
            Gamma::Constant(gamma) => gamma,
            Gamma::Ceiling | Gamma::Balanced => {
                let (_, ceiling) = range(alpha, sizes, config.center_cov);
                if ceiling <= 0.0 {
                    let (what, expected) = ("the coding rate's ceiling", "greater than 0");
                    return Err(Error::Number { what, expected, got: ceiling });
                }
                config.gamma_ceiling / ceiling
            }
        };
        Ok(Self { eps, coeff, gamma, alpha })
    }
}

/// Returns the coding rate of unit rows at collapse and at its maximum. Subtracting the mean leaves
/// nothing of equal rows, and one direction fewer to spread over.
pub(crate) fn range(alpha: f64, sizes: Sizes, centered: bool) -> (f64, f64) {
    let Sizes { rows, width, .. } = sizes;
    if !centered {
        return (rate_floor(alpha, rows), rate_ceiling(alpha, rows, width));
    }
    (0.0, spread_over(width.min(rows - 1), alpha, rows))
}

/// Interpolates from `start` to `end` along half a cosine.
fn cosine(start: f64, end: Option<f64>, progress: f64) -> f64 {
    let end = end.unwrap_or(start);
    end + 0.5 * (start - end) * (1.0 + (PI * progress).cos())
}
