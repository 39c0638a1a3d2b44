//! The numbers of a step: `eps`, the weights of both terms, and what follows from the size of
//! batch, groups and width.

use std::f64::consts::PI;

use crate::config::{EpsSemantics, Gamma, SimDinoConfig};
use crate::gradient_scale::{gamma_code, gamma_theorem, rate_ceiling, rate_floor, spread_over};
use crate::inputs::StepContext;
use crate::{Error, Result};

/// Sizes that the weights depend on.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Images in a step of the whole run.
    pub global_batch: usize,
    /// Rows of a rate group.
    pub rows: usize,
    /// Width of a feature.
    pub width: usize,
}

/// Numbers of one step.
#[derive(Debug, Clone, Copy)]
pub struct Weights {
    /// `eps` of this step, as configured.
    pub eps: f64,
    /// Weight of the similarity.
    pub coeff: f64,
    /// Weight of the coding rate; with `gamma: balanced` that of the first step.
    pub gamma: f64,
    /// Factor of the covariance.
    pub alpha: f64,
}

impl Weights {
    /// Those of a step.
    ///
    /// # Errors
    /// A share of the training that is not between 0 and 1; a ceiling of 0, which no weight raises.
    pub fn at(config: &SimDinoConfig, context: StepContext, sizes: Sizes) -> Result<Self> {
        let progress = context.progress;
        if !(0.0..=1.0).contains(&progress) {
            let expected = "between 0 and 1";
            return Err(Error::Number { what: "progress", expected, got: progress });
        }
        let eps = cosine(config.eps, config.eps_end, progress);
        let coeff = cosine(config.coeff, config.coeff_end, progress);
        // Squared, as it enters the rate, and as the paper's formulas name it.
        let (eps_squared, eps_paper) = match config.eps_semantics {
            EpsSemantics::Code => (eps, eps.sqrt()),
            EpsSemantics::Paper => (eps * eps, eps),
        };
        let (n, d) = (sizes.global_batch, sizes.width);
        let alpha = d as f64 / (n as f64 * eps_squared);
        let gamma = match config.gamma {
            Gamma::Code => gamma_code(n, d),
            Gamma::Theorem => gamma_theorem(eps_paper, n, d),
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

/// Coding rate of unit rows at collapse and at its best. Subtracting the mean leaves nothing of
/// equal rows, and one direction less to spread over.
pub fn range(alpha: f64, sizes: Sizes, centered: bool) -> (f64, f64) {
    let Sizes { rows, width, .. } = sizes;
    if !centered {
        return (rate_floor(alpha, rows), rate_ceiling(alpha, rows, width));
    }
    (0.0, spread_over(width.min(rows - 1), alpha, rows))
}

/// From `start` to `end` on half a cosine.
fn cosine(start: f64, end: Option<f64>, progress: f64) -> f64 {
    let end = end.unwrap_or(start);
    end + 0.5 * (start - end) * (1.0 + (PI * progress).cos())
}
