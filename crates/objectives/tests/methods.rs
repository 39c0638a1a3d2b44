//! Compares DINO, DINOv2, and SimDINOv2 over two steps with plain formulas in PyTorch, including
//! the gradients of all outputs of the student, through the interface that all objectives share.
//!
//! The fixture comes from `tools/parity/methods.py`; its metadata states the seed and the versions.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;

use common::{DOUBLE, SINGLE, assert_close, fixture};
use objectives::{
    IbotConfig, Inputs, KoleoConfig, LossOutput, MaskWeights, Method, Objective, ObjectiveConfig,
    Outputs, StepContext,
};
use serde_json::{Map, Value};
use tch::{Kind, Tensor};
use torch_ext::SingleProcess;

/// Builds the objective of a case, with its options in the sections that they belong to.
fn objective(case: &Value, double: bool) -> Box<dyn Objective> {
    let method: Method = serde_json::from_value(case["method"].clone()).unwrap();
    let mut options = case["options"].as_object().unwrap().clone();
    let mut weight = |key: &str| options.remove(key).map_or(0.0, |value| value.as_f64().unwrap());
    let (patch_weight, koleo_weight) = (weight("patch_weight"), weight("koleo_weight"));
    if double && options.contains_key("precision") {
        options.insert("precision".into(), "fp64".into());
    }
    // The reference computes the batch of one process, which is one group.
    let ibot = IbotConfig { loss_weight: patch_weight };
    let koleo = KoleoConfig { loss_weight: koleo_weight, groups: 1 };
    let mut config = ObjectiveConfig { method, ibot, koleo, ..Default::default() };
    fn section<T: serde::de::DeserializeOwned>(options: Map<String, Value>) -> T {
        serde_json::from_value(Value::Object(options)).unwrap()
    }
    match method {
        Method::SimDino | Method::SimDinoV2 => config.simdino = section(options),
        Method::Dino | Method::DinoV2 => config.dino = section(options),
    }
    config.build().unwrap()
}

/// The tensors of one step, in one data type.
struct Step<'a> {
    tensors: &'a HashMap<String, Tensor>,
    at: String,
    kind: Kind,
}

impl Step<'_> {
    fn get(&self, name: &str) -> Option<Tensor> {
        let tensor = self.tensors.get(&format!("{}/{name}", self.at))?;
        Some(tensor.to_kind(self.kind).copy())
    }

    fn outputs(&self, side: &str) -> Outputs {
        let learns = side == "student";
        let get = |name: &str| {
            let tensor = self.get(&format!("{side}/{name}"))?;
            Some(tensor.set_requires_grad(learns))
        };
        Outputs { cls: get("cls").unwrap(), patches: get("patches"), backbone: get("backbone") }
    }
}

fn evaluate(
    objective: &dyn Objective,
    step: &Step,
    case: &Value,
    index: usize,
) -> (Outputs, LossOutput) {
    let number = |value: &Value| value.as_u64().unwrap();
    let context = StepContext {
        step: number(&case["steps"][index]["step"]),
        steps_per_epoch: number(&case["steps"][index]["steps_per_epoch"]),
        ..StepContext::first(number(&case["global_batch"]) as usize)
    };
    let (student, teacher) = (step.outputs("student"), step.outputs("teacher"));
    let crops = number(&case["crops"]) as usize;
    let masked = step.get("weights").map(|weights| MaskWeights { weights, crops });
    let masked = masked.as_ref();
    let inputs = Inputs {
        student: &student,
        teacher: &teacher,
        masked,
        context,
        collective: &SingleProcess,
        deferred: None,
    };
    let output = objective.evaluate(&inputs).unwrap();
    (student, output)
}

fn check_step(name: &str, step: &Step, student: &Outputs, output: &LossOutput, tolerance: f64) {
    let prefix = format!("{}/term/", step.at);
    let expected: Vec<_> = step.tensors.keys().filter_map(|k| k.strip_prefix(&prefix)).collect();
    assert!(expected.contains(&"total") && expected.len() >= 2, "{name}: {expected:?}");
    for term in expected {
        let metric = format!("loss/{term}");
        let (_, got) = output.terms.iter().find(|(key, _)| *key == metric).unwrap();
        assert_eq!(got.kind(), step.kind);
        let want = &step.tensors[&format!("{prefix}{term}")];
        assert_close(&format!("{name} {term}"), &got.reshape([1]), &want.reshape([1]), tolerance);
    }
    output.loss.backward();
    let sides = [
        ("cls", Some(&student.cls)),
        ("patches", student.patches.as_ref()),
        ("backbone", student.backbone.as_ref()),
    ];
    for (part, tensor) in sides {
        let want = step.tensors.get(&format!("{}/gradient/student/{part}", step.at));
        let Some(tensor) = tensor else {
            assert!(want.is_none(), "{name} {part}");
            continue;
        };
        let Some(want) = want else {
            assert!(!tensor.grad().defined(), "{name} {part}");
            continue;
        };
        assert_close(&format!("{name} gradient of {part}"), &tensor.grad(), want, tolerance);
    }
}

