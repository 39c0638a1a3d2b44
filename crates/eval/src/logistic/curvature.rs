//! The Hessian of the cross-entropy with all its couplings between classes, estimated from a sample
//! of the rows.
//!
//! Where features barely separate some classes, the Hessian of a single class says little about the
//! direction in which two of them trade places, and L-BFGS preconditioned with it takes hundreds of
//! iterations. With the couplings, it takes tens.

use tch::{Kind, Tensor};

use crate::error::Result;

/// Maximum number of unknowns. The matrix of more would take more memory than the features of most
/// sets.
const MOST_UNKNOWNS: i64 = 6144;
/// Number of sampled rows per unknown. With as many rows as unknowns, the matrix would be nearly
/// singular.
const ROWS: i64 = 2;
/// Smallest ridge, as a fraction of the largest diagonal entry, that keeps rounding in single
/// precision from making a matrix indefinite.
const LEAST: f64 = 2.4e-7;
/// Factor by which the ridge grows from one trial to the next.
const GROWTH: f64 = 16.0;
const TRIALS: i32 = 3;

/// The matrix `sum_i (diag(p_i) - p_i p_i^T) (x) x_i x_i^T`, where `(x)` is the Kronecker product
/// and rows `x_i` end with a 1 for the bias.
pub(super) struct Curvature {
    /// `[K (R + 1), K (R + 1)]` in single precision, of which only the lower triangle is set.
    matrix: Tensor,
    classes: i64,
}

/// Returns the number of L-BFGS iterations that take as long as computing a curvature, or `None` if
/// it would be too large.
pub(super) fn price(rows: i64, rank: i64, classes: i64) -> Option<usize> {
    let unknowns = classes * (rank + 1);
    // Measured. The products here are large, and those of an iteration are narrow.
    let price = 0.13 * (unknowns * unknowns) as f64 / rows.max(1) as f64;
    (unknowns <= MOST_UNKNOWNS).then_some(price as usize)
}

impl Curvature {
    /// Computes the curvature from rows `[n, R]` with probabilities `[n, K]`, both in single
    /// precision.
    ///
    /// # Errors
    /// Returns an error if libtorch fails.
    pub(super) fn new(rows: &Tensor, probabilities: &Tensor) -> Result<Self> {
        let (_, classes) = probabilities.size2()?;
        let unknowns = classes * (rows.size2()?.1 + 1);
        let uncertain = probabilities - probabilities.square();
        let uncertain = uncertain.sum_dim_intlist([1].as_slice(), false, Kind::Double); // [n]
        let (places, scales) = sample(&Vec::try_from(uncertain)?, (ROWS * unknowns) as usize);
        let places = Tensor::from_slice(&places).to_device(rows.device());
        let scales = Tensor::from_slice(&scales).to_device(rows.device()).unsqueeze(1);
        let chosen = rows.index_select(0, &places);
        let x = Tensor::f_cat(&[chosen, scales.ones_like()], 1)?; // [s, R + 1]
        let p = probabilities.index_select(0, &places); // [s, K]
        let width = x.size2()?.1;
        let matrix = Tensor::f_zeros([unknowns, unknowns], (Kind::Float, rows.device()))?;
        for a in 0..classes {
            let of_a = p.narrow(1, a, 1); // [s, 1]
            for b in a..classes {
                let coupling = -&of_a * p.narrow(1, b, 1);
                let weights = if a == b { coupling + &of_a } else { coupling };
                let block = (&x * (weights * &scales)).tr().matmul(&x); // [R + 1, s] x [s, R + 1]
                matrix.narrow(0, b * width, width).narrow(1, a * width, width).copy_(&block);
            }
        }
        Ok(Self { matrix, classes })
    }

    /// Returns whether it has the same number of unknowns.
    pub(super) fn fits(&self, rank: i64, classes: i64) -> bool {
        self.classes == classes && self.matrix.size()[0] == classes * (rank + 1)
    }

    /// Factorizes the Hessian of `C` times the cross-entropy plus the penalty. Returns `None` if
    /// rounding leaves it indefinite.
    pub(super) fn solver(&self, c: f64) -> Option<Solver> {
        let width = self.matrix.size()[0] / self.classes;
        let penalty = Tensor::ones([self.classes, width], (Kind::Double, self.matrix.device()));
        let _ = penalty.narrow(1, width - 1, 1).zero_(); // the bias has no penalty
        let penalty = penalty.flatten(0, -1);
        let hessian = self.matrix.to_kind(Kind::Double) * c;
        let _ = hessian.diagonal(0, 0, 1).f_add_(&penalty).ok()?;
        let root = root(&hessian, LEAST)?.to_kind(Kind::Float);
        Some(Solver { root, classes: self.classes })
    }
}

/// Returns the Cholesky factor of a matrix that is positive definite up to rounding in single
/// precision, reading only its lower triangle. Adds `first` times the largest diagonal entry to the
/// diagonal, and more if that is not enough. Returns `None` if the matrix is not finite or far from
/// positive definite.
pub(super) fn root(matrix: &Tensor, first: f64) -> Option<Tensor> {
    let largest = matrix.diagonal(0, 0, 1).max().double_value(&[]);
    let ridges = (0..TRIALS).map(|trial| LEAST * GROWTH.powi(trial));
    for ridge in std::iter::once(first).chain(ridges.filter(|&ridge| ridge > first)) {
        let matrix = matrix.copy();
        let _ = matrix.diagonal(0, 0, 1).f_add_scalar_(ridge * largest).ok()?;
        if let Ok(root) = matrix.f_linalg_cholesky(false) {
            return Some(root);
        }
    }
    None
}

