//! Antialiased resizing of 8-bit images, with exactly the results of Pillow 3 to 12.
//!
//! There are two passes, first along rows and then along columns, each with weights of 22
//! fractional bits and a result that is rounded to 8 bits. Pillow 13 begins with the columns if the
//! height shrinks much more than the width; its results then differ by a few levels.

use crate::{Error, Grid, Result};

/// Fractional bits of a weight.
const BITS: u32 = 22;

/// How a pixel is computed from those around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// A windowed sinc with a radius of 3 pixels: Pillow's `LANCZOS`.
    Lanczos,
    /// Keys' cubic with a = -0.5 and a radius of 2 pixels: Pillow's `BICUBIC`.
    Bicubic,
}

impl Filter {
    fn reach(self) -> f64 {
        match self {
            Self::Lanczos => 3.0,
            Self::Bicubic => 2.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        let sinc = |x: f64| {
            let x = x * std::f64::consts::PI;
            if x == 0.0 { 1.0 } else { x.sin() / x }
        };
        match (self, x.abs()) {
            (Self::Lanczos, _) if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            (Self::Bicubic, x) if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            (Self::Bicubic, x) if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
            _ => 0.0,
        }
    }
}

/// Resizes an image with any number of channels, which is stored row by row with the channels of a
/// pixel together.
///
/// # Errors
/// Returns [`Error::Shape`] if the number of bytes is not that of pixels times channels, or if an
/// image without pixels is to be resized to one with pixels.
pub fn resize(
    bytes: &[u8],
    from: Grid,
    to: Grid,
    channels: usize,
    filter: Filter,
) -> Result<Vec<u8>> {
    let expected = from.cells() * channels;
    if bytes.len() != expected {
        return Err(Error::Shape { what: "bytes of the image", expected, found: bytes.len() });
    }
    if from.cells() == 0 && to.cells() > 0 {
        return Err(Error::Shape { what: "pixels of the image", expected: 1, found: 0 });
    }
    if to.cells() * channels == 0 {
        return Ok(Vec::new());
    }
    let rows = if from.width == to.width {
        bytes.to_vec()
    } else {
        let taps = taps(from.width, to.width, filter);
        let row = |row: &[u8]| along(row, &taps, channels);
        bytes.chunks_exact((from.width * channels).max(1)).flat_map(row).collect()
    };
    if from.height == to.height {
        return Ok(rows);
    }
    // For the second pass, each row counts as a single pixel with more channels.
    Ok(along(&rows, &taps(from.height, to.height, filter), to.width * channels))
}

/// The source pixels of a target pixel: the index of the first one, and the weights of all.
type Taps = (usize, Vec<i32>);

fn taps(from: usize, to: usize, filter: Filter) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let reach = filter.reach() * stretch;
    let target = |target: usize| {
        let center = (target as f64 + 0.5) * scale;
        let start = (center - reach + 0.5).max(0.0) as usize;
        let end = ((center + reach + 0.5) as usize).min(from);
        let place = |x: usize| filter.at((x as f64 - center + 0.5) * (1.0 / stretch));
        let weights: Vec<f64> = (start..end).map(place).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |weight: f64| {
            let scaled = if sum == 0.0 { weight } else { weight / sum } * f64::from(1 << BITS);
            (scaled + 0.5f64.copysign(scaled)) as i32
        };
        (start, weights.into_iter().map(fixed).collect())
    };
    (0..to).map(target).collect()
}

/// Resizes along an axis on which neighbors are `step` bytes apart.
fn along(bytes: &[u8], taps: &[Taps], step: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(taps.len() * step);
    let mut sums = vec![0i32; step];
    for (start, weights) in taps {
        sums.fill(1 << (BITS - 1));
        for (weight, source) in weights.iter().zip(bytes[start * step..].chunks_exact(step)) {
            for (sum, byte) in sums.iter_mut().zip(source) {
                *sum += weight * i32::from(*byte);
            }
        }
        out.extend(sums.iter().map(|sum| (sum >> BITS).clamp(0, 255) as u8));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_images_stay_flat_and_sizes_are_kept() {
        for filter in [Filter::Lanczos, Filter::Bicubic] {
            for (from, to) in
                [((5, 7), (480, 480)), ((300, 20), (7, 9)), ((1, 1), (3, 2)), ((9, 4), (9, 4))]
            {
                let (from, to) = (Grid::new(from.0, from.1), Grid::new(to.0, to.1));
                let out = resize(&vec![77; 3 * from.cells()], from, to, 3, filter).unwrap();
                assert_eq!(out, vec![77; 3 * to.cells()], "{from:?} {to:?}");
            }
        }
    }

    #[test]
    fn wrong_sizes_are_refused() {
        let (none, one) = (Grid::new(0, 0), Grid::new(1, 1));
        assert!(resize(&[1, 2], one, one, 3, Filter::Bicubic).is_err());
        assert!(resize(&[], none, one, 3, Filter::Bicubic).is_err());
        assert!(resize(&[], none, none, 3, Filter::Bicubic).unwrap().is_empty());
        assert!(resize(&[5], one, none, 1, Filter::Lanczos).unwrap().is_empty());
        let (wide, high) = (Grid::new(0, 5), Grid::new(5, 0));
        assert!(resize(&[5], one, wide, 1, Filter::Lanczos).unwrap().is_empty());
        assert!(resize(&[5], one, high, 1, Filter::Bicubic).unwrap().is_empty());
        assert!(resize(&[], one, Grid::new(3, 2), 0, Filter::Bicubic).unwrap().is_empty());
    }
}
