//! `simdino bench step`: measures the throughput and memory of the training step of a config, on
//! random input.

use std::path::PathBuf;
use std::time::Instant;

use data::batch::BatchGeometry;
use data::masking::{MaskGenerator, MaskKey};
use objectives::MaskWeights;
use serde_json::json;
use tch::{Cuda, Device, Kind, Tensor};
use trainer::feed::Sender;
use trainer::input::{MaskedPatches, Views, image_range};
use trainer::learner::Learner;
use trainer::processes::Processes;
use trainer::schedule::Schedules;
use trainer::step::{StepRequest, StepResult};

use super::shapes::{self, PublishedShape};
use crate::config::{self, RunConfig};
use crate::console::answer;
use crate::failure::{Failure, Result};
use simdino::{assemble, device, numerics};

/// Number of steps in a trace.
const TRACED_STEPS: usize = 3;

/// Arguments of `simdino bench step`.
#[derive(Debug, clap::Args)]
pub struct StepArgs {
    /// Config file, or the name of a recipe (`simdino config recipes`)
    config: PathBuf,
    /// Values that replace those of the file
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Steps before the clock starts; on a GPU, the fourth records a CUDA graph
    #[arg(long, default_value_t = 5)]
    warmup: usize,
    /// Steps that are timed
    #[arg(long, default_value_t = 10)]
    steps: usize,
    /// Also write a trace of three more steps, after the timed ones, for chrome://tracing or
    /// Perfetto
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Sizes of a published step in place of the config's, to compare with its throughput
    #[arg(long, value_enum, value_name = "NAME")]
    shape: Option<PublishedShape>,
    /// Also print a table of what the step would cost with other crops, batches, and depths:
    /// modeled from the measured time by the number of operations
    #[arg(long)]
    costs: bool,
    /// One JSON object on the last line
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Returns an error if the config is invalid, the device cannot be used, or a step fails.
pub fn run(args: &StepArgs) -> Result<()> {
    if args.steps == 0 {
        return Err(Failure::usage("--steps: must be at least 1 (got 0)"));
    }
    // The `data` section is not used, so a config without `data.path` can be timed.
    let mut overrides = args.shape.map(PublishedShape::overrides).unwrap_or_default();
    overrides.extend_from_slice(&args.overrides);
    let config = config::load_unchecked(&args.config, &overrides)?.config;
    let problems: Vec<_> =
        config.validate().into_iter().filter(|p| !p.starts_with("data.")).collect();
    if !problems.is_empty() {
        return Err(Failure::problems(problems));
    }
    let device = device::resolve(config.run.device)?;
    numerics::apply(&config, device)?;
    crate::commands::train::set_threads(&config);
    let step_ms = time_steps(&config, device, args)?;
    report(&config, device, args, step_ms)
}

/// Measures the median time of a step, in milliseconds.
fn time_steps(config: &RunConfig, device: Device, args: &StepArgs) -> Result<f64> {
    let mut learner = assemble::learner(config, device, Processes::Single)?;
    let schedules = Schedules::new(&config.optim, config.train.batch_size, 1000, 100_000);
    let request = StepRequest { values: schedules.at(5000), seed: 0, log_metrics: false };
    let input = RandomInput::new(config, &learner)?;
    let geometry = learner.config().geometry;
    let mut step = || -> Result<()> {
        let mut micro = 0..geometry.accumulate();
        let mut next = || Ok(input.views(config, device, micro.next().unwrap_or_default()));
        if let StepResult::Skipped(skipped) = learner.step(&request, &mut next)? {
            return Err(Failure::failed(format!("with random input, {}", skipped.what)));
        }
        if let Some(problem) = learner.take_graph_problem() {
            // The step would run without the graph, which is not what was to be timed.
            return Err(Failure::failed(format!(
                "train.cuda_graph: cannot record the step as a CUDA graph ({problem}); set \
                 train.cuda_graph=false to time it without one"
            )));
        }
        synchronize(device);
        Ok(())
    };
    let mut times = Vec::new();
    for i in 0..args.warmup + args.steps {
        if i == args.warmup {
            torch_ext::reset_peak_memory(device);
        }
        synchronize(device);
        let start = Instant::now();
        step()?;
        if i >= args.warmup {
            times.push(1e3 * start.elapsed().as_secs_f64());
        }
    }
    if let Some(path) = &args.trace {
        torch_ext::profile(path, device, || (0..TRACED_STEPS).try_for_each(|_| step()))?;
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Random input: noise for the pixels of images, and masks as in training.
struct RandomInput {
    kind: Kind,
    /// The masks of each micro-batch. They are drawn only once, because the input is not to be
    /// timed.
    masks: Vec<Option<MaskedPatches>>,
    geometry: BatchGeometry,
}

impl RandomInput {
    fn new(config: &RunConfig, learner: &Learner) -> Result<Self> {
        let geometry = learner.config().geometry;
        let masks = (0..geometry.accumulate()).map(|micro| masks(config, learner, micro));
        Ok(Self {
            kind: learner.config().precision.weights(),
            masks: masks.collect::<Result<_>>()?,
            geometry,
        })
    }

    fn views(&self, config: &RunConfig, device: Device, micro: usize) -> Views {
        let part = image_range(self.geometry, micro);
        let view = |count: i64, size: u32| {
            let size = i64::from(size);
            let shape = [count * part.count, config.model.in_channels, size, size];
            Tensor::randn(shape, (self.kind, device))
        };
        let local = config.augment.local_crops_number as i64;
        Views {
            global: view(2, config.augment.global_crops_size),
            local: (local > 0).then(|| view(local, config.augment.local_crops_size)),
            masks: self.masks.get(micro).and_then(Option::as_ref).map(copy_of),
            part,
            samples: Vec::new(),
        }
    }
}

/// Draws the masks of a micro-batch as in training; `None` if the method uses no patches.
fn masks(config: &RunConfig, learner: &Learner, micro: usize) -> Result<Option<MaskedPatches>> {
    if !learner.needs().patches {
        return Ok(None);
    }
    let side = config.augment.global_crops_size as usize / config.model.patch_size as usize;
    let generator = MaskGenerator::new(&config.masks, (side, side))?;
    let key = MaskKey { seed: 0, epoch: 0, step: 0 };
    let masks = generator.batch(key, learner.config().geometry, micro);
    Ok(Some(Sender::new(learner.config().device)?.send_masks(&masks)?.receive()?))
}

/// Returns a shallow copy of masks.
fn copy_of(masks: &MaskedPatches) -> MaskedPatches {
    let MaskWeights { weights, crops } = &masks.masked;
    MaskedPatches {
        masks: masks.masks.shallow_clone(),
        indices: masks.indices.shallow_clone(),
        masked: MaskWeights { weights: weights.shallow_clone(), crops: *crops },
    }
}

fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}

fn report(config: &RunConfig, device: Device, args: &StepArgs, step_ms: f64) -> Result<()> {
    let img_s = 1e3 * config.train.batch_size as f64 / step_ms;
    let peak = torch_ext::device_memory(device)?.peak_allocated_bytes;
    let name = torch_ext::device_name(device);
    if args.json {
        let mut line = json!({
            "device": name,
            "batch_size": config.train.batch_size,
            "precision": config.train.precision,
            "step_ms": step_ms,
            "img_s": img_s,
            "peak_memory_bytes": peak,
            "threads": tch::get_num_threads(),
            "config": config,
        });
        if args.costs {
            line["costs"] = shapes::json(config, step_ms);
        }
        return answer(&format!("{line}\n"));
    }
    let mut text = format!(
        "{name}: {step_ms:.1} ms per step of {} images, {img_s:.1} img/s, peak memory {:.2} GB\n",
        config.train.batch_size,
        peak as f64 / 1e9
    );
    if let Some(shape) = args.shape {
        text += &format!("{}\n", shape.reported());
    }
    if args.costs {
        text += &format!("\n{}", shapes::text(config, step_ms));
    }
    answer(&text)
}
