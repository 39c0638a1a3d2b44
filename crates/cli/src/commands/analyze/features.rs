//! Synthetic features with known properties.

use eval::unit_rows;
use tch::{Device, Kind, Tensor};

/// Kinds of synthetic features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// Rows drawn uniformly from the unit sphere.
    Random,
    /// Equal rows, whose coding rate is the floor.
    Collapsed,
    /// Rows that repeat the basis vectors, which spreads them evenly; their coding rate is the
    /// ceiling (if `n` is at most `d` or a multiple of it).
    Orthonormal,
}

impl Made {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Random, Self::Collapsed, Self::Orthonormal];

    /// Returns the name in tables and figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Collapsed => "collapsed",
            Self::Orthonormal => "orthonormal",
        }
    }

    /// Returns `n` unit rows of width `d`: a tensor `[n, d]` of doubles. Equal seeds give equal
    /// rows.
    pub fn rows(self, n: usize, d: usize, seed: i64) -> Tensor {
        let (n, d) = (n as i64, d as i64);
        let double = (Kind::Double, Device::Cpu);
        match self {
            Self::Random => {
                tch::manual_seed(seed);
                unit_rows(&Tensor::randn([n, d], double))
            }
            Self::Collapsed => {
                Tensor::eye(d, double).narrow(0, 0, 1).expand([n, d], false).contiguous()
            }
            // The basis vectors in turn: each occurs equally often, up to a remainder.
            Self::Orthonormal => {
                let index = Tensor::arange(n, (Kind::Int64, Device::Cpu)).remainder(d);
                Tensor::eye(d, double).index_select(0, &index)
            }
        }
    }
}
