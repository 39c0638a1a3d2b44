//! Trains with a custom objective.
//!
//! ```text
//! cargo run -p simdino --example own_objective
//! ```
//!
//! The example trains a small vision transformer for two steps on synthetic images, with the
//! loader, optimizer, moving average, and checkpoints of the training loop, none of which depend on
//! the objective.

use std::path::{Path, PathBuf};

use data::loader::BrokenImage;
use data::{SourceKind, SyntheticConfig};
use model::Arch;
use objectives::{Inputs, LossOutput, Method, Needs, Objective};
use simdino::{RunConfig, assemble, images};
use tch::{Device, Kind};
use trainer::learner::Learner;
use trainer::metrics::Record;
use trainer::processes::Processes;
use trainer::run::{Observer, run};
use trainer::start::Start;

/// Pulls views of an image together and keeps the mean of the batch at the origin.
struct CenteredViews;

impl Objective for CenteredViews {
    /// Needs only class tokens, as unit rows: no masked patches and no prototypes.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// `student.cls` is `[V, B, d]`, for all views; `teacher.cls` is `[2, B, d]`, for the global
    /// views.
    fn evaluate(&self, inputs: &Inputs) -> objectives::Result<LossOutput> {
        let (student, teacher) = (&inputs.student.cls, &inputs.teacher.cls);
        // Each global view of the student is compared with the teacher's other one.
        let other = teacher.flip([0]); // [2, B, d]
        let apart = (student.narrow(0, 0, 2) - other).square().sum(Kind::Float)
            / (2 * inputs.context.batch_size) as f64;
        let mean = student.mean_dim([0, 1].as_slice(), false, Kind::Float); // [d]
        let center = mean.square().sum(Kind::Float);
        let loss = &apart + &center;
        Ok(LossOutput {
            terms: vec![
                ("loss/total", loss.detach()),
                ("loss/apart", apart.detach()),
                ("loss/center", center.detach()),
            ],
            ..LossOutput::of(loss)
        })
    }
}

/// Prints what the loop reports, and collects the metrics.
#[derive(Default)]
struct Report(Vec<Record>);

impl Observer for Report {
    fn record(&mut self, record: &Record) -> trainer::Result<()> {
        println!("step {}: loss {:?}", record.step, record.get("loss/total"));
        self.0.push(record.clone());
        Ok(())
    }

    fn broken(&mut self, images: &[BrokenImage]) -> trainer::Result<()> {
        println!("{} images cannot be read", images.len());
        Ok(())
    }

    fn warning(&mut self, text: &str) {
        println!("warning: {text}");
    }

    fn lost(&mut self, step: u64, images: &[String]) -> trainer::Result<PathBuf> {
        println!("step {step} was lost, with these images: {images:?}");
        Ok(PathBuf::from("the lines above"))
    }

    fn sync(&mut self) -> trainer::Result<()> {
        Ok(()) // nothing is kept in files
    }

    fn checkpoint(&mut self, path: &Path) -> trainer::Result<()> {
        println!("checkpoint {}", path.display());
        Ok(())
    }

    fn stop_requested(&self) -> bool {
        false
    }
}

/// Trains for two steps, with all results in `folder`.
pub fn train(folder: &Path) -> Result<(Learner, Vec<Record>), Box<dyn std::error::Error>> {
    let mut config = RunConfig::of(Method::SimDino); // the recipe for everything except the loss
    config.data.source = SourceKind::Synthetic;
    config.data.synthetic = SyntheticConfig { count: 64, size: 64, seed: 0 };
    config.model.arch = Arch::VitNano;
    config.model.image_size = 64;
    config.augment.global_crops_size = 64;
    config.augment.local_crops_number = 0;
    config.train.batch_size = 16;
    config.train.stop_after = Some(2);
    config.train.log_every = 1;

    let (dataset, plan) = images::open_data(&config, 1)?;
    let objective = Box::new(CenteredViews);
    let mut learner = assemble::learner_with(&config, objective, Device::Cpu, Processes::Single)?;
    let job = assemble::job(&config, dataset, plan, folder, Processes::Single)?;
    let mut report = Report::default();
    // `&mut []`: no probes
    run(&job, &mut learner, Start::default(), &mut report, &mut [])?;
    Ok((learner, report.0))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (learner, _) = train("runs/own_objective".as_ref())?;
    println!("trained {} parameters; see runs/own_objective", learner.num_parameters());
    Ok(())
}
