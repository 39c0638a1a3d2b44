//! The operations that are written once for each instruction set, behind [`Isa`], and the choice of
//! the instruction set.
//!
//! The choice is made at run time. The whole decoder is compiled for each instruction set, not only
//! the parts that use intrinsics, because reading bits benefits from shifts that take their count
//! from any register. All time-critical code of a [`Kernel`] must therefore be `#[inline(always)]`
//! and free of closures: code that is not inlined is compiled without the instruction set.

use crate::color::{self, Line, RgbLine};
use crate::idct::{self, Group, Tile};
use crate::tables::Quantization;

/// The operations for which compilers do not generate good SIMD code.
pub(crate) trait Isa: Copy {
    /// Computes samples from coefficients, like [`idct::transform`].
    fn transform(self, group: &Group, quantization: &Quantization) -> Tile;
    /// Computes pixels from samples, like [`color::to_rgb`].
    fn to_rgb(self, y: &Line, cb: &Line, cr: &Line) -> RgbLine;
}

/// The minimum that the target supports.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Baseline;

impl Isa for Baseline {
    #[inline(always)]
    fn transform(self, group: &Group, quantization: &Quantization) -> Tile {
        idct::transform(group, quantization)
    }

    #[inline(always)]
    fn to_rgb(self, y: &Line, cb: &Line, cr: &Line) -> RgbLine {
        color::to_rgb(y, cb, cr)
    }
}

simd::dispatcher!(Isa, Baseline);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header;
    use crate::idct::tests::numbers;
    use crate::scan::Scan;
    use crate::whole::Whole;

    struct Transform<'a>(&'a Group, &'a Quantization);

    impl Kernel for Transform<'_> {
        type Output = Tile;

        #[inline(always)]
        fn run(self, isa: impl Isa) -> Tile {
            isa.transform(self.0, self.1)
        }
    }

    struct Rgb<'a>([&'a Line; 3]);

    impl Kernel for Rgb<'_> {
        type Output = RgbLine;

        #[inline(always)]
        fn run(self, isa: impl Isa) -> RgbLine {
            isa.to_rgb(self.0[0], self.0[1], self.0[2])
        }
    }

    #[test]
    fn all_instruction_sets_transform_alike() {
        let mut numbers = numbers(2);
        for round in 0..500 {
            let mut group = Group::ZERO;
            // The range includes coefficients that overflow.
            let shift = 16 - round % 16;
            group.0.fill_with(|| (numbers.next().unwrap() as i16) >> shift.min(15));
            let quantization =
                std::array::from_fn(|_| numbers.next().unwrap() as i16 >> (round % 13));
            let (expected, others) = with_all(|| Transform(&group, &quantization));
            assert!(others.iter().all(|tile| *tile == expected), "{round}");
        }
    }

    #[test]
    fn all_instruction_sets_convert_alike() {
        let mut numbers = numbers(3);
        for _ in 0..1000 {
            let [y, cb, cr]: [Line; 3] =
                std::array::from_fn(|_| std::array::from_fn(|_| numbers.next().unwrap() as u8));
            let (expected, others) = with_all(|| Rgb([&y, &cb, &cr]));
            assert!(others.iter().all(|rgb| *rgb == expected));
        }
    }

    #[test]
    fn all_instruction_sets_decode_alike() {
        let files: [&[u8]; 5] = [
            include_bytes!("../tests/fixtures/444_restart.jpg"),
            include_bytes!("../tests/fixtures/422_noise_q100.jpg"),
            include_bytes!("../tests/fixtures/420_wide.jpg"),
            include_bytes!("../tests/fixtures/440_tall.jpg"),
            include_bytes!("../tests/fixtures/gray.jpg"),
        ];
        for file in files {
            let header = header::read(file).unwrap();
            let sampling = header.usual().unwrap();
            let (expected, others) = with_all(|| Scan { header: &header, sampling });
            let (whole, all) = with_all(|| Whole(&header));
            assert!(whole == expected && all.iter().all(|pixels| *pixels == expected));
            assert!(expected.is_ok() && others.iter().all(|pixels| *pixels == expected));
        }
    }
}
