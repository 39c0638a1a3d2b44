//! Describes the probes of a run in words.

use base::counted;
use trainer::config::EveryEpochs;
use trainer::plan::Plan;

use super::segment::count;
use super::suite::{Probes, TEST, TRAIN};

/// Returns a line for each probe: what it measures, on which images, and when.
pub fn describe(probes: &Probes, plan: &Plan) -> Vec<String> {
    let images = |number: usize| {
        let images = &probes.images[number];
        format!("{} in {}", counted(images.set.len(), "image", "images"), images.path)
    };
    let config = &probes.config;
    let mut lines = Vec::new();
    let mut line = |every, what: String| lines.push(format!("{what}: {}", when(plan, every)));
    if config.knn_is_on() {
        line(
            config.every_epochs,
            format!("k-NN, tested on {}, with neighbors from {}", images(TEST), images(TRAIN)),
        );
    }
    if config.logistic_is_on() {
        let what = format!(
            "logistic regression, tested on {}, trained on {}",
            images(TEST),
            images(TRAIN)
        );
        line(config.logistic.every_epochs, what);
    }
    if let Some(number) = probes.rank {
        line(
            config.rank.every_epochs,
            format!("effective rank and dimension of {}", images(number)),
        );
    } else if config.knn_is_on() {
        line(config.every_epochs, format!("effective rank and dimension of {}", images(TRAIN)));
    }
    if let Some(segmentation) = &probes.segmentation {
        let images = |number| counted(number, "image", "images");
        let [train, test] = segmentation
            .data()
            .map(|data| format!("{} in {}", images(count(&data)), data.set.path().display()));
        let side = segmentation.config.side;
        let what =
            format!("segmentation at {side} pixels, tested on {test}, with neighbors from {train}");
        line(config.segment.every_epochs, what);
    }
    lines
}

/// Maximum number of steps that are listed one by one.
const LISTED: usize = 6;

/// Returns `every step`, or words such as `every 5 steps`.
pub fn every_steps(steps: u64) -> String {
    match steps {
        1 => "every step".to_owned(),
        steps => format!("every {steps} steps"),
    }
}

/// Describes the steps at which a probe measures.
fn when(plan: &Plan, every: Option<EveryEpochs>) -> String {
    let last = plan.last_step;
    let steps: Vec<u64> = (0..=last).filter(|&step| plan.probe_due(every, step)).collect();
    match every {
        Some(EveryEpochs::Number(epochs)) if steps.len() > LISTED => {
            let every = every_steps(plan.steps_between(epochs));
            format!("at step 0, {every}, and at step {last} ({} times)", steps.len())
        }
        _ => {
            let steps: Vec<String> = steps.iter().map(u64::to_string).collect();
            format!("at steps {}", steps.join(", "))
        }
    }
}
