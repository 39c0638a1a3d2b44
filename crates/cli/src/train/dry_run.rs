//! `simdino train --dry-run`: reports what a run would do, without training.

use std::time::{Duration, Instant};

use data::Dataset;
use tch::Device;
use trainer::config::Precision;
use trainer::plan::Plan;
use trainer::processes::Processes;

use super::continuation::Continuation;
use super::links::Links;
pub use super::links::links;
use super::probe::{Probes, describe, every_steps};
use super::start;
use crate::config::RunConfig;
use crate::console::{Console, answer};
use crate::failure::{Failure, Result};
use base::{counted, printable};
use report::percent;
use simdino::{assemble, exchanges};

/// Maximum number of images that are read.
const MOST_READ: usize = 64;
/// Time after which no further image is read.
const LONGEST: Duration = Duration::from_secs(10);
/// Number of images below which the fraction of broken ones is not judged, as in training.
const ENOUGH: usize = 50;

/// Prints the data, steps, learning rate, parameters, groups of the loss, probes, and exchanges.
///
/// # Errors
/// Returns an error if the network cannot be built, the weights of `init.from` do not fit, or more
/// images are broken than `data.max_bad_fraction` allows.
pub fn print(
    (config, run): (&RunConfig, &Continuation),
    dataset: &Dataset,
    plan: &Plan,
    probes: Option<&Probes>,
    (device, links): (Device, &Links),
) -> Result<()> {
    // Building the network reports what cannot be built.
    let mut learner = assemble::learner(config, device, Processes::Single)?;
    if run.from.is_none() {
        start::weights(&config.init, &mut learner, &Console::new())?;
    }
    let unreadable =
        |error: &data::Error| format!("unreadable: {}: {}", dataset.name(0), error.reason());
    let first = dataset.image(0).map(|image| format!("{} x {}", image.width(), image.height()));
    let sample = Sample::read(dataset);
    let classes = match dataset.num_classes() {
        0 => "no labels".to_owned(),
        n => format!("{} (labels are not used for training)", counted(n, "class", "classes")),
    };
    let data_path = config.data.describe();
    let lines = [
        ("run", run.to_string()),
        ("data", format!("{data_path}: {}, {classes}", counted(dataset.len(), "image", "images"))),
        ("first image", first.unwrap_or_else(|error| unreadable(&error))),
        ("images read", sample.in_words()),
        ("device", torch_ext::device_name(device)),
        ("precision", precision(config)),
        ("repeatable", repeatable(config, device).to_owned()),
        ("parameters", format!("{:.2} M (student)", learner.num_parameters() as f64 / 1e6)),
        ("steps", steps(config, plan)),
        ("learning rate", format!("{} after scaling", scientific(config.learning_rate()))),
        ("method", config.method.name().to_owned()),
        ("loss", groups(config)),
        ("checkpoints", checkpoints(config, plan)),
    ];
    let probes = probes.map(|probes| describe(probes, plan)).unwrap_or_default();
    let probes = if probes.is_empty() { vec!["none".to_owned()] } else { probes };
    let exchanges = links.describe(&exchanges::per_step(config, &learner));
    let lines = lines.into_iter().chain(probes.into_iter().map(|line| ("probe", line)));
    let lines = lines.chain(exchanges);
    let text = lines.map(|(what, value)| format!("{what:<15}{}\n", printable(&value)));
    answer(&text.collect::<String>())?;
    sample.judge(config.data.max_bad_fraction, &data_path)
}

/// Number of steps below which the result of a training from random weights depends on the seed
/// (docs/benchmarks/2026-11-studies.md: 210 steps end at 34 to 64%, and 600 at 77 and 83%).
const FEW_STEPS: u64 = 500;

fn steps(config: &RunConfig, plan: &Plan) -> String {
    let images = counted(config.train.batch_size, "image", "images");
    let few = match config.init.from.is_none() && plan.total_steps < FEW_STEPS {
        true => "; so few that the result depends on the seed: train longer, or in smaller batches",
        false => "",
    };
    let Plan { last_step, steps_per_epoch, total_steps, .. } = plan;
    format!(
        "{last_step} with {images} each, {steps_per_epoch} per epoch, {total_steps} in total{few}"
    )
}

