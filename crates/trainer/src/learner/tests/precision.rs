//! TF32 may be used in the networks, but not in a loss.

use std::sync::{Arc, Mutex};

use objectives::{Inputs, LossOutput, Method, Needs, Objective};
use tch::{Device, Kind, Tensor};
use torch_ext::tf32_allowed;

use super::alone;
use super::setup::{config, request, views};
use crate::config::Precision;
use crate::learner::Learner;
use crate::processes::Processes;

type Seen = Arc<Mutex<Vec<bool>>>;

/// Records whether TF32 is allowed while the loss is computed, outside and inside of a part that
/// the backward pass computes again.
struct Witness(Seen);

impl Objective for Witness {
    fn needs(&self) -> Needs {
        Needs::default()
    }

    fn evaluate(&self, inputs: &Inputs) -> objectives::Result<LossOutput> {
        let seen = Arc::clone(&self.0);
        seen.lock().unwrap().push(tf32_allowed()?);
        let squares = torch_ext::checkpoint(&inputs.student.cls, &[], move |x| {
            seen.lock().unwrap().push(tf32_allowed().unwrap());
            x.square()
        })?;
        Ok(LossOutput::of(squares.mean(Kind::Float)))
    }
}

#[test]
fn products_of_the_networks_may_use_tf32_and_those_of_a_loss_may_not() {
    let _alone = alone();
    for (precision, in_backward) in [(Precision::Fp32, false), (Precision::Tf32, true)] {
        let mut config = config(Method::SimDino);
        config.precision = precision;
        let seen = Seen::default();
        let witness = Box::new(Witness(Arc::clone(&seen)));
        let mut learner = Learner::new(config.learner.clone(), witness, Processes::Single).unwrap();
        learner.step(&request(0, false), || Ok(views(&config, 0))).unwrap();
        // In the loss, in its recomputed part, and in the backward pass.
        assert_eq!(*seen.lock().unwrap(), [false, false, in_backward], "{precision:?}");
        assert!(!tf32_allowed().unwrap());
        let inside = precision.forward(Device::Cpu, || tf32_allowed().unwrap());
        assert_eq!(inside.unwrap(), in_backward);
    }
}

#[test]
fn on_a_cpu_tf32_is_single_precision() {
    let _alone = alone();
    let weights = |precision| {
        let mut config = config(Method::SimDino);
        config.precision = precision;
        let mut learner = super::learner(&config);
        learner.step(&request(3, false), || Ok(views(&config, 0))).unwrap();
        learner.student.named()
    };
    let (exact, rounded) = (weights(Precision::Fp32), weights(Precision::Tf32));
    let same = |(a, b): (&(String, Tensor), &(String, Tensor))| a.1 == b.1;
    assert!(exact.iter().zip(&rounded).all(same));
}
