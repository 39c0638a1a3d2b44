//! The loss of logistic regression, and a preconditioner that lets L-BFGS converge in few
//! iterations.

use std::rc::Rc;

use tch::{Device, Kind, Tensor};

use super::config::LogisticConfig;
use super::curvature::{Curvature, Solver, price, root};
use super::lbfgs::{self, Objective, Point};
use super::model::LogisticModel;
use crate::error::Result;

/// Number of rows per block on a CPU: a block stays in the cache between its two products.
const ROWS_CPU: i64 = 1 << 11;
/// Number of rows per block on other devices, to bound memory.
const ROWS_GPU: i64 = 1 << 16;

/// Training features. With a bias, they are centered, which does not change the solution, because
/// the bias absorbs the mean.
///
/// If there are fewer images than features, they are also rotated to the axes along which they
/// vary: the penalty is invariant under rotation, and at the minimum the weight has no component
/// along other axes.
pub(super) struct Problem {
    rows: Tensor,   // [n, R], R = D without rotation
    single: Tensor, // the same in single precision
    gram: Tensor,   // [R, R], X^T X
    labels: Tensor, // [n]
    mean: Tensor,   // [1, D], zeros without a bias
    bias: bool,
    axes: Option<Tensor>, // [D, R], one per column
    classes: i64,         // K
}

/// Iterations at which the Hessian model shared by all classes is recomputed: once the first steps
/// have separated easy rows from hard ones, and again when most of the way is done.
const REFRESH: [usize; 2] = [8, 20];
/// First iteration at which a curvature is computed. Most problems are solved by then.
const FIRST_CURVATURE: usize = 24;
/// Factor of the iteration count from one curvature to the next, because only a solution that is
/// still far away changes much.
const NEXT_CURVATURE: f64 = 1.5;

/// A minimum, and a good start for another `C` or other images with the same features.
pub(super) struct Solution {
    pub model: LogisticModel,
    curvature: Option<Rc<Curvature>>,
}

impl Problem {
    /// Prepares the training images.
    ///
    /// # Shapes
    /// - `features`: `[n, D]`
    /// - `labels`: `[n]`, from 0 to `classes - 1`
    pub(super) fn new(
        features: &Tensor,
        labels: &Tensor,
        classes: i64,
        device: Device,
    ) -> Result<Self> {
        let features = features.f_to_device(device)?.f_to_kind(Kind::Double)?;
        let mean = features.mean_dim([0].as_slice(), true, Kind::Double); // [n, D] -> [1, D]
        Self::centered_at(mean, &features, labels, classes)
    }

    /// [`Self::new`] for a model without a bias.
    pub(super) fn without_bias(
        features: &Tensor,
        labels: &Tensor,
        classes: i64,
        device: Device,
    ) -> Result<Self> {
        let features = features.f_to_device(device)?.f_to_kind(Kind::Double)?;
        let zeros = Tensor::zeros([1, features.size2()?.1], (Kind::Double, device));
        Ok(Self { bias: false, ..Self::centered_at(zeros, &features, labels, classes)? })
    }

    fn centered_at(mean: Tensor, features: &Tensor, labels: &Tensor, classes: i64) -> Result<Self> {
        let centered = features - &mean;
        let (count, dim) = centered.size2()?;
        let axes = if count < dim { axes_of_variance(&centered)? } else { None };
        let rows = match &axes {
            Some(axes) => centered.matmul(axes),
            None => centered,
        };
        let single = rows.to_kind(Kind::Float);
        let mut gram = single.tr().matmul(&single).to_kind(Kind::Double);
        if gram.isfinite().all().int64_value(&[]) == 0 {
            gram = rows.tr().matmul(&rows); // too large for single precision
        }
        let labels = labels.to_device(rows.device());
        Ok(Self { rows, single, gram, labels, mean, bias: true, axes, classes })
    }

