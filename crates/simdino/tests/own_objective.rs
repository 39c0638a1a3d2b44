//! Tests that the loop trains a custom objective, and rejects networks that lack its inputs.

#![allow(clippy::unwrap_used)]

#[path = "../examples/own_objective.rs"]
#[allow(dead_code)] // its `main`
mod example;

use objectives::{Inputs, LossOutput, Method, Needs, Objective};
use simdino::{RunConfig, assemble};
use tch::Device;
use trainer::processes::Processes;

#[test]
fn two_steps_change_the_student_and_write_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let (learner, records) = example::train(folder.path()).unwrap();
    let losses: Vec<f64> = records.iter().filter_map(|record| record.get("loss/total")).collect();
    assert_eq!(losses.len(), 2, "{records:?}");
    assert!(losses.iter().all(|loss| loss.is_finite() && *loss > 0.0), "{losses:?}");
    assert_eq!(records[0].get("loss/total"), sum_of_terms(&records[0]));

    // The teacher moves slowly, so it differs from the student once the learning rate is above 0.
    let pairs = learner.student.named().into_iter().zip(learner.teacher.named());
    let moved = pairs.filter(|((_, student), (_, teacher))| student != teacher).count();
    assert!(moved > 10, "{moved} weights moved");
    assert!(folder.path().join("checkpoints/step-00000002/student.safetensors").is_file());
    assert!(folder.path().join("weights/teacher.safetensors").is_file());
}

fn sum_of_terms(record: &trainer::metrics::Record) -> Option<f64> {
    let sum = record.get("loss/apart")? as f32 + record.get("loss/center")? as f32;
    Some(f64::from(sum))
}

/// An objective that is never evaluated.
struct Wants(Needs);

impl Objective for Wants {
    fn needs(&self) -> Needs {
        self.0
    }

    fn evaluate(&self, _: &Inputs) -> objectives::Result<LossOutput> {
        unreachable!("the learner is refused before")
    }
}

#[test]
fn networks_without_what_the_objective_needs_are_refused() {
    let plain = Needs::default();
    let cases = [
        (Method::SimDino, Needs { prototypes: true, ..plain }, false, Some("head.prototypes")),
        (Method::Dino, plain, false, Some("head.prototypes")),
        (Method::SimDino, Needs { patches: true, ..plain }, false, Some("model.mask_token")),
        (Method::SimDino, plain, true, Some("head.separate_patch_head")),
        (Method::SimDinoV2, Needs { patches: true, ..plain }, true, None),
        (Method::SimDinoV2, Needs { patches: true, ..plain }, false, None),
        (Method::Dino, Needs { prototypes: true, ..plain }, false, None),
        (Method::SimDino, Needs { backbone: true, ..plain }, false, None),
    ];
    for (method, needs, separate, key) in cases {
        let mut config = RunConfig::of(method);
        config.head.separate_patch_head = separate;
        config.model.arch = model::Arch::VitNano;
        config.head.hidden_dim = 16;
        config.head.prototypes = config.head.prototypes.min(32);
        let objective = Box::new(Wants(needs));
        let learner = assemble::learner_with(&config, objective, Device::Cpu, Processes::Single);
        let error = learner.err().map(|error| error.to_string());
        assert_eq!(error.is_some(), key.is_some(), "{method:?} {needs:?}: {error:?}");
        assert!(error.unwrap_or_default().starts_with(key.unwrap_or_default()));
    }
}
