//! How features use their dimensions.

use tch::{Kind, Tensor};

use crate::error::Result;

/// Eigenvalues of the second moment of rows, as fractions of their sum, in descending order.
///
/// `[n, D]` in double precision to `min(n, D)` fractions.
///
/// # Errors
/// Returns an error if the tensor has a different shape or a libtorch operation fails.
pub fn spectrum(rows: &Tensor) -> Result<Vec<f64>> {
    let (n, d) = rows.size2()?;
    let gram = if n < d { rows.matmul(&rows.tr()) } else { rows.tr().matmul(rows) };
    let eigenvalues = gram.linalg_eigvalsh("L").clamp_min(0.0).flip([0]);
    let shares = &eigenvalues / eigenvalues.sum(Kind::Double).clamp_min(f64::MIN_POSITIVE);
    Ok(Vec::<f64>::try_from(shares)?)
}

/// Returns how many directions, the strongest first, contain this fraction of the energy of a
/// [`spectrum`].
pub fn directions(spectrum: &[f64], share: f64) -> usize {
    let mut sum = 0.0;
    let before = spectrum.iter().take_while(|&&part| {
        sum += part;
        sum < share
    });
    (before.count() + 1).min(spectrum.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_are_counted_up_to_their_share() {
        let spectrum = [0.6, 0.3, 0.08, 0.02];
        assert_eq!(directions(&spectrum, 0.5), 1);
        assert_eq!(directions(&spectrum, 0.9 - 1e-9), 2);
        assert_eq!(directions(&spectrum, 0.99), 4);
        assert_eq!(directions(&[1.0], 0.99), 1);
    }

    #[test]
    fn the_spectrum_is_sorted_and_adds_up_to_one() {
        let z = Tensor::from_slice(&[2.0, 0.0, 0.0, 1.0, 0.0, 1.0]).reshape([3, 2]);
        let shares = spectrum(&z).unwrap();
        assert!((shares[0] - 4.0 / 6.0).abs() < 1e-12 && (shares[1] - 2.0 / 6.0).abs() < 1e-12);
    }
}
