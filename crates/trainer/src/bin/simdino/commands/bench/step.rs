//! `simdino bench step`: throughput and memory of a config's training step, on random input.

use std::path::PathBuf;
use std::time::Instant;

use serde_json::json;
use tch::{Cuda, Device, Kind, Tensor};
use trainer::input::Views;
use trainer::learner::Learner;
use trainer::schedule::StepValues;

use crate::commands::train::learner_config;
use crate::config::{self, RunConfig};
use crate::device;
use crate::failure::{Failure, Result};

/// What `bench step` takes.
#[derive(Debug, clap::Args)]
pub struct StepArgs {
    /// Config file
    config: PathBuf,
    /// Values that replace those of the file
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Steps before the clock starts
    #[arg(long, default_value_t = 3)]
    warmup: usize,
    /// Steps that are timed
    #[arg(long, default_value_t = 10)]
    steps: usize,
    /// One JSON object on the last line
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(args: &StepArgs) -> Result<()> {
    if args.steps == 0 {
        return Err(Failure::usage("--steps: must be at least 1 (got 0)"));
    }
    // The data section is not used: a config without data.path can be timed.
    let config = config::load_unchecked(&args.config, &args.overrides)?.config;
    let problems: Vec<_> =
        config.validate().into_iter().filter(|p| !p.starts_with("data.")).collect();
    if !problems.is_empty() {
        return Err(Failure::problems(problems));
    }
    let device = device::resolve(&config.run.device)?;
    if config.run.threads > 0 {
        tch::set_num_threads(i32::try_from(config.run.threads).unwrap_or(i32::MAX));
    }
    let step_ms = time_steps(&config, device, args)?;
    report(&config, device, args, step_ms)
}

/// Median time of a step, in milliseconds.
fn time_steps(config: &RunConfig, device: Device, args: &StepArgs) -> Result<f64> {
    let mut learner = Learner::new(learner_config(config, device))?;
    let batch = (config.train.batch_size / config.train.accumulate) as i64;
    let values = StepValues {
        lr: 1e-4,
        weight_decay: 0.04,
        momentum_teacher: 0.996,
        progress: 0.0,
        step: 0,
        steps_per_epoch: 1,
    };
    let mut times = Vec::new();
    for i in 0..args.warmup + args.steps {
        if i == args.warmup {
            torch_ext::reset_peak_memory(device);
        }
        synchronize(device);
        let start = Instant::now();
        learner.step(&values, false, || Ok(random_views(config, batch, device)))?;
        synchronize(device);
        if i >= args.warmup {
            times.push(1e3 * start.elapsed().as_secs_f64());
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn random_views(config: &RunConfig, batch: i64, device: Device) -> Views {
    let view = |count: i64, size: u32| {
        let size = i64::from(size);
        Tensor::randn([count * batch, 3, size, size], (Kind::Float, device))
    };
    let local = config.augment.local_crops_number as i64;
    Views {
        global: view(2, config.augment.global_crops_size),
        local: (local > 0).then(|| view(local, config.augment.local_crops_size)),
        batch_size: batch,
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
        let line = json!({
            "device": name,
            "batch_size": config.train.batch_size,
            "precision": config.train.precision,
            "step_ms": step_ms,
            "img_s": img_s,
            "peak_memory_bytes": peak,
            "threads": tch::get_num_threads(),
            "config": config,
        });
        println!("{line}");
    } else {
        println!(
            "{name}: {step_ms:.1} ms a step of {} images, {img_s:.1} img/s, peak memory {:.2} GB",
            config.train.batch_size,
            peak as f64 / 1e9
        );
    }
    Ok(())
}
