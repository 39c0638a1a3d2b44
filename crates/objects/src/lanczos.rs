//! The largest eigenvalues of a symmetric operator, by a Krylov method with two start vectors, full
//! reorthogonalization, and restarts that keep the best Ritz vectors.
//!
//! A single start vector cannot find an eigenvalue twice; two of them can.

use crate::dense::{Eigen, symmetric};
use crate::vector::{add_scaled, dot, fixed_noise, norm, scale};

/// Number of vectors in the basis at which it is restarted.
const MOST: usize = 72;
/// Number of Ritz vectors that are kept in a restart.
const KEPT: usize = 20;
/// Number of vectors that are multiplied between two checks for convergence.
const BETWEEN_CHECKS: usize = 8;
/// A remainder of at most this length is rounding error: the subspace is invariant.
const NOTHING: f64 = 1e-13;
/// Number of restarts after which the method gives up.
const MOST_RESTARTS: usize = 100;

/// A symmetric operator whose eigenvalues have a magnitude of at most about 1.
pub(crate) trait Operator {
    /// Returns the dimension.
    fn dimension(&self) -> usize;
    /// Computes the products with two vectors.
    fn times(&self, x: [&[f64]; 2]) -> [Vec<f64>; 2];
}

/// The largest eigenvalues and their vectors.
#[derive(Debug)]
pub(crate) struct Largest {
    /// Descending; at least one.
    pub(crate) values: Vec<f64>,
    /// Unit vectors, one for each value.
    pub(crate) vectors: Vec<Vec<f64>>,
    /// Number of products with the operator.
    pub(crate) products: usize,
}

/// Finds the two largest eigenvalues whose vectors are orthogonal to the unit vector `known`, with
/// residuals of at most `tolerance`; the second may be less exact if it is far from the first.
///
/// The result may not have converged, so the caller must check the residual.
pub(crate) fn largest(operator: &impl Operator, known: &[f64], tolerance: f64) -> Largest {
    let mut basis = Basis::new(known);
    for which in 0..2 {
        basis.add_start(which);
    }
    let mut next_start = 2;
    let mut restarts = 0;
    loop {
        let mut since = 0;
        while since < BETWEEN_CHECKS
            && basis.done < basis.vectors.len()
            && basis.vectors.len() + 2 <= MOST
        {
            since += basis.multiply(operator);
        }
        let ritz = basis.ritz();
        let exhausted = basis.done == basis.vectors.len();
        let pairs = basis.done.min(2);
        if exhausted && pairs < 2 && basis.done + 1 < operator.dimension() {
            basis.add_start(next_start);
            next_start += 1;
            continue;
        }
        if exhausted || converged(&basis, &ritz, tolerance) || restarts == MOST_RESTARTS {
            let products = basis.products;
            let (values, vectors) = (ritz.values[..pairs].to_vec(), basis.combined(&ritz, pairs));
            return Largest { values, vectors, products };
        }
        if basis.vectors.len() + 2 > MOST {
            basis.restart(&ritz);
            restarts += 1;
        }
    }
}

fn converged(basis: &Basis<'_>, ritz: &Eigen, tolerance: f64) -> bool {
    if basis.done < 3 {
        return false;
    }
    let gap = ritz.values[0] - ritz.values[1];
    basis.residual(&ritz.vectors[0]) <= tolerance
        && basis.residual(&ritz.vectors[1]) <= tolerance.max(0.1 * gap)
}

/// An orthonormal basis, and the operator within it.
#[derive(Debug)]
struct Basis<'a> {
    known: &'a [f64],
    vectors: Vec<Vec<f64>>,
    /// The first `done` vectors have been multiplied.
    done: usize,
    /// `projected[i * MOST + j]` is `v_i . M v_j`, known where `i` or `j` is done.
    projected: Vec<f64>,
    products: usize,
}

impl<'a> Basis<'a> {
    fn new(known: &'a [f64]) -> Self {
        Self { known, vectors: Vec::new(), done: 0, projected: vec![0.0; MOST * MOST], products: 0 }
    }

    /// Adds fixed noise, orthogonalized against the basis; does nothing if nothing is left of it.
    fn add_start(&mut self, which: u64) {
        let mut start = fixed_noise(which, self.known.len());
        let length = norm(&start);
        scale(&mut start, 1.0 / length.max(f64::MIN_POSITIVE));
        self.orthogonalize(&mut start, None);
        self.append(start, 1e-8);
    }

