//! What is written once for each instruction set, behind [`Isa`], and the choice among them.
//!
//! The choice is made when the program runs, and the whole decoding is compiled for each set, not only
//! what is written by hand: reading bits gains much from shifts that take their count from any
//! register. For that, all that a [`Kernel`] calls must be `#[inline(always)]`, and closures are kept
//! out: one that is not inlined is compiled without the instructions.

use crate::color::{self, Line, RgbLine};
use crate::header::Quantisation;
use crate::idct::{self, Group, Tile};

/// The operations that compilers do not turn into good SIMD code by themselves.
pub(crate) trait Isa: Copy {
    /// Samples from coefficients, as [`idct::transform`].
    fn transform(self, group: &Group, quantisation: &Quantisation) -> Tile;
    /// Pixels from samples, as [`color::to_rgb`].
    fn to_rgb(self, y: &Line, cb: &Line, cr: &Line) -> RgbLine;
}

/// What the target has at least.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Baseline;

impl Isa for Baseline {
    #[inline(always)]
    fn transform(self, group: &Group, quantisation: &Quantisation) -> Tile {
        idct::transform(group, quantisation)
    }

    #[inline(always)]
    fn to_rgb(self, y: &Line, cb: &Line, cr: &Line) -> RgbLine {
        color::to_rgb(y, cb, cr)
    }
}

/// Work that needs an [`Isa`].
pub(crate) trait Kernel {
    type Output;
    /// Does it. The body and all it calls must be `#[inline(always)]`.
    fn run(self, isa: impl Isa) -> Self::Output;
}

/// Runs `kernel` with the best instruction set of this machine.
#[inline]
pub(crate) fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        use pulp::x86::{V3, V4};

        use crate::x86::With;
        if let Some(v4) = V4::try_new() {
            return pulp::Simd::vectorize(v4, With(v4, kernel));
        }
        if let Some(v3) = V3::try_new() {
            return pulp::Simd::vectorize(v3, With(v3, kernel));
        }
    }
    kernel.run(Baseline)
}