/// A Hessian in factorized form.
pub(super) struct Solver {
    root: Tensor, // [K (R + 1), K (R + 1)] in single precision
    classes: i64,
}

impl Solver {
    /// Returns the inverse Hessian times a gradient `[R + 1, K]`.
    pub(super) fn solve(&self, gradient: &Tensor) -> Tensor {
        // Scaled because single precision has a small range.
        let scale = gradient.abs().max().clamp_min(f64::MIN_POSITIVE);
        let right = (gradient / &scale).to_kind(Kind::Float).tr().reshape([-1, 1]);
        let half = self.root.linalg_solve_triangular(&right, false, true, false);
        let solved = self.root.tr().linalg_solve_triangular(&half, true, true, false);
        solved.view([self.classes, -1]).tr().to_kind(Kind::Double) * scale
    }
}

/// Chooses about `most` rows, each with a probability that grows with its weight, and returns them
/// with the inverse of these probabilities. Rows are spread evenly over the cumulative weight, so
/// no random numbers are drawn.
fn sample(weights: &[f64], most: usize) -> (Vec<i64>, Vec<f32>) {
    if weights.iter().sum::<f64>() <= 0.0 {
        return (Vec::new(), Vec::new());
    }
    if weights.len() <= most {
        return ((0..weights.len() as i64).collect(), vec![1.0; weights.len()]);
    }
    // Rows with at least this weight are chosen with certainty.
    let mut sure = f64::INFINITY;
    loop {
        let rest: f64 = weights.iter().filter(|&&weight| weight < sure).sum();
        let places = most - weights.iter().filter(|&&weight| weight >= sure).count().min(most);
        let next = rest / places.max(1) as f64;
        if next >= sure || places == 0 {
            break;
        }
        sure = next;
    }
    let (mut places, mut scales, mut sum) = (Vec::new(), Vec::new(), 0.5);
    for (place, &weight) in weights.iter().enumerate() {
        let probability = (weight / sure).min(1.0);
        sum += probability;
        if sum >= 1.0 {
            sum -= 1.0;
            places.push(place as i64);
            scales.push((1.0 / probability) as f32);
        }
    }
    (places, scales)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn the_sample_stands_for_all_rows() {
        let weights: Vec<f64> = (0..10_000).map(|i| f64::from(i % 100) / 100.0).collect();
        let (places, scales) = sample(&weights, 500);
        assert!((480..=520).contains(&places.len()), "{}", places.len());
        let stands = |of: &dyn Fn(usize) -> f64| -> f64 {
            places.iter().zip(&scales).map(|(&i, &scale)| f64::from(scale) * of(i as usize)).sum()
        };
        let all: f64 = weights.iter().sum();
        assert!((stands(&|i| weights[i]) / all - 1.0).abs() < 0.01);
        assert!(!places.contains(&0), "rows without weight tell nothing");
        // One row outweighs all others, so it is chosen exactly once, with certainty.
        let mut one = vec![1e-3; 1000];
        one[700] = 50.0;
        let (places, scales) = sample(&one, 100);
        let at = places.iter().position(|&place| place == 700).unwrap();
        assert_eq!((scales[at], places.iter().filter(|&&place| place == 700).count()), (1.0, 1));
        assert_eq!(sample(&weights, 10_000).0.len(), 10_000);
        assert!(sample(&[0.0; 50], 10).0.is_empty());
    }

    #[test]
    fn it_is_the_hessian_of_the_cross_entropy() {
        let rows = Tensor::from_slice(&[0.5f32, -1.0, 2.0, 1.0, -0.3, 0.2, 0.9, -1.7]).view([4, 2]);
        let logits =
            Tensor::from_slice(&[0.1f64, 0.4, -0.6, 0.3, 0.0, 0.2, -1.0, 0.5, 0.8, 0.1, 0.7, -0.2]);
        let p = logits.view([4, 3]).softmax(1, Kind::Float);
        let c = 3.0;
        let solver = Curvature::new(&rows, &p).unwrap().solver(c).unwrap();
        let gradient =
            Tensor::from_slice(&[1.0, -2.0, 0.5, 0.3, 0.9, -1.1, 0.4, -0.8, 0.4]).view([3, 3]);
        let step = solver.solve(&gradient); // [R + 1, K]
        // Computes the Hessian times the step, image by image.
        let x = Tensor::cat(&[rows, Tensor::ones([4, 1], (Kind::Float, Device::Cpu))], 1)
            .to_kind(Kind::Double);
        let p = p.to_kind(Kind::Double);
        let scores = x.matmul(&step); // [n, K]
        let mean = (&scores * &p).sum_dim_intlist([1].as_slice(), true, Kind::Double);
        let product = x.tr().matmul(&(&p * (scores - mean))) * c;
        let penalty = Tensor::cat(&[step.narrow(0, 0, 2), step.narrow(0, 2, 1).zeros_like()], 0);
        let error = (product + penalty - gradient).abs().max().double_value(&[]);
        assert!(error < 1e-3, "{error}");
    }
}
