//! L-BFGS for smooth convex functions, with a preconditioner that is updated along the way. Starts
//! in single precision and finishes in double precision.

use std::collections::VecDeque;

use tch::{Device, Kind, Tensor};

/// Number of pairs of steps and gradient changes that are kept.
const HISTORY: usize = 20;
/// Maximum number of trial steps per line search, in double and in single precision. 2^-50 is about
/// the precision of a double; in single precision, a step that fails to lower the loss is soon due
/// to rounding.
const MOST_TRIALS: [usize; 2] = [50, 4];
/// A step must lower the loss by at least this fraction of the decrease that its slope predicts
/// (Armijo).
const SUFFICIENT: f64 = 1e-4;
/// Relative decrease of the loss below which single precision gains nothing more.
const SINGLE_TOLERANCE: f64 = 1e-7;

/// The value and gradient at a point.
pub(super) struct Point {
    pub loss: f64,
    /// In double precision, whatever precision it was computed in.
    pub gradient: Tensor,
}

/// A function to minimize.
pub(super) trait Objective {
    /// Computes the value and gradient in `Kind::Float` or `Kind::Double`.
    fn at(&self, x: &Tensor, precision: Kind) -> Point;

    /// Called at the start `x` of each iteration, numbered from 1; may update the preconditioner
    /// for the neighborhood of `x`.
    fn refresh(&mut self, x: &Tensor, iteration: usize);

    /// Returns an estimate of the inverse Hessian times `gradient`.
    fn precondition(&self, gradient: &Tensor) -> Tensor;

    /// Returns whether the estimate has the right scale, and not only the right direction.
    fn is_scaled(&self) -> bool;
}

/// Stopping criteria.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub iterations: usize,
    /// Smallest relative decrease of the loss.
    pub tolerance: f64,
}

/// The lowest point that was found.
pub(super) struct Found {
    pub at: Tensor,
    pub loss: f64,
    pub iterations: usize,
    pub converged: bool,
}

/// Minimizes `f` from `start`, in double precision.
///
/// While the loss still falls fast, single precision is enough to decide where to go next.
/// Convergence is always decided in double precision.
pub(super) fn minimize(start: &Tensor, f: &mut impl Objective, limits: Limits) -> Found {
    let mut precision = Kind::Float;
    let mut at = start.copy();
    let mut here = f.at(&at, precision);
    let mut memory = Memory::default();
    let mut idle = false;
    for iteration in 1..=limits.iterations {
        f.refresh(&at, iteration);
        let direction = -memory.times_inverse_hessian(&here.gradient, f);
        let found = search(f, &at, &here, &direction, precision);
        let mut decrease = 0.0;
        if let Some((step, next)) = found {
            let moved = direction * step;
            memory.add(&moved, &(&next.gradient - &here.gradient));
            at += moved;
            decrease = here.loss - next.loss;
            here = next;
        }
        let falls = |tolerance: f64| decrease > tolerance * here.loss.abs();
        if precision == Kind::Double {
            let small = !falls(limits.tolerance);
            if small && idle {
                let converged = here.loss.is_finite();
                return Found { at, loss: here.loss, iterations: iteration, converged };
            }
            if small {
                memory = Memory::default(); // perhaps it misled: retry without it
            }
            idle = small;
        } else if !falls(SINGLE_TOLERANCE.max(limits.tolerance)) {
            precision = Kind::Double;
            here = f.at(&at, precision);
        }
    }
    if precision == Kind::Float {
        here = f.at(&at, Kind::Double);
    }
    Found { at, loss: here.loss, iterations: limits.iterations, converged: false }
}

/// Searches for a step along `direction` that lowers the loss enough; returns it with the new
/// point.
fn search(
    f: &impl Objective,
    at: &Tensor,
    here: &Point,
    direction: &Tensor,
    precision: Kind,
) -> Option<(f64, Point)> {
    let slope = dot(&here.gradient, direction);
    if slope.is_nan() || slope >= 0.0 {
        return None;
    }
    let mut step = 1.0;
    for _ in 0..MOST_TRIALS[usize::from(precision == Kind::Float)] {
        let next = f.at(&(at + direction * step), precision);
        if next.loss <= here.loss + SUFFICIENT * step * slope {
            return Some((step, next));
        }
        // Minimum of the parabola through both values and the slope, within bounds.
        let parabola = -slope * step * step / (2.0 * (next.loss - here.loss - slope * step));
        step =
            if parabola.is_finite() { parabola.clamp(0.1 * step, 0.5 * step) } else { 0.5 * step };
    }
    None
}

