//! Compares the predicted exchanges of a step with the actual ones, for all methods and settings
//! that change them, with real processes over Gloo.

#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

#[path = "../../torch-ext/tests/support/processes.rs"]
mod processes;

use std::time::Duration;

use data::masking::{MaskGenerator, MaskKey};
use objectives::Method;
use processes::{all_pass, rendezvous};
use serde_json::json;
use simdino::config::from_document;
use simdino::exchanges::{Moment, per_step};
use simdino::links::measure;
use simdino::{RunConfig, assemble};
use tch::{Device, Tensor};
use torch_ext::{Collective, Count, ProcessGroup};
use trainer::feed::Sender;
use trainer::input::{Views, image_range};
use trainer::learner::Learner;
use trainer::plan::Plan;
use trainer::processes::Processes;
use trainer::step::{StepRequest, StepResult};

/// Methods and settings, each with different exchanges.
const SETTINGS: [(Method, &[&str]); 13] = [
    (Method::SimDino, &[]),
    // Several buckets of gradients.
    (Method::SimDino, &["head.hidden_dim=3000"]),
    (Method::SimDino, &["train.precision=bf16"]),
    (Method::SimDino, &["simdino.rate_groups=1"]),
    (
        Method::SimDino,
        &["simdino.rate_groups=1", "simdino.center_cov=true", "simdino.precision=fp64"],
    ),
    (Method::SimDino, &["simdino.gamma=balanced"]),
    (Method::SimDino, &["simdino.coeff_rule=held", "train.accumulate=2", "simdino.rate_groups=4"]),
    (Method::SimDinoV2, &["head.use_bn=true"]),
    (Method::Dino, &[]),
    (Method::Dino, &["train.precision=fp64", "train.accumulate=2"]),
    (Method::DinoV2, &["koleo.groups=4", "train.accumulate=2"]),
    (Method::DinoV2, &["dino.centering=sinkhorn_knopp"]),
    (
        Method::DinoV2,
        &[
            "dino.centering=sinkhorn_knopp",
            "ibot.loss_weight=0",
            "koleo.groups=4",
            "train.accumulate=2",
        ],
    ),
];

fn config(method: Method, overrides: &[&str]) -> RunConfig {
    let prototypes = if matches!(method, Method::Dino | Method::DinoV2) { 24 } else { 0 };
    let document = json!({
        "method": method,
        "data": {"path": "unused"},
        "augment": {"global_crops_size": 16, "local_crops_size": 8, "local_crops_number": 2},
        "model": {"arch": "vit_nano", "patch_size": 8, "image_size": 16, "drop_path_rate": 0.0},
        "head": {"hidden_dim": 32, "out_dim": 16, "prototypes": prototypes},
        "simdino": {"rate_groups": 2},
        "koleo": {"groups": 2},
        "train": {"batch_size": 8},
        "run": {"device": "cpu"},
    });
    let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
    let value = |text: &str| Ok(serde_json::from_str(text).unwrap_or_else(|_| json!(text)));
    let config = from_document(document, &overrides, &value).unwrap().config;
    assert_eq!(config.validate(), Vec::<String>::new());
    assert_eq!(config.problems_of_sharing(2), Vec::<String>::new());
    config
}

fn plan() -> Plan {
    Plan {
        steps_per_epoch: 10,
        total_steps: 100,
        last_step: 100,
        checkpoint_every: 10,
        log_every: 10,
    }
}

/// Returns noise in place of the images of this process, and masks as training draws them.
fn views(config: &RunConfig, learner: &Learner, micro: usize) -> Views {
    let geometry = learner.config().geometry;
    let part = image_range(geometry, micro);
    let kind = config.train.precision.weights();
    let crops = |count: i64, side: i64| {
        Tensor::randn([count * part.count, 3, side, side], (kind, Device::Cpu))
    };
    let masks = learner.needs().patches.then(|| {
        let generator = MaskGenerator::new(&config.masks, (2, 2)).unwrap();
        let masks = generator.batch(MaskKey { seed: 0, epoch: 0, step: 0 }, geometry, micro);
        Sender::new(Device::Cpu).unwrap().send_masks(&masks).unwrap().receive().unwrap()
    });
    Views { global: crops(2, 16), local: Some(crops(2, 8)), masks, part, samples: Vec::new() }
}

/// Runs a step, followed by the check whether to stop, as in the training loop.
fn step(config: &RunConfig, learner: &mut Learner, processes: &Processes, step: u64) {
    let schedules = assemble::schedules(config, &plan());
    let request = StepRequest { values: schedules.at(step), seed: step, log_metrics: false };
    let passes = config.train.accumulate;
    let mut all: Vec<Views> = (0..passes).map(|micro| views(config, learner, micro)).collect();
    let result = learner.step(&request, || Ok(all.remove(0))).unwrap();
    assert!(matches!(result, StepResult::Done(_)));
    assert!(!processes.any(false).unwrap());
}

#[test]
fn a_step_sends_as_many_bytes_in_as_many_messages_as_is_said() {
    all_pass("as_one_of_two_who_train", 2);
}

#[test]
#[ignore = "started by a_step_sends_as_many_bytes_in_as_many_messages_as_is_said"]
fn as_one_of_two_who_train() {
    tch::set_num_threads(1); // two processes may share two cores
    let group = ProcessGroup::join(rendezvous(Duration::from_secs(120))).unwrap();
    let mut different = std::collections::BTreeSet::new();
    for (method, overrides) in SETTINGS {
        let config = config(method, overrides);
        let processes = Processes::Group(group.clone());
        let mut learner = assemble::learner(&config, Device::Cpu, processes.clone()).unwrap();
        step(&config, &mut learner, &processes, 0);
        let before = group.traffic();
        step(&config, &mut learner, &processes, 1);
        let sent = group.traffic().since(&before);
        let said = per_step(&config, &learner);
        let sum = Count {
            calls: said.iter().map(|exchange| exchange.calls).sum(),
            bytes: said.iter().map(|exchange| exchange.bytes).sum(),
        };
        assert_eq!(sent.reduced, sum, "{method:?} {overrides:?}: {said:?}");
        assert_eq!((sent.broadcast, sent.gathered), Default::default());
        let gradients = said.iter().find(|exchange| exchange.moment == Moment::Beside).unwrap();
        assert_eq!(gradients.bytes, learner.parameter_bytes().iter().sum::<usize>() as u64);
        assert!(gradients.calls > 1, "several buckets: {gradients:?}");
        different.insert((sum.calls, sum.bytes));
    }
    assert!(different.len() >= SETTINGS.len() - 1, "settings exchange different things");
    let link = measure(&group, Device::Cpu).unwrap();
    assert!(link.latency_s > 0.0 && link.latency_s < 1.0, "{link:?}");
    assert!(link.bytes_per_s > 1e6 && link.bytes_per_s.is_finite(), "{link:?}");
    group.barrier().unwrap();
}
