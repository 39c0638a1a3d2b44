//! Compares the value and gradient of the coding rate in closed form with autograd through
//! Cholesky, on one thread of the CPU, in one process.
//!
//! Sizes are `(n, d)`, the rows and width of a group. `8x` stands for the 8 groups of the published
//! run in one call, compared with one autograd graph over the batch. `gram` is the smaller Gram
//! product alone, which every implementation needs.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use objectives::coding_rate::{RateOptions, coding_rate};
use std::hint::black_box;
use tch::{Device, Kind, Tensor};

/// The published run's `d / (n eps)`.
const ALPHA: f64 = 10.0;

const SIZES: [(&str, &[i64]); 5] = [
    ("64x256", &[64, 256]),
    ("64x768", &[64, 768]),
    ("512x256", &[512, 256]),
    ("1024x256", &[1024, 256]),
    ("8x64x256", &[8, 64, 256]),
];

fn unit_rows(shape: &[i64]) -> Tensor {
    tch::manual_seed(0);
    let z = Tensor::randn(shape, (Kind::Float, Device::Cpu));
    &z / z.square().sum_dim_intlist(-1, true, Kind::Float).sqrt()
}

/// Computes the formula with a gradient by autograd, always with a `[d, d]` matrix, as published.
fn by_autograd(z: &Tensor) -> (Tensor, Tensor) {
    let z = z.detach().set_requires_grad(true);
    let d = z.size()[z.dim() - 1];
    let gram = z.transpose(-2, -1).matmul(&z);
    let matrix = Tensor::eye(d, (Kind::Float, Device::Cpu)) + gram * ALPHA;
    let lower = matrix.linalg_cholesky_ex(false, false).0;
    let value = lower.diagonal(0, -2, -1).log().sum(Kind::Float);
    value.backward();
    (value.detach(), z.grad())
}

/// Returns the smaller of the two Gram matrices.
fn gram(z: &Tensor) -> Tensor {
    let (n, d) = (z.size()[z.dim() - 2], z.size()[z.dim() - 1]);
    let z_t = z.transpose(-2, -1);
    if n <= d { z.matmul(&z_t) } else { z_t.matmul(z) }
}

fn value_and_gradient(c: &mut Criterion) {
    tch::set_num_threads(1);
    let mut group = c.benchmark_group("coding_rate");
    for (name, shape) in SIZES {
        let z = unit_rows(shape);
        group.bench_with_input(BenchmarkId::new("closed_form", name), &z, |b, z| {
            b.iter(|| black_box(coding_rate(z, &RateOptions::new(ALPHA))));
        });
        group.bench_with_input(BenchmarkId::new("gram", name), &z, |b, z| {
            b.iter(|| black_box(gram(z)));
        });
        group.bench_with_input(BenchmarkId::new("autograd", name), &z, |b, z| {
            b.iter(|| black_box(by_autograd(z)));
        });
    }
    group.finish();
}

criterion_group!(benches, value_and_gradient);
criterion_main!(benches);
