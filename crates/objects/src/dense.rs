//! All eigenvalues and eigenvectors of a small symmetric matrix, by Householder reduction to a
//! tridiagonal matrix and QL steps with implicit shifts.

/// Eigenvalues and their vectors.
#[derive(Debug)]
pub(crate) struct Eigen {
    /// Eigenvalues in descending order.
    pub(crate) values: Vec<f64>,
    /// `vectors[k]` is the unit eigenvector of `values[k]`.
    pub(crate) vectors: Vec<Vec<f64>>,
}

/// Limit for the QL steps of one eigenvalue, which is never reached in practice.
const MOST_STEPS: usize = 60;

/// Computes the eigenvalues of the symmetric matrix `a`, `n x n`, stored row by row.
pub(crate) fn symmetric(mut a: Vec<f64>, n: usize) -> Eigen {
    let mut q = identity(n);
    let (mut diagonal, mut below) = tridiagonal(&mut a, &mut q, n);
    for first in 0..n {
        for _ in 0..MOST_STEPS {
            let last = block_end(&diagonal, &below, first);
            if last == first {
                break;
            }
            ql_step(&mut diagonal, &mut below, &mut q, (first, last), n);
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| diagonal[j].total_cmp(&diagonal[i]));
    Eigen {
        values: order.iter().map(|&k| diagonal[k]).collect(),
        vectors: order.iter().map(|&k| q[k * n..(k + 1) * n].to_vec()).collect(),
    }
}

fn identity(n: usize) -> Vec<f64> {
    let mut q = vec![0.0; n * n];
    q.iter_mut().step_by(n + 1).for_each(|x| *x = 1.0);
    q
}

/// Reduces `a` to the tridiagonal `Q^T A Q`; row `k` of `q` becomes column `k` of `Q`. Returns the
/// diagonal and the entries below it, where `below[k]` couples `diagonal[k]` and `diagonal[k + 1]`.
fn tridiagonal(a: &mut [f64], q: &mut [f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut below = vec![0.0; n];
    let (mut v, mut p) = (vec![0.0; n], vec![0.0; n]);
    for k in 0..n.saturating_sub(2) {
        // The reflection I - 2 v v^T maps column k below the diagonal to a multiple of the first
        // unit vector.
        v.fill(0.0);
        for i in k + 1..n {
            v[i] = a[i * n + k];
        }
        let length = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        if length == 0.0 {
            continue;
        }
        let target = if v[k + 1] > 0.0 { -length } else { length };
        v[k + 1] -= target;
        let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        if norm == 0.0 {
            below[k] = target;
            continue;
        }
        v.iter_mut().for_each(|x| *x /= norm);
        below[k] = target;
        reflect_both_sides(a, &v, &mut p, k + 1, n);
        // Q <- Q (I - 2 v v^T): rows of `q` are columns of Q.
        p.fill(0.0);
        for row in k + 1..n {
            for i in 0..n {
                p[i] += v[row] * q[row * n + i];
            }
        }
        for row in k + 1..n {
            for i in 0..n {
                q[row * n + i] -= 2.0 * v[row] * p[i];
            }
        }
    }
    if n >= 2 {
        below[n - 2] = a[(n - 1) * n + n - 2];
    }
    ((0..n).map(|i| a[i * n + i]).collect(), below)
}

/// Computes `A <- (I - 2 v v^T) A (I - 2 v v^T)` for the part from `from` on, where `v` is zero
/// before `from`.
fn reflect_both_sides(a: &mut [f64], v: &[f64], p: &mut [f64], from: usize, n: usize) {
    for i in from..n {
        p[i] = (from..n).map(|j| a[i * n + j] * v[j]).sum();
    }
    let k: f64 = (from..n).map(|i| v[i] * p[i]).sum();
    for i in from..n {
        p[i] -= k * v[i];
    }
    for i in from..n {
        for j in from..n {
            a[i * n + j] -= 2.0 * (v[i] * p[j] + p[i] * v[j]);
        }
    }
}

/// Returns the last row of the unreduced block that begins at `first`.
fn block_end(diagonal: &[f64], below: &[f64], first: usize) -> usize {
    let n = diagonal.len();
    (first..n - 1)
        .find(|&k| below[k].abs() <= f64::EPSILON * (diagonal[k].abs() + diagonal[k + 1].abs()))
        .unwrap_or(n - 1)
}

/// Performs one QL step with Wilkinson's shift on the block of rows `first..=last`.
fn ql_step(
    diagonal: &mut [f64],
    below: &mut [f64],
    q: &mut [f64],
    (first, last): (usize, usize),
    n: usize,
) {
    let half = (diagonal[first + 1] - diagonal[first]) / (2.0 * below[first]);
    let root = half.hypot(1.0);
    let shift = diagonal[first] - below[first] / (half + root.copysign(half));
    let (mut g, mut sine, mut cosine, mut lost) = (diagonal[last] - shift, 1.0, 1.0, 0.0);
    for i in (first..last).rev() {
        let (f, b) = (sine * below[i], cosine * below[i]);
        let r = f.hypot(g);
        below[i + 1] = r;
        if r == 0.0 {
            // The block splits here.
            diagonal[i + 1] -= lost;
            below[last] = 0.0;
            return;
        }
        (sine, cosine) = (f / r, g / r);
        g = diagonal[i + 1] - lost;
        let t = (diagonal[i] - g) * sine + 2.0 * cosine * b;
        lost = sine * t;
        diagonal[i + 1] = g + lost;
        g = cosine * t - b;
        let (upper, lower) = q.split_at_mut((i + 1) * n);
        for (x, y) in upper[i * n..].iter_mut().zip(&mut lower[..n]) {
            (*x, *y) = (cosine * *x - sine * *y, sine * *x + cosine * *y);
        }
    }
    diagonal[first] -= lost;
    below[first] = g;
    below[last] = 0.0;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::{dot, fixed_noise};

    fn check(a: &[f64], n: usize) {
        let eigen = symmetric(a.to_vec(), n);
        let size = a.iter().fold(1.0f64, |most, x| most.max(x.abs())) * n as f64;
        for k in 0..n {
            let v = &eigen.vectors[k];
            for i in 0..n {
                let product = dot(&a[i * n..(i + 1) * n], v);
                assert!((product - eigen.values[k] * v[i]).abs() < 1e-13 * size, "n {n}, pair {k}");
            }
            for l in 0..n {
                let expected = f64::from(u8::from(k == l));
                assert!((dot(v, &eigen.vectors[l]) - expected).abs() < 1e-12);
            }
            assert!(k == 0 || eigen.values[k - 1] >= eigen.values[k]);
        }
    }

    #[test]
    fn pairs_solve_random_and_special_matrices() {
        for n in [1, 2, 3, 4, 7, 20, 61] {
            let noise = fixed_noise(3, n * n);
            let mut a = vec![0.0; n * n];
            for i in 0..n {
                for j in 0..n {
                    a[i * n + j] = noise[i * n + j] + noise[j * n + i];
                }
            }
            check(&a, n);
            check(&vec![1.0; n * n], n);
            check(&vec![0.0; n * n], n);
            check(&identity(n), n);
        }
        check(&[2.0, 0.0, 0.0, 0.0, 1.0, 3.0, 0.0, 3.0, 1.0], 3);
    }
}
