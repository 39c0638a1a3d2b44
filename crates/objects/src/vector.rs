//! Vector operations whose sums have the same order with every instruction set.

use ndarray::ArrayView2;

use crate::{Error, Result};

/// Features shorter than this count as zero, as in torch's `normalize`.
pub(crate) const SHORTEST: f64 = 1e-12;
/// Number of partial sums that are kept side by side, which fixes the order of addition.
const LANES: usize = 8;

/// Computes `a . b`.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    simd::dispatch(
        #[inline(always)]
        || {
            let mut sums = [0.0; LANES];
            let (a_parts, b_parts) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
            let rest: f64 =
                a_parts.remainder().iter().zip(b_parts.remainder()).map(|(x, y)| x * y).sum();
            for (x, y) in a_parts.zip(b_parts) {
                for lane in 0..LANES {
                    sums[lane] += x[lane] * y[lane];
                }
            }
            sums.iter().sum::<f64>() + rest
        },
    )
}

/// Computes `y += factor x`.
pub(crate) fn add_scaled(y: &mut [f64], factor: f64, x: &[f64]) {
    simd::dispatch(
        #[inline(always)]
        || {
            for (y, x) in y.iter_mut().zip(x) {
                *y += factor * x;
            }
        },
    );
}

/// Computes `x *= factor`.
pub(crate) fn scale(x: &mut [f64], factor: f64) {
    for value in x {
        *value *= factor;
    }
}

/// Computes the Euclidean norm.
pub(crate) fn norm(x: &[f64]) -> f64 {
    dot(x, x).sqrt()
}

/// Returns the rows as unit vectors, one after the other, and their lengths in double precision.
/// Rows shorter than [`SHORTEST`] become zero.
///
/// # Errors
/// Returns [`Error::NotFinite`] for the first row with a number that is not finite.
pub(crate) fn unit_rows(rows: ArrayView2<'_, f32>) -> Result<(Vec<f32>, Vec<f64>)> {
    let mut unit: Vec<f32> = Vec::with_capacity(rows.len());
    unit.extend(rows.iter());
    let channels = rows.ncols().max(1);
    let mut lengths = Vec::with_capacity(rows.nrows());
    for (patch, row) in unit.chunks_exact_mut(channels).enumerate() {
        let length = simd::dispatch(
            #[inline(always)]
            || make_unit(row),
        );
        if !length.is_finite() {
            return Err(Error::NotFinite { patch });
        }
        lengths.push(length);
    }
    lengths.resize(rows.nrows(), 0.0); // without channels, the loop visits no row
    Ok((unit, lengths))
}

/// Scales a row to unit length, and returns its length before.
#[inline(always)]
fn make_unit(row: &mut [f32]) -> f64 {
    let mut sums = [0.0; LANES];
    let parts = row.chunks_exact(LANES);
    let rest: f64 = parts.remainder().iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    for part in parts {
        for lane in 0..LANES {
            sums[lane] += f64::from(part[lane]) * f64::from(part[lane]);
        }
    }
    let length = (sums.iter().sum::<f64>() + rest).sqrt();
    let scale = if length < SHORTEST { 0.0 } else { 1.0 / length };
    for x in row {
        *x = (f64::from(*x) * scale) as f32;
    }
    length
}

/// Returns numbers in `[-1, 1)` that depend only on `which` and their index. As the start of an
/// iteration, they are practically never orthogonal to an eigenvector.
pub(crate) fn fixed_noise(which: u64, n: usize) -> Vec<f64> {
    let mixed = |index: u64| {
        let mut z =
            index.wrapping_add(which << 32).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (0..n as u64).map(|i| (mixed(i) >> 11) as f64 / (1u64 << 52) as f64 - 1.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_right_for_every_length() {
        for n in 0..40 {
            let a: Vec<f64> = (0..n).map(|i| i as f64 + 1.0).collect();
            let expected: f64 = (1..=n).map(|i| (i * i) as f64).sum();
            assert_eq!(dot(&a, &a), expected, "{n}");
            let mut y = vec![1.0; n];
            add_scaled(&mut y, 2.0, &a);
            assert!(y.iter().zip(&a).all(|(y, a)| *y == 1.0 + 2.0 * a));
        }
    }

    #[test]
    fn noise_is_spread_and_fixed() {
        let noise = fixed_noise(0, 10_000);
        let mean = noise.iter().sum::<f64>() / 1e4;
        assert!(mean.abs() < 0.02 && noise.iter().all(|x| x.abs() < 1.0), "{mean}");
        assert!(noise.iter().any(|&x| x < -0.9) && noise.iter().any(|&x| x > 0.9));
        assert!(dot(&noise, &fixed_noise(1, 10_000)).abs() < 150.0);
    }
}
