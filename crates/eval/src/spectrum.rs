//! Measures of how many of their dimensions features use.

use tch::{Kind, Tensor};

use crate::error::Result;
use crate::features::unit_rows;

/// Two measures of how many of their dimensions features use.
///
/// Both are computed from the spectrum of the features scaled to norm 1, as in
/// `probe/effective_rank` of a training. They are 1 if all features point in the same direction or
/// its opposite, and `D` if they spread evenly.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Spread {
    /// The exponential of the entropy of the [`spectrum`].
    pub effective_rank: f64,
    /// The inverse of the sum of squares of the [`spectrum`], also known as the participation
    /// ratio. Directions with little energy count less than in the effective rank.
    pub effective_dimension: f64,
}

impl Spread {
    /// Measures features `[n, D]` of any scale.
    ///
    /// # Errors
    /// Fails like [`spectrum`].
    pub fn of(features: &Tensor) -> Result<Self> {
        let (n, d) = features.size2()?;
        if n <= d.max(ROWS) {
            return Ok(Self::from_spectrum(&spectrum(&unit_rows(
                &features.to_kind(Kind::Double),
            ))?));
        }
        // Blocks bound the memory, because rows in double precision take twice as much.
        let mut moment = Moment::default();
        for first in (0..n).step_by(ROWS.max(d) as usize) {
            moment.add(&features.narrow(0, first, ROWS.max(d).min(n - first)))?;
        }
        Ok(moment.spread()?.unwrap_or(Self { effective_rank: 1.0, effective_dimension: 1.0 }))
    }

    fn from_spectrum(shares: &[f64]) -> Self {
        let entropy: f64 = shares.iter().filter(|&&p| p > 0.0).map(|p| -p * p.ln()).sum();
        let squares: f64 = shares.iter().map(|p| p * p).sum();
        // Features that are all zero have no direction.
        let effective_dimension = if squares > 0.0 { 1.0 / squares } else { 1.0 };
        Self { effective_rank: entropy.exp(), effective_dimension }
    }
}

/// The second moment of features that arrive in parts, such as the patches of one image after
/// another. It takes the memory of a `[D, D]` matrix, however many features there are.
#[derive(Debug, Default)]
pub struct Moment {
    /// `[D, D]` in double precision; `None` before the first features.
    gram: Option<Tensor>,
}

impl Moment {
    /// Adds features `[n, D]` of any scale.
    ///
    /// # Errors
    /// Returns an error if the tensor has a different shape, or a different width than before.
    pub fn add(&mut self, features: &Tensor) -> Result<()> {
        features.size2()?;
        let rows = unit_rows(&features.to_kind(Kind::Double));
        self.add_gram(rows.tr().f_matmul(&rows)?)
    }

    /// Adds all features of `other`.
    ///
    /// # Errors
    /// Returns an error if the widths differ.
    pub fn merge(&mut self, other: Self) -> Result<()> {
        other.gram.map_or(Ok(()), |gram| self.add_gram(gram))
    }

    /// Returns the spread of all features added; `None` if there are none.
    ///
    /// # Errors
    /// Returns an error if a libtorch operation fails.
    pub fn spread(&self) -> Result<Option<Spread>> {
        let shares = self.gram.as_ref().map(fractions).transpose()?;
        Ok(shares.map(|shares| Spread::from_spectrum(&shares)))
    }

    fn add_gram(&mut self, gram: Tensor) -> Result<()> {
        self.gram = Some(match self.gram.take() {
            Some(sum) => sum.f_add(&gram)?,
            None => gram,
        });
        Ok(())
    }
}

/// Number of rows per block, unless `D` is larger.
const ROWS: i64 = 1 << 14;

/// Returns the eigenvalues of the uncentered second moment of rows as fractions of their sum, in
/// descending order: `[n, D]` in double precision to `min(n, D)` fractions.
///
/// # Errors
/// Returns an error if the tensor has a different shape or a libtorch operation fails.
pub fn spectrum(rows: &Tensor) -> Result<Vec<f64>> {
    let (n, d) = rows.size2()?;
    let gram = if n < d { rows.matmul(&rows.tr()) } else { rows.tr().matmul(rows) };
    fractions(&gram)
}

/// Returns the eigenvalues of a Gram matrix as fractions of their sum, in descending order.
fn fractions(gram: &Tensor) -> Result<Vec<f64>> {
    let eigenvalues = gram.f_linalg_eigvalsh("L")?.clamp_min(0.0).flip([0]);
    let shares = &eigenvalues / eigenvalues.sum(Kind::Double).clamp_min(f64::MIN_POSITIVE);
    Ok(Vec::<f64>::try_from(shares)?)
}

/// Returns how many of the strongest directions contain the fraction `share` of the energy of a
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
    fn both_numbers_count_directions_that_are_used_alike() {
        let axes = Tensor::eye(5, (Kind::Float, tch::Device::Cpu)).narrow(0, 0, 3) * 7.0;
        let spread = Spread::of(&axes).unwrap();
        assert!((spread.effective_rank - 3.0).abs() < 1e-9, "{spread:?}");
        assert!((spread.effective_dimension - 3.0).abs() < 1e-9, "{spread:?}");
        // Three rows along one axis and one along another have shares of 3/4 and 1/4.
        let rows = Tensor::from_slice(&[2.0, 0.0, -1.0, 0.0, 5.0, 0.0, 0.0, 9.0]).view([4, 2]);
        let spread = Spread::of(&rows).unwrap();
        let entropy = -(0.75f64.ln() * 0.75 + 0.25f64.ln() * 0.25);
        let many = Spread::of(&rows.repeat([ROWS / 2, 1])).unwrap();
        assert!((many.effective_rank - spread.effective_rank).abs() < 1e-9, "{many:?}");
        assert!((spread.effective_rank - entropy.exp()).abs() < 1e-9, "{spread:?}");
        let (mut first, mut second) = (Moment::default(), Moment::default());
        assert_eq!(first.spread().unwrap(), None, "no features have no spread");
        first.add(&rows.narrow(0, 0, 3)).unwrap();
        second.add(&rows.narrow(0, 3, 1)).unwrap();
        first.merge(second).unwrap();
        let parts = first.spread().unwrap().unwrap();
        assert!((parts.effective_rank - spread.effective_rank).abs() < 1e-9, "{parts:?}");
        assert!(first.add(&rows.tr()).is_err(), "of another width");
        assert!((spread.effective_dimension - 1.0 / 0.625).abs() < 1e-9, "{spread:?}");
    }

    #[test]
    fn the_spectrum_is_sorted_and_adds_up_to_one() {
        let z = Tensor::from_slice(&[2.0, 0.0, 0.0, 1.0, 0.0, 1.0]).reshape([3, 2]);
        let shares = spectrum(&z).unwrap();
        assert!((shares[0] - 4.0 / 6.0).abs() < 1e-12 && (shares[1] - 2.0 / 6.0).abs() < 1e-12);
    }
}