fn check_case(case: &Value, tensors: &HashMap<String, Tensor>, kind: Kind, tolerance: f64) {
    let name = case["name"].as_str().unwrap();
    let mut objective = objective(case, kind == Kind::Double);
    for index in 0..2 {
        let step = Step { tensors, at: format!("{name}/{index}"), kind };
        let (student, output) = evaluate(objective.as_ref(), &step, case, index);
        check_step(name, &step, &student, &output, tolerance);
        objective.update(&output.statistics, &SingleProcess).unwrap();
    }
    let prefix = format!("{name}/state/");
    let expected = tensors.iter().filter_map(|(key, t)| Some((key.strip_prefix(&prefix)?, t)));
    let expected: HashMap<_, _> = expected.collect();
    let state = objective.state();
    assert_eq!(state.len(), expected.len(), "{name}: {state:?}");
    for (key, tensor) in &state {
        assert_close(&format!("{name} {key}"), tensor, expected[key.as_str()], tolerance);
    }
}

#[test]
fn losses_gradients_and_state_in_double_precision() {
    let fixture = fixture("methods.safetensors");
    let cases = fixture.cases.as_array().unwrap();
    assert_eq!(cases.len(), 14);
    for case in cases {
        check_case(case, &fixture.tensors, Kind::Double, DOUBLE);
    }
}

#[test]
fn losses_gradients_and_state_in_single_precision() {
    let fixture = fixture("methods.safetensors");
    for case in fixture.cases.as_array().unwrap() {
        check_case(case, &fixture.tensors, Kind::Float, SINGLE);
    }
}

#[test]
fn state_that_was_saved_goes_on_where_it_stood() {
    let fixture = fixture("methods.safetensors");
    for case in fixture.cases.as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let (mut first, mut second) = (objective(case, true), objective(case, true));
        let step = |index: usize| Step {
            tensors: &fixture.tensors,
            at: format!("{name}/{index}"),
            kind: Kind::Double,
        };
        let (_, output) = evaluate(first.as_ref(), &step(0), case, 0);
        first.update(&output.statistics, &SingleProcess).unwrap();
        second.load_state(&first.state()).unwrap();
        let [a, b] = [&first, &second].map(|o| evaluate(o.as_ref(), &step(1), case, 1).1.loss);
        assert_eq!(a, b, "{name}");
        let unknown = [("other".to_owned(), a)];
        assert!(second.load_state(&unknown).unwrap_err().to_string().contains("'other'"));
    }
}

#[test]
fn micro_batches_move_the_center_as_their_whole_batch_does() {
    let fixture = fixture("methods.safetensors");
    let cases = fixture.cases.as_array().unwrap();
    let case = cases.iter().find(|case| case["name"] == "dino").unwrap();
    let [whole, mut parts] = [0, 0].map(|_| objective(case, true));
    let mut whole = whole;
    let outputs = |side: &str, from: i64, rows: i64| {
        let cls = fixture.tensors[&format!("dino/0/{side}/cls")].narrow(1, from, rows);
        Outputs::of_cls(cls)
    };
    let step = |objective: &mut Box<dyn Objective>, rows: &[(i64, i64)]| {
        let mut statistics = objectives::Statistics::default();
        for &(from, count) in rows {
            let (student, teacher) =
                (outputs("student", from, count), outputs("teacher", from, count));
            let inputs = Inputs {
                student: &student,
                teacher: &teacher,
                masked: None,
                context: StepContext::first(5),
                collective: &SingleProcess,
                deferred: None,
            };
            statistics += objective.evaluate(&inputs).unwrap().statistics;
        }
        objective.update(&statistics, &SingleProcess).unwrap();
        objective.state()[0].1.shallow_clone()
    };
    let want = step(&mut whole, &[(0, 5)]);
    let got = step(&mut parts, &[(0, 2), (2, 3)]);
    assert_close("center", &got, &want, 1e-14);
}