    /// Minimizes the loss for one `C`, starting from `start` if given, or from zero.
    pub(super) fn solve(
        &self,
        c: f64,
        start: Option<&Solution>,
        config: &LogisticConfig,
    ) -> Result<Solution> {
        let rank = self.rows.size()[1];
        let (at, curvature) = match start {
            Some(start) => (self.point(&start.model), start.curvature.clone()),
            None => {
                let zeros =
                    Tensor::zeros([rank + 1, self.classes], (Kind::Double, self.rows.device()));
                (zeros, None)
            }
        };
        let limits =
            lbfgs::Limits { iterations: config.max_iterations, tolerance: config.tolerance };
        let mut loss = Loss::new(self, c, curvature)?;
        let found = lbfgs::minimize(&at, &mut loss, limits);
        let weight = found.at.narrow(0, 0, rank);
        let weight = match &self.axes {
            Some(axes) => axes.matmul(&weight), // [D, R] x [R, K] -> [D, K]
            None => weight.copy(),
        };
        let bias = found.at.get(rank) - self.mean.matmul(&weight).squeeze_dim(0);
        let model = LogisticModel {
            weight,
            bias,
            loss: found.loss,
            iterations: found.iterations,
            converged: found.converged,
        };
        Ok(Solution { model, curvature: loss.curvature })
    }

    /// Minimizes the loss for each `C` of the settings in ascending order, and passes its index
    /// among them and its solution to `visit`. Each fit starts from the previous solution.
    pub(super) fn solve_each(
        &self,
        config: &LogisticConfig,
        visit: &mut dyn FnMut(usize, &Rc<Solution>) -> Result<()>,
    ) -> Result<()> {
        let mut order: Vec<usize> = (0..config.c.len()).collect();
        order.sort_by(|&a, &b| config.c[a].total_cmp(&config.c[b]));
        let mut last: Option<Rc<Solution>> = None;
        for place in order {
            let solution = Rc::new(self.solve(config.c[place], last.as_deref(), config)?);
            visit(place, &solution)?;
            last = Some(solution);
        }
        Ok(())
    }

    /// Returns a model in the coordinates of this problem, `[R + 1, K]`.
    fn point(&self, model: &LogisticModel) -> Tensor {
        let bias = &model.bias + self.mean.matmul(&model.weight); // -> [1, K]
        let weight = match &self.axes {
            Some(axes) => axes.tr().matmul(&model.weight), // [R, D] x [D, K]
            None => model.weight.shallow_clone(),
        };
        Tensor::cat(&[weight, bias], 0)
    }

    /// Returns blocks of rows `[b, R]` and labels `[1, b]`.
    fn blocks(&self, precision: Kind) -> impl Iterator<Item = (Tensor, Tensor)> {
        let rows = if precision == Kind::Float { &self.single } else { &self.rows };
        let count = rows.size()[0];
        let size = if rows.device() == Device::Cpu { ROWS_CPU } else { ROWS_GPU };
        (0..count).step_by(size as usize).map(move |first| {
            let size = size.min(count - first);
            (rows.narrow(0, first, size), self.labels.narrow(0, first, size).unsqueeze(0))
        })
    }
}

/// The loss for one `C` as a function of weight and bias, `[R + 1, K]`.
struct Loss<'a> {
    problem: &'a Problem,
    c: f64,
    hessian: Hessian,
    curvature: Option<Rc<Curvature>>,
    /// Replaces the simpler Hessian model once it is available.
    solver: Option<Solver>,
    /// Iteration at which the next curvature is computed.
    next: usize,
}

/// A model of the Hessian that is shared by all classes, for the weight and for the bias.
struct Hessian {
    root: Tensor, // [R, R], Cholesky factor of `C X^T diag(w) X + 1`
    bias: f64,    // C sum(w)
}

