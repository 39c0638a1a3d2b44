//! The option `--precision` of commands that compute features.

use std::fmt;

use clap::ValueEnum;
use eval::FeaturePrecision;

/// Precision of a network whose features are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// Single precision
    Fp32,
    /// Matrix products in bf16
    Bf16,
}

impl From<Precision> for FeaturePrecision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::Fp32 => Self::Fp32,
            Precision::Bf16 => Self::Bf16,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Bf16 => "bf16",
        })
    }
}