/// The last steps, from which L-BFGS estimates the inverse Hessian.
///
/// Steps and changes are the rows of two matrices, and the recursion over them runs on their inner
/// products. A few matrix-vector products thus replace dozens of operations on single vectors.
#[derive(Default)]
struct Memory {
    rows: Option<Rows>,
    /// Inner products of step i and change j, at `[i][j]`.
    products: [[f64; HISTORY]; HISTORY],
    /// Indices of the rows in use, from the oldest to the newest.
    order: VecDeque<usize>,
}

/// The steps and gradient changes, `[HISTORY, n]` each; unused rows are zero.
struct Rows {
    steps: Tensor,
    changes: Tensor,
}

impl Rows {
    fn new(like: &Tensor) -> Self {
        let size = [HISTORY as i64, like.numel() as i64];
        let zeros = || Tensor::zeros(size, (Kind::Double, like.device()));
        Self { steps: zeros(), changes: zeros() }
    }
}

impl Memory {
    fn add(&mut self, step: &Tensor, change: &Tensor) {
        let product = dot(step, change);
        // Near the minimum, rounding can make the product zero or negative; it is then meaningless.
        if product.is_nan() || product <= f64::EPSILON * dot(change, change) {
            return;
        }
        let row = match self.order.len() {
            HISTORY => self.order.pop_front().unwrap_or_default(),
            unused => unused,
        };
        let Rows { steps, changes } = self.rows.get_or_insert_with(|| Rows::new(step));
        let (step, change) = (step.flatten(0, -1), change.flatten(0, -1));
        steps.get(row as i64).copy_(&step);
        changes.get(row as i64).copy_(&change);
        let (of_step, of_change) = (times(changes, &step), times(steps, &change));
        for other in 0..HISTORY {
            self.products[row][other] = of_step[other];
            self.products[other][row] = of_change[other];
        }
        self.order.push_back(row);
    }

    /// Applies the two-loop recursion (Nocedal and Wright, algorithm 7.4) around the
    /// preconditioner.
    fn times_inverse_hessian(&self, gradient: &Tensor, f: &impl Objective) -> Tensor {
        let (Some(Rows { steps, changes }), Some(&newest)) = (&self.rows, self.order.back()) else {
            return f.precondition(gradient);
        };
        let products = &self.products;
        let own = times(steps, gradient);
        let mut alphas = [0.0; HISTORY];
        for &i in self.order.iter().rev() {
            let of_newer: f64 = (0..HISTORY).map(|j| alphas[j] * products[i][j]).sum();
            alphas[i] = (own[i] - of_newer) / products[i][i];
        }
        let mut q = f.precondition(&(gradient - combined(changes, &alphas, gradient)));
        if !f.is_scaled() {
            let change = changes.get(newest as i64).view_as(gradient);
            q *= products[newest][newest] / dot(&change, &f.precondition(&change));
        }
        let own = times(changes, &q);
        let mut factors = [0.0; HISTORY];
        for &i in &self.order {
            let of_older: f64 = (0..HISTORY).map(|j| factors[j] * products[j][i]).sum();
            factors[i] = alphas[i] - (own[i] + of_older) / products[i][i];
        }
        &q + combined(steps, &factors, &q)
    }
}

/// Computes the inner products of rows `[HISTORY, n]` with a vector of n values.
fn times(rows: &Tensor, vector: &Tensor) -> [f64; HISTORY] {
    let mut products = [0.0; HISTORY];
    let found = rows.mv(&vector.flatten(0, -1)).to_device(Device::Cpu);
    found.copy_data(&mut products, HISTORY);
    products
}

