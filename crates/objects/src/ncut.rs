//! The second eigenvector of a normalized cut.
//!
//! For the affinity `A = eps 1 1^T + (1 - eps) B` of an [`Affinity`] `B`, with row sums `D`, this
//! is the vector `y` of the second smallest `lambda` in `(D - A) y = lambda D y`. With
//! `y = D^-1/2 u`, the vector `u` belongs to the largest eigenvalue `1 - lambda` of
//! `D^-1/2 A D^-1/2` among the vectors orthogonal to the known first one, `D^1/2 1`.

use crate::dense::symmetric;
use crate::lanczos::{Largest, Operator, largest};
use crate::vector::{add_scaled, dot, fixed_noise, norm, scale};
use crate::{Affinity, Error, Result};

/// Residual at which the iteration stops.
const TOLERANCE: f64 = 1e-12;
/// Largest residual that is accepted.
const ACCEPTED: f64 = 1e-9;
/// Largest number of patches for which the dense solver is used, because it is faster.
const DENSE: usize = 48;
/// Largest distance at which eigenvalues count as equal, because their vectors cannot be told
/// apart.
pub const DEGENERATE: f64 = 1e-9;
/// Largest difference, relative to the largest entry, at which entries of a vector count as equal.
pub(crate) const EQUAL: f64 = 1e-8;

/// The second eigenvalue of a normalized cut, and its vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Ncut {
    /// `lambda`, from 0 (the graph is disconnected) to 1 (all patches are alike).
    ///
    /// It may be up to 2 if a patch is not even like itself, because its feature is zero.
    pub value: f64,
    /// `y`, with `y^T D y = 1`. The entry of the largest magnitude, or the first of several equal
    /// ones, is positive.
    pub vector: Vec<f64>,
    /// Distance to the third eigenvalue; infinite for two patches.
    ///
    /// Up to [`DEGENERATE`], the eigenvalue counts as multiple. The vector is then the projection
    /// of a fixed vector onto the space of all its eigenvectors: one of many answers, but always
    /// the same one.
    pub gap: f64,
    /// Norm of `D^-1/2 A D^-1/2 u - (1 - lambda) u`. The vector differs from the exact one
    /// by at most about `residual / gap`.
    pub residual: f64,
    /// Number of products with the affinity; 0 for the dense solver.
    pub products: usize,
}

impl Ncut {
    /// Returns whether the second eigenvalue is multiple, so that the vector is one of many.
    #[must_use]
    pub fn is_degenerate(&self) -> bool {
        self.gap <= DEGENERATE
    }
}

/// Computes the second eigenvector for an affinity of 1 between patches that are alike and `eps`
/// between all others.
///
/// The result depends neither on the number of threads nor on the instruction set.
///
/// # Errors
/// Returns [`Error::TooFew`] for fewer than two patches, [`Error::Option`] unless `0 < eps < 1`,
/// and [`Error::NotConverged`] if the residual is too large.
pub fn ncut(affinity: &Affinity, eps: f64) -> Result<Ncut> {
    if !(eps > 0.0 && eps < 1.0) {
        return Err(Error::Option {
            option: "eps",
            value: eps,
            must: "greater than 0 and below 1",
        });
    }
    let patches = affinity.patches();
    if patches < 2 {
        return Err(Error::TooFew { patches });
    }
    let normalized = Normalized::new(affinity, eps);
    let pairs = if patches <= DENSE {
        normalized.dense()
    } else {
        largest(&normalized, &normalized.first, TOLERANCE)
    };
    let gap = pairs.values.get(1).map_or(f64::INFINITY, |second| pairs.values[0] - second);
    let u = canonical(pairs.values.as_slice(), &pairs.vectors);
    let (theta, residual) = normalized.residual(&u);
    if residual.is_nan() || residual > ACCEPTED {
        return Err(Error::NotConverged { residual });
    }
    let mut vector: Vec<f64> = u.iter().zip(&normalized.inverse_root).map(|(u, r)| u * r).collect();
    if vector[seed(&vector)] < 0.0 {
        scale(&mut vector, -1.0);
    }
    let value = (1.0 - theta).max(0.0);
    Ok(Ncut { value, vector, gap, residual, products: pairs.products })
}

