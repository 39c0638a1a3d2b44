//! Features whose coding rate is known in advance.

use eval::unit_rows;
use tch::{Device, Kind, Tensor};

/// Features whose coding rate is known in advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// Directions drawn evenly.
    Random,
    /// All rows the same.
    Collapsed,
    /// Rows that spread evenly over all directions there are.
    Orthonormal,
}

impl Made {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Random, Self::Collapsed, Self::Orthonormal];

    /// Its name in tables and figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Collapsed => "collapsed",
            Self::Orthonormal => "orthonormal",
        }
    }

    /// `n` unit rows of width `d`, the same for the same seed.
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
            // Unit vectors in turn, each as often as the others, but for a remainder.
            Self::Orthonormal => {
                let index = Tensor::arange(n, (Kind::Int64, Device::Cpu)).remainder(d);
                Tensor::eye(d, double).index_select(0, &index)
            }
        }
    }
}
