//! L-BFGS for a smooth convex function.

use std::collections::VecDeque;

use tch::Tensor;

/// Pairs of steps and changes of the gradient that are kept.
const HISTORY: usize = 10;
/// Halvings of a step before the search gives up; 2^-50 is the precision of a double.
const MOST_TRIALS: usize = 50;
/// A step must lower the loss by at least this fraction of what its slope promises (Armijo).
const SUFFICIENT: f64 = 1e-4;

/// Value and gradient at a point.
pub(super) struct Point {
    pub loss: f64,
    pub gradient: Tensor,
}

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub iterations: usize,
    /// Smallest decrease of the loss as a fraction of it.
    pub tolerance: f64,
}

/// The lowest point that was found.
pub(super) struct Found {
    pub at: Tensor,
    pub loss: f64,
    pub iterations: usize,
    pub converged: bool,
}

/// Minimizes `f` from `start`.
pub(super) fn minimize(start: &Tensor, f: impl Fn(&Tensor) -> Point, limits: Limits) -> Found {
    let mut at = start.copy();
    let mut here = f(&at);
    let mut memory = Memory::default();
    for iteration in 1..=limits.iterations {
        let direction = -memory.times_inverse_hessian(&here.gradient);
        let Some((step, next)) = search(&f, &at, &here, &direction) else {
            // Not even a tiny step goes down: this is the minimum, as far as doubles can tell.
            return Found { at, loss: here.loss, iterations: iteration, converged: true };
        };
        let moved = direction * step;
        memory.add(moved.shallow_clone(), &next.gradient - &here.gradient);
        at += moved;
        let decrease = here.loss - next.loss;
        let small = limits.tolerance * here.loss.abs().max(next.loss.abs()).max(1.0);
        here = next;
        if decrease <= small {
            return Found { at, loss: here.loss, iterations: iteration, converged: true };
        }
    }
    Found { at, loss: here.loss, iterations: limits.iterations, converged: false }
}

/// A step along `direction` that lowers the loss enough, and where it leads.
fn search(
    f: &impl Fn(&Tensor) -> Point,
    at: &Tensor,
    here: &Point,
    direction: &Tensor,
) -> Option<(f64, Point)> {
    let slope = dot(&here.gradient, direction);
    if slope.is_nan() || slope >= 0.0 {
        return None;
    }
    let mut step = 1.0;
    for _ in 0..MOST_TRIALS {
        let next = f(&(at + direction * step));
        if next.loss <= here.loss + SUFFICIENT * step * slope {
            return Some((step, next));
        }
        // The minimum of the parabola through both values and the slope, within bounds.
        let parabola = -slope * step * step / (2.0 * (next.loss - here.loss - slope * step));
        step =
            if parabola.is_finite() { parabola.clamp(0.1 * step, 0.5 * step) } else { 0.5 * step };
    }
    None
}

/// The last steps, from which L-BFGS estimates the inverse of the Hessian.
#[derive(Default)]
struct Memory {
    /// Step, change of the gradient, and the inverse of their product.
    pairs: VecDeque<(Tensor, Tensor, f64)>,
}

impl Memory {
    fn add(&mut self, step: Tensor, change: Tensor) {
        let product = dot(&step, &change);
        // Rounding can make it zero or negative near the minimum, and then it tells nothing.
        if product <= f64::EPSILON * dot(&change, &change) {
            return;
        }
        if self.pairs.len() == HISTORY {
            self.pairs.pop_front();
        }
        self.pairs.push_back((step, change, 1.0 / product));
    }

    /// The two-loop recursion (Nocedal and Wright, algorithm 7.4).
    fn times_inverse_hessian(&self, gradient: &Tensor) -> Tensor {
        let mut q = gradient.copy();
        let mut alphas = Vec::with_capacity(self.pairs.len());
        for (step, change, inverse) in self.pairs.iter().rev() {
            let alpha = inverse * dot(step, &q);
            q -= change * alpha;
            alphas.push(alpha);
        }
        if let Some((_, change, inverse)) = self.pairs.back() {
            q *= 1.0 / (inverse * dot(change, change));
        }
        for ((step, change, inverse), alpha) in self.pairs.iter().zip(alphas.into_iter().rev()) {
            let beta = inverse * dot(change, &q);
            q += step * (alpha - beta);
        }
        q
    }
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    (a * b).sum(None).double_value(&[])
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn a_badly_scaled_parabola_is_minimized() {
        let scales = Tensor::from_slice(&[1.0, 30.0, 1e3, 1e4]);
        let target = Tensor::from_slice(&[1.0, -2.0, 3.0, -4.0]);
        let f = |x: &Tensor| {
            let difference = x - &target;
            let gradient = &scales * &difference;
            Point { loss: 0.5 * dot(&gradient, &difference), gradient }
        };
        let start = Tensor::zeros([4], (Kind::Double, Device::Cpu));
        let limits = Limits { iterations: 200, tolerance: 1e-15 };
        let found = minimize(&start, f, limits);
        assert!(found.converged && found.iterations < 100, "{}", found.iterations);
        assert!((found.at - &target).abs().max().double_value(&[]) < 1e-6);
        let stopped = minimize(&start, f, Limits { iterations: 3, tolerance: 1e-15 });
        assert!(!stopped.converged && stopped.iterations == 3 && stopped.loss > found.loss);
    }

    #[test]
    fn a_start_at_the_minimum_stays_there() {
        let f = |x: &Tensor| Point { loss: 0.5 * dot(x, x), gradient: x.copy() };
        let start = Tensor::zeros([3], (Kind::Double, Device::Cpu));
        let found = minimize(&start, f, Limits { iterations: 10, tolerance: 1e-12 });
        assert!(found.converged);
        assert_eq!(found.at, start);
    }
}