/// Returns the index of the first entry whose magnitude is the largest, up to rounding.
pub(crate) fn seed(vector: &[f64]) -> usize {
    let most = vector.iter().fold(0.0f64, |most, y| most.max(y.abs()));
    vector.iter().position(|y| y.abs() >= most * (1.0 - EQUAL)).unwrap_or(0)
}

/// Returns the vector of the largest value, or, if several values are equal to it, the projection
/// of a fixed vector onto the space of their vectors.
fn canonical(values: &[f64], vectors: &[Vec<f64>]) -> Vec<f64> {
    let equal = values.iter().take_while(|value| values[0] - **value <= DEGENERATE).count();
    let n = vectors[0].len();
    let fixed = fixed_noise(0, n);
    let mut sum = vec![0.0; n];
    for vector in &vectors[..equal] {
        add_scaled(&mut sum, dot(vector, &fixed), vector);
    }
    let length = norm(&sum);
    if equal == 1 || length < 1e-6 {
        return vectors[0].clone();
    }
    scale(&mut sum, 1.0 / length);
    sum
}

/// The operator `D^-1/2 A D^-1/2`.
#[derive(Debug)]
struct Normalized<'a> {
    affinity: &'a Affinity,
    eps: f64,
    /// Diagonal of `D^-1/2`.
    inverse_root: Vec<f64>,
    /// The unit vector along `D^1/2 1`.
    first: Vec<f64>,
}

impl<'a> Normalized<'a> {
    fn new(affinity: &'a Affinity, eps: f64) -> Self {
        let n = affinity.patches() as f64;
        let sum = |degree: u32| f64::from(degree) + eps * (n - f64::from(degree));
        let sums: Vec<f64> = affinity.degrees().into_iter().map(sum).collect();
        let mut first: Vec<f64> = sums.iter().map(|sum| sum.sqrt()).collect();
        let inverse_root = first.iter().map(|root| 1.0 / root).collect();
        let length = norm(&first);
        scale(&mut first, 1.0 / length);
        Self { affinity, eps, inverse_root, first }
    }

    /// Computes all eigenpairs except the first with the dense solver.
    fn dense(&self) -> Largest {
        let n = self.first.len();
        let mut matrix = Vec::with_capacity(n * n);
        for i in 0..n {
            matrix.extend((0..n).map(|j| {
                let value = if self.affinity.alike(i, j) { 1.0 } else { self.eps };
                // The first eigenvalue, 1, becomes -2: below all others.
                value * self.inverse_root[i] * self.inverse_root[j]
                    - 3.0 * self.first[i] * self.first[j]
            }));
        }
        let mut eigen = symmetric(matrix, n);
        eigen.values.pop();
        eigen.vectors.pop();
        Largest { values: eigen.values, vectors: eigen.vectors, products: 0 }
    }

    /// Returns the Rayleigh quotient of a unit vector, and the norm of the part of its product that
    /// is orthogonal to it.
    fn residual(&self, u: &[f64]) -> (f64, f64) {
        let [mut product, _] = self.times([u, u]);
        let theta = dot(u, &product);
        add_scaled(&mut product, -theta, u);
        (theta, norm(&product))
    }
}

