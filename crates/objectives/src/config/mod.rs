//! Options of the objectives. Their defaults are defined only here.

mod dino;
mod ibot;
mod koleo;
mod simdino;
mod warmup;

pub use dino::{Centering, DinoConfig};
pub use ibot::IbotConfig;
pub use koleo::KoleoConfig;
use serde::{Deserialize, Serialize};
pub use simdino::{
    CoeffRule, EpsSemantics, ExpaSource, Gamma, LossForm, RatePrecision, SimDinoConfig,
};
pub use warmup::WarmupForm;

/// The objectives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Pulls the views of an image together and spreads the batch with the coding rate.
    #[default]
    SimDino,
    /// SimDINO with masked patches.
    SimDinoV2,
    /// Cross-entropy of prototype scores, with centered and sharpened targets.
    Dino,
    /// DINO with masked patches (iBOT) and KoLeo.
    DinoV2,
}

impl Method {
    /// Returns its name as in the papers.
    pub fn name(self) -> &'static str {
        match self {
            Self::SimDino => "SimDINO",
            Self::SimDinoV2 => "SimDINOv2",
            Self::Dino => "DINO",
            Self::DinoV2 => "DINOv2",
        }
    }
}

/// All options of all objectives; each method uses those of its own terms.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ObjectiveConfig {
    /// Which objective.
    pub method: Method,
    /// Similarity and coding rate: SimDINO and SimDINOv2.
    pub simdino: SimDinoConfig,
    /// Prototypes, their temperatures and centers: DINO and DINOv2.
    pub dino: DinoConfig,
    /// Masked patches: SimDINOv2 and DINOv2.
    pub ibot: IbotConfig,
    /// Neighbors that are pushed apart: SimDINOv2 and DINOv2.
    pub koleo: KoleoConfig,
}
