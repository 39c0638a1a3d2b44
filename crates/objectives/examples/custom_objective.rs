//! An objective of your own: similarity of views, and uniformity in place of the coding rate.
//!
//! ```text
//! cargo run -p simdino-objectives --example custom_objective
//! ```
//!
//! Any type that implements [`Objective`] can be trained by a loop that takes
//! `&mut dyn Objective`, like `train` below, which compares it with SimDINO.
//! `trainer::learner::Learner::new` takes it as well: the example `own_objective` of the crate
//! `simdino` trains a vision transformer with one. To make it a `method` of the program, follow
//! "Add a loss" in CONTRIBUTING.md.
//!
//! # Source
//! Wang and Isola, "Understanding Contrastive Representation Learning through Alignment and
//! Uniformity on the Hypersphere", ICML 2020, for the second term:
//!
//! ```text
//! uniformity = log of the mean over all pairs i != j of exp(-2 |x_i - x_j|^2)
//! ```

use objectives::simdino::SimDinoLoss;
use objectives::{
    Inputs, LossOutput, Needs, Objective, Outputs, Result, SimDinoConfig, StepContext,
};
use tch::{Device, Kind, Tensor};
use torch_ext::SingleProcess;

/// Mean distance of views plus `weight` times uniformity.
struct AlignAndSpread {
    weight: f64,
}

impl Objective for AlignAndSpread {
    /// Needs only the head's outputs for class tokens: no masked patches, no prototypes.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Compares `student.cls` `[V, B, d]` with `teacher.cls` `[2, B, d]`, both rows of length 1.
    fn evaluate(&self, inputs: &Inputs) -> Result<LossOutput> {
        let (student, teacher) = (&inputs.student.cls, &inputs.teacher.cls);
        // Each global view of the student is compared with the other one of the teacher.
        let other = teacher.flip([0]); // [2, B, d]
        let global = student.narrow(0, 0, 2); // [V, B, d] -> [2, B, d]
        let align =
            (&global - other).square().sum_dim_intlist(-1, false, Kind::Float).mean(Kind::Float);
        let spread = (uniformity(&global.get(0)) + uniformity(&global.get(1))) / 2.0;
        let loss = &align + &spread * self.weight;
        Ok(LossOutput {
            // Terms are detached: they are for the log.
            terms: vec![
                ("loss/total", loss.detach()),
                ("loss/align", align.detach()),
                ("loss/uniformity", spread.detach()),
            ],
            numbers: vec![("uniformity/weight", self.weight)], // known without the device
            ..LossOutput::of(loss)
        })
    }
}

/// Computes the uniformity of unit rows `[B, d]`: 0 if all are equal, negative if they differ.
fn uniformity(rows: &Tensor) -> Tensor {
    let batch = rows.size()[0];
    let squares = (rows.matmul(&rows.tr()) * -2.0 + 2.0).clamp_min(0.0); // |x - y|^2, [B, B]
    // Excludes the pairs of a row with itself.
    let itself = Tensor::eye(batch, (Kind::Float, rows.device())) * -1e9;
    let pairs = (batch * (batch - 1)) as f64;
    (squares * -2.0 + itself).flatten(0, 1).logsumexp([0].as_slice(), false) - pairs.ln()
}

fn main() -> Result<()> {
    let simdino = SimDinoConfig { rate_groups: 1, ..SimDinoConfig::default() };
    train("SimDINO", &mut SimDinoLoss::new(&simdino)?)?;
    train("align and spread", &mut AlignAndSpread { weight: 0.5 })
}

/// Optimizes 2 views of 64 free features, which start close together, and prints the terms.
fn train(name: &str, objective: &mut dyn Objective) -> Result<()> {
    tch::manual_seed(0);
    let start = Tensor::ones([1, 1, 16], (Kind::Float, Device::Cpu));
    let start = start + Tensor::randn([2, 64, 16], (Kind::Float, Device::Cpu)) * 0.3;
    let mut features = start.set_requires_grad(true);
    println!("{name}");
    for step in 0..=300 {
        let rows = &features / features.norm_scalaropt_dim(2.0, [-1].as_slice(), true);
        let output = objective.evaluate(&Inputs {
            student: &Outputs::of_cls(rows.shallow_clone()),
            teacher: &Outputs::of_cls(rows.detach()),
            masked: None,
            context: StepContext::first(64),
            collective: &SingleProcess,
            deferred: None,
        })?;
        if step % 100 == 0 {
            let terms = output.terms.iter();
            let terms = terms.map(|(term, value)| format!("{term} {:.3}", value.double_value(&[])));
            println!("  step {step:>3}: {}", terms.collect::<Vec<_>>().join(", "));
        }
        features.zero_grad();
        output.loss.backward();
        tch::no_grad(|| features -= features.grad() * 10.0);
        objective.update(&output.statistics, &SingleProcess)?;
    }
    Ok(())
}