impl Operator for Normalized<'_> {
    fn dimension(&self) -> usize {
        self.first.len()
    }

    fn times(&self, x: [&[f64]; 2]) -> [Vec<f64>; 2] {
        let roots = &self.inverse_root;
        let y: Vec<[f64; 2]> =
            roots.iter().enumerate().map(|(i, root)| [x[0][i] * root, x[1][i] * root]).collect();
        let mut product = vec![[0.0; 2]; y.len()];
        self.affinity.times(&y, &mut product);
        [0, 1].map(|k| {
            let sum = self.eps * y.iter().map(|y| y[k]).sum::<f64>();
            let entry =
                |(product, root): (&[f64; 2], &f64)| ((1.0 - self.eps) * product[k] + sum) * root;
            product.iter().zip(roots).map(entry).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPS: f64 = 1e-5;

    /// Two groups, and a patch between them.
    fn bridge(n: usize) -> Affinity {
        Affinity::from_fn(n, |i, j| (i < n / 3) == (j < n / 3) || (i + j) % 17 == 0)
    }

    fn dense_answer(affinity: &Affinity) -> (f64, f64, Vec<f64>) {
        let normalized = Normalized::new(affinity, EPS);
        let pairs = normalized.dense();
        let u = &pairs.vectors[0];
        let y = u.iter().zip(&normalized.inverse_root).map(|(u, r)| u * r).collect();
        (1.0 - pairs.values[0], pairs.values[0] - pairs.values[1], y)
    }

    #[test]
    fn iteration_and_dense_solver_agree() {
        for n in [49, 64, 100, 150] {
            let affinity = bridge(n);
            let found = ncut(&affinity, EPS).unwrap();
            let (value, gap, vector) = dense_answer(&affinity);
            assert!(
                (found.value - value).abs() < 1e-12
                    && (found.gap - gap).abs() < 1e-6 * gap.max(1e-6),
                "{found:?} {value} {gap}"
            );
            let sign = if vector[seed(&vector)] < 0.0 { -1.0 } else { 1.0 };
            for (a, b) in found.vector.iter().zip(&vector) {
                assert!((a - sign * b).abs() < 1e-9, "{n}: {a} {b}");
            }
            assert!(found.products > 0 && found.residual < 1e-11);
        }
    }

    #[test]
    fn small_graphs() {
        let two = ncut(&Affinity::from_fn(2, |i, j| i == j), EPS).unwrap();
        assert!((two.value - 2.0 * EPS / (1.0 + EPS)).abs() < 1e-15 && two.gap.is_infinite());
        assert!(two.vector[0] > 0.0 && (two.vector[0] + two.vector[1]).abs() < 1e-12);
        for n in [3, 4, 48, 49] {
            let answer = ncut(&Affinity::from_fn(n, |_, _| true), EPS).unwrap();
            assert!((answer.value - 1.0).abs() < 1e-12 && answer.is_degenerate());
        }
        assert_eq!(
            ncut(&Affinity::from_fn(1, |_, _| true), EPS),
            Err(Error::TooFew { patches: 1 })
        );
        assert!(ncut(&bridge(9), 0.0).is_err() && ncut(&bridge(9), f64::NAN).is_err());
    }

    #[test]
    fn a_graph_without_edges_has_one_answer() {
        // All eigenvalues are equal, except for the first.
        for n in [20, 120] {
            let affinity = Affinity::from_fn(n, |i, j| i == j);
            let (a, b) = (ncut(&affinity, EPS).unwrap(), ncut(&affinity, EPS).unwrap());
            assert!(a.is_degenerate() && a == b && a.vector.iter().all(|y| y.is_finite()));
            let value = n as f64 * EPS / (1.0 + (n as f64 - 1.0) * EPS);
            assert!((a.value - value).abs() < 1e-12, "{} {value}", a.value);
        }
    }

    #[test]
    fn a_multiple_eigenvalue_has_the_same_answer_from_both_solvers() {
        // Four equal groups: three equal eigenvalues.
        let affinity = Affinity::from_fn(60, |i, j| i % 4 == j % 4);
        let found = ncut(&affinity, EPS).unwrap();
        assert!(found.is_degenerate(), "{}", found.gap);
        let normalized = Normalized::new(&affinity, EPS);
        let dense = normalized.dense();
        let u = canonical(&dense.values, &dense.vectors);
        let y: Vec<f64> = u.iter().zip(&normalized.inverse_root).map(|(u, r)| u * r).collect();
        let sign = if y[seed(&y)] < 0.0 { -1.0 } else { 1.0 };
        for (a, b) in found.vector.iter().zip(&y) {
            assert!((a - sign * b).abs() < 1e-9, "{a} {b}");
        }
    }

    #[test]
    fn parts_are_told_apart() {
        let affinity = Affinity::from_fn(200, |i, j| (i < 50) == (j < 50));
        let found = ncut(&affinity, EPS).unwrap();
        assert!(found.value < 1e-4 && !found.is_degenerate(), "{found:?}");
        assert!(found.vector.iter().enumerate().all(|(i, &y)| (y > 0.0) == (i < 50)));
    }

    #[test]
    fn threads_change_nothing() {
        let affinity = bridge(1500);
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| ncut(&affinity, EPS).unwrap())
        };
        assert_eq!(with(1), with(3));
    }
}