impl Hessian {
    /// Creates the model from `gram = X^T diag(w) X` and `weights = sum(w)`.
    ///
    /// `gram` is rounded to single precision. Where features hardly vary, as in the direction that
    /// a final norm removes, a large `c` makes the rounding error exceed the identity, and the
    /// matrix becomes indefinite. The diagonal is then raised by as much as may have been lost.
    /// This affects only the preconditioner, not the minimum.
    ///
    /// # Errors
    /// Returns an error if the matrix is not finite.
    fn new(gram: &Tensor, weights: f64, c: f64) -> Result<Self> {
        let unit = Tensor::eye(gram.size()[0], (Kind::Double, gram.device()));
        let hessian = gram * c + unit;
        let root = match root(&hessian, 0.0) {
            Some(root) => root,
            None => hessian.f_linalg_cholesky(false)?, // returns the error
        };
        Ok(Self { root, bias: (c * weights).max(f64::MIN_POSITIVE) })
    }
}

impl<'a> Loss<'a> {
    /// Starts with the upper bound of the Hessian, half of `X^T X` (Boehning, 1992), or with a known
    /// curvature.
    fn new(problem: &'a Problem, c: f64, curvature: Option<Rc<Curvature>>) -> Result<Self> {
        let (count, rank) = problem.rows.size2()?;
        let half = 0.5 * count as f64;
        let hessian = Hessian::new(&(&problem.gram * 0.5), half, c)?;
        let curvature = curvature.filter(|known| known.fits(rank, problem.classes));
        let solver = curvature.as_ref().and_then(|known| known.solver(c));
        // A curvature must save more than it costs. The time spent without one is the best guess of
        // the time left to save.
        let price = price(count, rank, problem.classes);
        let next = price.map_or(usize::MAX, |price| price.max(FIRST_CURVATURE));
        let next = if solver.is_some() { FIRST_CURVATURE } else { next };
        // The curvature assumes a bias.
        let next = if problem.bias { next } else { usize::MAX };
        Ok(Self { problem, c, hessian, curvature, solver, next })
    }

    /// Weights each image by the mean of `p (1 - p)` over the classes, the diagonal of the Hessian
    /// of the cross-entropy: images that are classified with certainty hardly count anymore.
    fn renew_hessian(&mut self, point: &Tensor) {
        let rank = self.problem.rows.size()[1];
        let point = point.to_kind(Kind::Float);
        let (weight, bias) = (point.narrow(0, 0, rank), point.narrow(0, rank, 1));
        let mut gram = self.problem.gram.zeros_like().to_kind(Kind::Float);
        let mut sum = Tensor::zeros([1], (Kind::Double, point.device()));
        for (x, _) in self.problem.blocks(Kind::Float) {
            let p = (x.matmul(&weight) + &bias).softmax(1, Kind::Float); // [b, K]
            let weights = (&p - p.square()).mean_dim([1].as_slice(), true, Kind::Float); // [b, 1]
            gram += (&x * &weights).tr().matmul(&x); // [R, b] x [b, R]
            sum += weights.sum(Kind::Double);
        }
        // If the new Hessian is not finite, the previous one also leads to the minimum.
        let gram = gram.to_kind(Kind::Double);
        if let Ok(hessian) = Hessian::new(&gram, sum.double_value(&[0]), self.c) {
            self.hessian = hessian;
        }
    }

    /// Computes a Hessian that couples the classes. If that fails, the previous one also leads to
    /// the minimum.
    fn renew_curvature(&mut self, point: &Tensor) {
        let rank = self.problem.rows.size()[1];
        let point = point.to_kind(Kind::Float);
        let (weight, bias) = (point.narrow(0, 0, rank), point.narrow(0, rank, 1));
        let rows = &self.problem.single;
        let p = (rows.matmul(&weight) + &bias).softmax(1, Kind::Float); // [n, K]
        let Ok(curvature) = Curvature::new(rows, &p) else { return };
        if let Some(solver) = curvature.solver(self.c) {
            (self.solver, self.curvature) = (Some(solver), Some(Rc::new(curvature)));
        }
    }
}

