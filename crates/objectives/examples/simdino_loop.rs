//! The SimDINO loss in a training loop of your own, with a network and data of your own.
//!
//! ```text
//! cargo run -p simdino-objectives --example simdino_loop
//! ```
//!
//! The data are 256 hidden points; a view of a point is a fixed random projection of it with fresh
//! noise. The student must map all views of a point to the same direction, and different points to
//! different ones. The first alone would be trivial, with one direction for everything; the coding
//! rate requires the second.

use objectives::simdino::SimDinoLoss;
use objectives::{Inputs, Objective, Outputs, SimDinoConfig, StepContext};
use tch::nn::{self, Module, OptimizerConfig};
use tch::{Device, Kind, Tensor};
use torch_ext::SingleProcess;

const POINTS: i64 = 256;
const STEPS: u64 = 200;
/// Fraction of the teacher that is kept in each step.
const MOMENTUM: f64 = 0.99;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tch::manual_seed(0);
    let points = Tensor::randn([POINTS, 8], (Kind::Float, Device::Cpu));
    let projection = Tensor::randn([8, 64], (Kind::Float, Device::Cpu));

    // Both networks have the same architecture; the teacher starts as a copy without gradients.
    let student_vars = nn::VarStore::new(Device::Cpu);
    let mut teacher_vars = nn::VarStore::new(Device::Cpu);
    let (student, teacher) = (network(&student_vars.root()), network(&teacher_vars.root()));
    teacher_vars.copy(&student_vars)?;
    teacher_vars.freeze();
    let mut optimizer = nn::AdamW::default().build(&student_vars, 1e-3)?;

    // One group: the coding rate of the whole batch. In the published code, each GPU is a group.
    let config = SimDinoConfig { rate_groups: 1, ..SimDinoConfig::default() };
    let mut objective = SimDinoLoss::new(&config)?;

    for step in 0..STEPS {
        let views = view_pair(&points, &projection); // [2, POINTS, 64]
        let inputs = Inputs {
            student: &Outputs::of_cls(unit(&student.forward(&views))),
            teacher: &Outputs::of_cls(tch::no_grad(|| unit(&teacher.forward(&views)))),
            masked: None,
            context: StepContext {
                step,
                steps_per_epoch: 1,
                progress: step as f64 / STEPS as f64, // schedules inside the loss follow it
                batch_size: POINTS as usize,
            },
            collective: &SingleProcess, // a single process
            deferred: None,
        };
        let output = objective.evaluate(&inputs)?;
        optimizer.backward_step(&output.loss);
        objective.update(&output.statistics, &SingleProcess)?; // updates its state, if any
        follow(&teacher_vars, &student_vars);
        if step % 40 == 0 || step + 1 == STEPS {
            let value = |name| output.value(name).unwrap_or(f64::NAN);
            println!(
                "step {step:>3}: loss {:.3}, similarity of views {:.3}, position {:.2}",
                value("loss/total"),
                value("loss/compression"),
                value("rate/position"), // 0 collapsed, 1 spread as far as possible
            );
        }
    }
    // To keep the result: `teacher_vars.save("teacher.safetensors")?`.
    Ok(())
}

fn network(path: &nn::Path) -> nn::Sequential {
    nn::seq()
        .add(nn::linear(path / "in", 64, 128, nn::LinearConfig::default()))
        .add_fn(|x| x.gelu("none"))
        .add(nn::linear(path / "out", 128, 32, nn::LinearConfig::default()))
}

/// Returns two noisy views of each point, `[2, POINTS, 64]`.
fn view_pair(points: &Tensor, projection: &Tensor) -> Tensor {
    let clean = points.matmul(projection).unsqueeze(0); // [1, POINTS, 64]
    let noise = Tensor::randn([2, POINTS, 64], (Kind::Float, Device::Cpu));
    clean + noise
}

/// Scales rows to length 1, which the loss expects.
fn unit(x: &Tensor) -> Tensor {
    x / x.norm_scalaropt_dim(2.0, [-1].as_slice(), true)
}

/// Updates the teacher as a moving average of the student.
fn follow(teacher: &nn::VarStore, student: &nn::VarStore) {
    let student = student.variables();
    tch::no_grad(|| {
        for (name, mut to) in teacher.variables() {
            if let Some(from) = student.get(&name) {
                let _ = to.lerp_(from, 1.0 - MOMENTUM);
            }
        }
    });
}
