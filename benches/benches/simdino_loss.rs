//! Measures the complete SimDINO loss, forward and backward, for 512 images of width 256 in 8
//! groups: peak memory by the number of views, then time.
//!
//! If memory were proportional to the number of pairs of views, it would grow quadratically.

use criterion::{BenchmarkId, Criterion, criterion_group};
use objectives::simdino::SimDinoLoss;
use objectives::{Inputs, Outputs, SimDinoConfig, StepContext};
use std::hint::black_box;
use std::process::Command;
use tch::{Device, Kind, Tensor};
use torch_ext::{SingleProcess, device_memory, reset_peak_memory};

const BATCH: i64 = 512;
const WIDTH: i64 = 256;
const VIEWS: [i64; 4] = [6, 12, 24, 48];

fn features(views: i64) -> Tensor {
    tch::manual_seed(0);
    let x = Tensor::randn([views, BATCH, WIDTH], (Kind::Float, Device::Cpu));
    &x / x.square().sum_dim_intlist(-1, true, Kind::Float).sqrt()
}

/// Computes the loss and gradient as a training step does.
fn step(loss: &SimDinoLoss, student: &Tensor, teacher: &Tensor) -> Option<Tensor> {
    let leaf = student.detach().set_requires_grad(true);
    let student = Outputs::of_cls(leaf.shallow_clone());
    let teacher = Outputs::of_cls(teacher.shallow_clone());
    let context = StepContext::first(BATCH as usize);
    let inputs = Inputs {
        student: &student,
        teacher: &teacher,
        masked: None,
        context,
        collective: &SingleProcess,
        deferred: None,
    };
    let output = loss.forward(&inputs).ok()?;
    output.loss.backward();
    Some(leaf.grad())
}

/// Environment variable that makes a process report the peak of its first step. Later steps would
/// reuse freed memory.
const PEAK_OF: &str = "SIMDINO_BENCH_PEAK_OF_VIEWS";

/// Returns the peak of resident memory during a step, above that before it, in MiB, measured in a
/// separate process.
fn peak(views: i64) -> Option<f64> {
    let program = std::env::current_exe().ok()?;
    let output = Command::new(program).env(PEAK_OF, views.to_string()).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

fn peak_here(loss: &SimDinoLoss, views: i64) -> Option<f64> {
    let (student, teacher) = (features(views), features(2));
    let before = device_memory(Device::Cpu).ok()?.allocated_bytes;
    reset_peak_memory(Device::Cpu);
    drop(step(loss, &student, &teacher)?);
    let peak = device_memory(Device::Cpu).ok()?.peak_allocated_bytes;
    Some(peak.saturating_sub(before) as f64 / f64::from(1 << 20))
}

fn forward_and_backward(c: &mut Criterion) {
    tch::set_num_threads(1);
    let Ok(loss) = SimDinoLoss::new(&SimDinoConfig::default()) else { return };
    let mut group = c.benchmark_group("simdino_loss");
    for views in VIEWS {
        if let Some(mib) = peak(views) {
            let own = (views * BATCH * WIDTH * 4) as f64 / f64::from(1 << 20);
            println!("{views} views: peak {mib:.1} MiB above features of {own:.1} MiB");
        }
        let (student, teacher) = (features(views), features(2));
        group.bench_with_input(BenchmarkId::new("views", views), &student, |b, student| {
            b.iter(|| drop(black_box(step(&loss, student, &teacher))));
        });
    }
    group.finish();
}

criterion_group!(benches, forward_and_backward);

fn main() {
    let views = std::env::var(PEAK_OF).ok().and_then(|views| views.parse().ok());
    match views {
        Some(views) => {
            tch::set_num_threads(1);
            let loss = SimDinoLoss::new(&SimDinoConfig::default()).ok();
            let peak = loss.and_then(|loss| peak_here(&loss, views));
            println!("{}", peak.unwrap_or(f64::NAN));
        }
        None => benches(),
    }
}