impl Objective for Loss<'_> {
    fn at(&self, point: &Tensor, precision: Kind) -> Point {
        let (problem, c) = (self.problem, self.c);
        let (rank, classes) = (problem.rows.size()[1], problem.classes);
        let (weight, bias) = (point.narrow(0, 0, rank), point.narrow(0, rank, 1));
        // One row per class, because products with a few long rows take half the time of those with
        // a few columns.
        let (own_weight, own_bias) = (weight.to_kind(precision).tr(), bias.to_kind(precision).tr());
        let options = (precision, point.device());
        let of_weight = Tensor::zeros([classes, rank], options);
        let mut of_bias = Tensor::zeros([classes, 1], options);
        let mut losses = Tensor::zeros([1], (Kind::Double, point.device()));
        for (x, labels) in problem.blocks(precision) {
            let scores = own_weight.matmul(&x.tr()) + &own_bias; // [K, R] x [R, b] -> [K, b]
            let log_sums = scores.logsumexp([0].as_slice(), true); // [1, b]
            losses += (&log_sums - scores.gather(0, &labels, false)).sum(Kind::Double);
            let minus = Tensor::full(labels.size(), -1.0, options);
            let errors = (scores - log_sums).exp().scatter_add(0, &labels, &minus); // [K, b]
            of_bias += errors.sum_dim_intlist([1].as_slice(), true, precision);
            let _ = of_weight.shallow_clone().addmm_(&errors, &x); // adds [K, b] x [b, R] in place
        }
        let loss = losses * c + weight.square().sum(None) * 0.5;
        let of_weight = of_weight.tr().to_kind(Kind::Double) * c + &weight;
        // In exact arithmetic, the sum over the classes is 0. Rounding errors would let the biases
        // drift, because nothing penalizes them.
        let of_bias = of_bias.tr().to_kind(Kind::Double) * c;
        let of_bias = match problem.bias {
            true => &of_bias - of_bias.mean(Kind::Double),
            false => of_bias.zeros_like(), // it stays at 0
        };
        Point { loss: loss.double_value(&[0]), gradient: Tensor::cat(&[of_weight, of_bias], 0) }
    }

    fn refresh(&mut self, point: &Tensor, iteration: usize) {
        if iteration >= self.next {
            self.renew_curvature(point);
            self.next = (iteration as f64 * NEXT_CURVATURE) as usize;
        } else if self.solver.is_none() && REFRESH.contains(&iteration) {
            self.renew_hessian(point);
        }
    }

    fn precondition(&self, gradient: &Tensor) -> Tensor {
        if let Some(solver) = &self.solver {
            return solver.solve(gradient);
        }
        let rank = self.problem.rows.size()[1];
        let of_weight = gradient.narrow(0, 0, rank).cholesky_solve(&self.hessian.root, false);
        let of_bias = gradient.narrow(0, rank, 1) / self.hessian.bias;
        Tensor::cat(&[of_weight, of_bias], 0)
    }

    fn is_scaled(&self) -> bool {
        self.solver.is_some()
    }
}

/// Returns the orthonormal axes `[D, R]` along which `[n, D]` features vary if n < D; `None` if
/// they do not vary, as with a collapsed network.
fn axes_of_variance(centered: &Tensor) -> Result<Option<Tensor>> {
    let (count, dim) = centered.size2()?;
    let (energies, vectors) = centered.matmul(&centered.tr()).f_linalg_eigh("L")?; // ascending
    let least = energies.max() * f64::EPSILON * (count.max(dim) as f64);
    let rank = energies.gt_tensor(&least).sum(Kind::Int64).int64_value(&[]);
    if rank == 0 {
        return Ok(None);
    }
    let first = count - rank;
    let (energies, vectors) = (energies.narrow(0, first, rank), vectors.narrow(1, first, rank));
    Ok(Some(centered.tr().matmul(&vectors) * energies.rsqrt())) // [D, n] x [n, R] -> [D, R]
}
