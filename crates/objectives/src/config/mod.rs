//! Options of the objectives. The only place where their defaults live.

mod prototypes;
mod simdino;
mod terms;
mod warmup;

pub use prototypes::{Centering, PrototypeConfig};
use serde::{Deserialize, Serialize};
pub use simdino::{EpsSemantics, ExpaSource, Gamma, LossForm, RatePrecision, SimDinoConfig};
pub use terms::TermsConfig;
pub use warmup::WarmupForm;

use crate::Result;
use crate::dino::DinoLoss;
use crate::dinov2::DinoV2Loss;
use crate::objective::Objective;
use crate::simdino::SimDinoLoss;
use crate::simdinov2::SimDinoV2Loss;

/// A wrong value: the key relative to the section it stands in, and what to do about it.
pub type Problem = (&'static str, String);

/// The objectives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Similarity of views and the coding rate.
    #[default]
    SimDino,
    /// SimDINO with masked patches.
    SimDinoV2,
    /// Cross-entropy of prototypes, centred and sharpened.
    Dino,
    /// DINO with masked patches (iBOT) and KoLeo.
    DinoV2,
}

impl Method {
    /// Its name as papers write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::SimDino => "SimDINO",
            Self::SimDinoV2 => "SimDINOv2",
            Self::Dino => "DINO",
            Self::DinoV2 => "DINOv2",
        }
    }
}

/// All options of all objectives; each method uses those of its terms.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ObjectiveConfig {
    /// Which objective.
    pub method: Method,
    /// Similarity and coding rate: SimDINO and SimDINOv2.
    pub simdino: SimDinoConfig,
    /// Prototypes, their temperatures and centres: DINO and DINOv2.
    pub prototypes: PrototypeConfig,
    /// Masked patches and KoLeo: SimDINOv2 and DINOv2.
    pub terms: TermsConfig,
}

impl ObjectiveConfig {
    /// The objective, in its first state.
    ///
    /// # Errors
    /// Values that cannot be, all at once.
    pub fn build(&self) -> Result<Box<dyn Objective>> {
        Ok(match self.method {
            Method::SimDino => Box::new(SimDinoLoss::new(&self.simdino)?),
            Method::SimDinoV2 => Box::new(SimDinoV2Loss::new(&self.simdino, &self.terms)?),
            Method::Dino => Box::new(DinoLoss::new(&self.prototypes)?),
            Method::DinoV2 => Box::new(DinoV2Loss::new(&self.prototypes, &self.terms)?),
        })
    }
}

/// Keys whose values are not finite, or below 0.
pub(crate) fn negative(values: &[(&'static str, Option<f64>)]) -> Vec<Problem> {
    let bad = |x: f64| !(x >= 0.0 && x.is_finite());
    wrong(values, bad, "must not be negative")
}

/// Keys whose values are not finite, or not above 0.
pub(crate) fn not_positive(values: &[(&'static str, Option<f64>)]) -> Vec<Problem> {
    let bad = |x: f64| !(x > 0.0 && x.is_finite());
    wrong(values, bad, "must be greater than 0")
}

fn wrong(
    values: &[(&'static str, Option<f64>)],
    bad: impl Fn(f64) -> bool,
    what: &str,
) -> Vec<Problem> {
    let present = values.iter().filter_map(|&(key, value)| Some((key, value?)));
    let bad = present.filter(|&(_, value)| bad(value));
    bad.map(|(key, value)| (key, format!("{what} (got {value})"))).collect()
}