fn checkpoints(config: &RunConfig, plan: &Plan) -> String {
    let kept = config.train.keep_checkpoints;
    format!("{}, {kept} kept", every_steps(plan.checkpoint_every))
}

/// The outcome of reading some images, spread over the dataset, as training does.
struct Sample {
    read: usize,
    /// Number of images of the dataset.
    of: usize,
    broken: usize,
    /// Name of the first broken image, and the reason.
    first: Option<String>,
}

impl Sample {
    fn read(dataset: &Dataset) -> Self {
        let (of, begin) = (dataset.len(), Instant::now());
        let most = of.min(MOST_READ);
        let mut sample = Self { read: 0, of, broken: 0, first: None };
        for index in (0..most).map(|i| i * of / most) {
            if begin.elapsed() > LONGEST {
                break;
            }
            sample.read += 1;
            if let Err(error) = dataset.image(index) {
                sample.broken += 1;
                let name = dataset.name(index);
                sample.first.get_or_insert_with(|| format!("{name}: {}", error.reason()));
            }
        }
        sample
    }

    fn in_words(&self) -> String {
        let Self { read, of, broken, first } = self;
        match first {
            None => format!("{read} of {of}, all readable"),
            Some(first) => {
                format!("{read} of {of}, {broken} of them unreadable; the first is {first}")
            }
        }
    }

    /// Returns an error if so many images are broken that the run would stop. A sample of fewer
    /// than [`ENOUGH`] images is judged only if it is the whole dataset.
    fn judge(&self, allowed: f64, path: &str) -> Result<()> {
        let share = self.broken as f64 / self.read.max(1) as f64;
        if share <= allowed || (self.read < ENOUGH && self.read < self.of) {
            return Ok(());
        }
        Err(Failure::failed(format!(
            "{} of the images that were read are broken, more than data.max_bad_fraction = \
             {allowed} allows, so the run would stop once it has read {ENOUGH}: list them with `simdino data check {path}` \
             and repair or remove them, or raise data.max_bad_fraction",
            percent(share, 0)
        )))
    }
}

/// Formats a number with up to four significant digits, such as `6.614e-4`.
fn scientific(value: f64) -> String {
    let text = format!("{value:.3e}");
    match text.split_once('e') {
        Some((digits, power)) if digits.contains('.') => {
            format!("{}e{power}", digits.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text,
    }
}

/// Describes the precision, and that of the networks' matrix products.
fn precision(config: &RunConfig) -> String {
    let what = match config.train.precision {
        Precision::Fp32 => "fp32",
        Precision::Tf32 => "fp32, matrix products of the networks in TF32",
        Precision::Bf16 => "fp32, matrix products of the networks in bfloat16",
        Precision::Fp16 => "fp32, matrix products of the networks in half precision",
        Precision::Fp64 => "fp64",
    };
    what.to_owned()
}

/// Describes whether another run of this config would give bitwise identical results.
fn repeatable(config: &RunConfig, device: Device) -> &'static str {
    match (device.is_cuda(), config.run.deterministic) {
        (false, _) => "bit for bit, with the same number of threads",
        (true, true) => "bit for bit, on the same GPUs (run.deterministic)",
        (true, false) => "up to rounding (run.deterministic=true makes it bit for bit)",
    }
}

/// Describes the groups that the loss is computed in.
fn groups(config: &RunConfig) -> String {
    let groups = config.groups().into_iter().map(|(key, groups)| {
        let images = counted(config.train.batch_size / groups, "image", "images");
        format!("{} of {images} ({key})", counted(groups, "group", "groups"))
    });
    let groups: Vec<String> = groups.collect();
    if groups.is_empty() { "over the whole batch".into() } else { groups.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_as_many_digits_as_one_reads() {
        for (value, expected) in
            [(6.614378277661477e-4, "6.614e-4"), (1e-3, "1e-3"), (0.0, "0e0"), (20.0, "2e1")]
        {
            assert_eq!(scientific(value), expected);
        }
    }
}