/// Returns the sum of rows `[HISTORY, n]` weighted by `factors`, in the shape of `like`.
fn combined(rows: &Tensor, factors: &[f64; HISTORY], like: &Tensor) -> Tensor {
    let factors = Tensor::from_slice(factors).to_device(rows.device());
    rows.tr().mv(&factors).view_as(like)
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    (a * b).sum(None).double_value(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The function `1 + sum_i scale_i (x_i - target_i)^2 / 2`, with a preconditioner that divides
    /// by `scale_i` to the power `wrong`.
    struct Parabola {
        scales: Tensor,
        target: Tensor,
        wrong: Tensor,
        refreshed: usize,
    }

    impl Parabola {
        fn new(wrong: f64) -> Self {
            let scales = Tensor::from_slice(&[1.0, 30.0, 1e3, 1e4]);
            let target = Tensor::from_slice(&[1.0, -2.0, 3.0, -4.0]);
            let wrong = scales.pow_tensor_scalar(wrong);
            Self { scales, target, wrong, refreshed: 0 }
        }
    }

    impl Objective for Parabola {
        fn at(&self, x: &Tensor, precision: Kind) -> Point {
            let [x, scales, target] =
                [x, &self.scales, &self.target].map(|tensor| tensor.to_kind(precision));
            let difference = x - target;
            let gradient = scales * &difference;
            let loss = 1.0 + 0.5 * dot(&gradient, &difference);
            Point { loss, gradient: gradient.to_kind(Kind::Double) }
        }

        fn refresh(&mut self, _: &Tensor, iteration: usize) {
            self.refreshed += 1;
            assert_eq!(self.refreshed, iteration);
        }

        fn is_scaled(&self) -> bool {
            false
        }

        fn precondition(&self, gradient: &Tensor) -> Tensor {
            gradient / &self.wrong
        }
    }

    #[test]
    fn a_badly_scaled_parabola_is_minimized_to_the_precision_of_doubles() {
        let start = Tensor::zeros([4], (Kind::Double, Device::Cpu));
        let limits = Limits { iterations: 200, tolerance: 1e-15 };
        // No preconditioner, the exact one, and a harmful one.
        for (wrong, most) in [(0.0, 100), (1.0, 6), (-0.5, 200)] {
            let mut f = Parabola::new(wrong);
            let found = minimize(&start, &mut f, limits);
            let iterations = found.iterations;
            assert!(found.converged && iterations < most, "{wrong}: {iterations}");
            let distance = (found.at - &f.target).abs().max().double_value(&[]);
            assert!(distance < 1e-7, "{wrong}: {distance}");
            assert_eq!(f.refreshed, iterations);
        }
    }

    #[test]
    fn the_loss_at_the_last_iteration_is_a_double() {
        let start = Tensor::zeros([4], (Kind::Double, Device::Cpu));
        let mut f = Parabola::new(0.0);
        let limits = Limits { iterations: 3, tolerance: 1e-15 };
        let stopped = minimize(&start, &mut f, limits);
        assert!(!stopped.converged && stopped.iterations == 3 && stopped.loss > 1.0);
        assert_eq!(stopped.loss, f.at(&stopped.at, Kind::Double).loss);
    }

    #[test]
    fn a_start_at_the_minimum_stays_there() {
        let mut f = Parabola::new(0.0);
        let start = f.target.copy();
        let found = minimize(&start, &mut f, Limits { iterations: 10, tolerance: 1e-12 });
        assert!(found.converged);
        assert_eq!(found.at, start);
    }

    /// The same parabola, but single precision overflows.
    struct Overflow(Parabola);

    impl Objective for Overflow {
        fn at(&self, x: &Tensor, precision: Kind) -> Point {
            match precision {
                Kind::Double => self.0.at(x, precision),
                _ => Point { loss: f64::NAN, gradient: x * f64::NAN },
            }
        }

        fn refresh(&mut self, _: &Tensor, _: usize) {}

        fn is_scaled(&self) -> bool {
            false
        }

        fn precondition(&self, gradient: &Tensor) -> Tensor {
            self.0.precondition(gradient)
        }
    }

    #[test]
    fn what_overflows_in_single_precision_is_minimized_in_double() {
        let start = Tensor::zeros([4], (Kind::Double, Device::Cpu));
        let mut f = Overflow(Parabola::new(0.0));
        let found = minimize(&start, &mut f, Limits { iterations: 200, tolerance: 1e-15 });
        assert!(found.converged);
        assert!((found.at - &f.0.target).abs().max().double_value(&[]) < 1e-7);
    }
}