    /// Removes the components of `w` along the basis, twice, and adds their coefficients to column
    /// `column` of the projection.
    fn orthogonalize(&mut self, w: &mut [f64], column: Option<usize>) {
        for _ in 0..2 {
            let along = dot(self.known, w);
            add_scaled(w, -along, self.known);
            for (i, vector) in self.vectors.iter().enumerate() {
                let along = dot(vector, w);
                add_scaled(w, -along, vector);
                if let Some(column) = column {
                    self.projected[i * MOST + column] += along;
                }
            }
        }
    }

    /// Appends `w` as a unit vector if its length is above `least` and there is room. Returns the
    /// length, or 0 if it was not appended.
    fn append(&mut self, mut w: Vec<f64>, least: f64) -> f64 {
        let length = norm(&w);
        if length <= least || self.vectors.len() == MOST {
            return 0.0;
        }
        scale(&mut w, 1.0 / length);
        self.vectors.push(w);
        length
    }

    /// Multiplies the next one or two vectors, and appends what their products add to the basis.
    /// Returns the number of products.
    fn multiply(&mut self, operator: &impl Operator) -> usize {
        let first = self.done;
        let second = (first + 1).min(self.vectors.len() - 1);
        let products = operator.times([&self.vectors[first], &self.vectors[second]]);
        let count = second - first + 1;
        self.products += count;
        for (column, mut product) in (first..=second).zip(products) {
            for i in 0..self.vectors.len() {
                self.projected[i * MOST + column] = 0.0;
            }
            self.orthogonalize(&mut product, Some(column));
            let length = self.append(product, NOTHING);
            if length > 0.0 {
                self.projected[(self.vectors.len() - 1) * MOST + column] = length;
            }
            for i in 0..self.vectors.len() {
                self.projected[column * MOST + i] = self.projected[i * MOST + column];
            }
            self.done += 1;
        }
        count
    }

    /// Computes the Ritz values and vectors: the eigenpairs of the operator projected onto the
    /// vectors that are done.
    fn ritz(&self) -> Eigen {
        let n = self.done;
        let mut matrix = Vec::with_capacity(n * n);
        for i in 0..n {
            matrix.extend_from_slice(&self.projected[i * MOST..i * MOST + n]);
        }
        symmetric(matrix, n)
    }

    /// Computes the norm of `M u - theta u` for a Ritz vector, which is the part of its product
    /// outside of the vectors that are done.
    fn residual(&self, ritz: &[f64]) -> f64 {
        let outside = self.done..self.vectors.len();
        let parts = outside.map(|q| dot(&self.projected[q * MOST..q * MOST + self.done], ritz));
        parts.map(|part| part * part).sum::<f64>().sqrt()
    }

    /// Computes the first `count` Ritz vectors.
    fn combined(&self, ritz: &Eigen, count: usize) -> Vec<Vec<f64>> {
        let combine = |coefficients: &Vec<f64>| {
            let mut sum = vec![0.0; self.known.len()];
            for (coefficient, vector) in coefficients.iter().zip(&self.vectors) {
                add_scaled(&mut sum, *coefficient, vector);
            }
            sum
        };
        ritz.vectors.iter().take(count).map(combine).collect()
    }

    /// Replaces the basis with the best Ritz vectors and the vectors that are not yet multiplied.
    fn restart(&mut self, ritz: &Eigen) {
        let kept = KEPT.min(self.done);
        let mut vectors = self.combined(ritz, kept);
        let mut projected = vec![0.0; MOST * MOST];
        for k in 0..kept {
            projected[k * MOST + k] = ritz.values[k];
            for (new, q) in (self.done..self.vectors.len()).enumerate() {
                let coupling =
                    dot(&self.projected[q * MOST..q * MOST + self.done], &ritz.vectors[k]);
                projected[(kept + new) * MOST + k] = coupling;
                projected[k * MOST + kept + new] = coupling;
            }
        }
        vectors.extend(self.vectors.drain(self.done..));
        *self = Self { vectors, done: kept, projected, ..Self::new(self.known) }
            .with_products(self.products);
    }

    fn with_products(mut self, products: usize) -> Self {
        self.products = products;
        self
    }
}
