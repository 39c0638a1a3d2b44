//! Principal component analysis.

use tch::{Kind, Tensor};

use crate::error::{Error, Result};

/// The directions of largest variance of a set of vectors.
#[derive(Debug)]
pub struct Pca {
    /// Mean of the vectors, `[1, D]`, fp64.
    pub mean: Tensor,
    /// Unit directions in descending order of variance, `[k, D]`, fp64. The sign of each is chosen
    /// so that its entry of largest magnitude is positive.
    pub components: Tensor,
    /// Variance along each direction, `[k]`, fp64.
    pub variance: Tensor,
}

impl Pca {
    /// Computes the first `k` components of `features` `[n, D]` from the covariance matrix in fp64.
    ///
    /// # Errors
    /// Returns an error if there are fewer than 2 rows, fewer than 1 component, or more components
    /// than dimensions.
    pub fn fit(features: &Tensor, k: i64) -> Result<Self> {
        let size = features.size();
        let &[n, dim] = size.as_slice() else { return Err(shape(size)) };
        if n < 2 || k < 1 || k > dim {
            return Err(shape(size));
        }
        let features = features.to_kind(Kind::Double);
        let mean = features.mean_dim([0].as_slice(), true, Kind::Double); // [n, D] -> [1, D]
        let centered = features - &mean;
        let covariance = centered.tr().matmul(&centered) / (n - 1); // -> [D, D]
        let (values, vectors) = covariance.f_linalg_eigh("L")?; // ascending: [D], columns of [D, D]
        let variance = values.narrow(0, dim - k, k).flip([0]).clamp_min(0.0); // -> [k]
        let components = vectors.narrow(1, dim - k, k).flip([1]).tr(); // -> [k, D]
        let largest = components.abs().argmax(1, true); // -> [k, 1]
        let sign = components.gather(1, &largest, false).sign(); // -> [k, 1]
        Ok(Self { mean, components: components * sign, variance })
    }

    /// Returns the coordinates along the components, `[n, D]` to `[n, k]`, fp64.
    pub fn project(&self, features: &Tensor) -> Tensor {
        (features.to_kind(Kind::Double) - &self.mean).matmul(&self.components.tr())
    }
}

fn shape(got: Vec<i64>) -> Error {
    Error::Shape {
        what: "features for a PCA",
        expected: "[at least 2 rows, at least as many dimensions as components]",
        got,
    }
}
