//! Tests that CUDA graphs compute what their functions compute, and that a failed recording leaves
//! the device usable.

#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

use std::sync::{Mutex, MutexGuard, PoisonError};

use tch::{Cuda, Device, Kind, Tensor};
use torch_ext::{CudaGraph, Error, Result, autocast, manual_seed};

const GPU: Device = Device::Cuda(0);

/// Serializes the tests: while one records, no other thread may draw from the device's generator.
static ALONE: Mutex<()> = Mutex::new(());

/// Waits for the other tests that need a GPU; returns `None` if there is no GPU.
fn turn() -> Option<MutexGuard<'static, ()>> {
    if !Cuda::is_available() {
        eprintln!("skipped: no CUDA device");
        return None;
    }
    Some(ALONE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A linear map with noise on its output, like the networks of a step. `[n, 8] -> [n, 4]`
fn noisy(x: &Tensor, weight: &Tensor) -> Tensor {
    let hidden = x.matmul(weight).gelu("none"); // [n, 8] -> [n, 4]
    &hidden * Tensor::rand_like(&hidden)
}

/// The step of the tests: a map with gradients, followed by one without.
fn both(x: &Tensor, weight: &Tensor, other: &Tensor) -> Vec<Tensor> {
    vec![noisy(x, weight), tch::no_grad(|| noisy(x, other))]
}

fn weights() -> (Tensor, Tensor) {
    manual_seed(1);
    let weight = |grad| Tensor::randn([8, 4], (Kind::Float, GPU)).set_requires_grad(grad);
    (weight(true), weight(false))
}

fn record(x: &Tensor, weight: &Tensor, other: &Tensor) -> Result<CudaGraph> {
    let all = |t: &Tensor| std::slice::from_ref(t).to_vec_of_handles();
    CudaGraph::record(&all(x), &all(weight), &all(other), |inputs| {
        Ok(both(&inputs[0], weight, other))
    })
}

/// Clones handles to the same tensors.
trait Handles {
    fn to_vec_of_handles(&self) -> Vec<Tensor>;
}

impl Handles for [Tensor] {
    fn to_vec_of_handles(&self) -> Vec<Tensor> {
        self.iter().map(Tensor::shallow_clone).collect()
    }
}

fn same(a: &Tensor, b: &Tensor) {
    let largest = (a - b).abs().max().double_value(&[]);
    assert_eq!(largest, 0.0, "{largest}");
}

/// Returns the outputs and the gradient of a step, with random numbers that depend only on the
/// seed.
fn step(seed: u64, weight: &mut Tensor, compute: impl Fn() -> Vec<Tensor>) -> [Tensor; 3] {
    torch_ext::drop_gradients(std::slice::from_ref(weight)).unwrap();
    manual_seed(seed);
    let outputs = compute();
    let loss = (&outputs[0] * (&outputs[1] + 0.5)).square().sum(Kind::Float);
    loss.backward();
    [outputs[0].detach().copy(), outputs[1].copy(), weight.grad().copy()]
}

#[test]
fn a_replay_is_what_the_function_computes_now() {
    let Some(_turn) = turn() else { return };
    let (mut weight, other) = weights();
    let x = Tensor::randn([64, 8], (Kind::Float, GPU));
    // The first run initializes libraries.
    let _ = step(0, &mut weight.shallow_clone(), || both(&x, &weight, &other));
    for mixed in [None, Some(Kind::BFloat16)] {
        let graph = autocast(GPU, mixed, || record(&x, &weight, &other)).unwrap().unwrap();
        assert!(graph.fits(&[x.shallow_clone()]) && !graph.fits(&[x.narrow(0, 0, 3)]));
        for seed in 0..5 {
            // New images, and changed weights, as after an optimizer step.
            let x = Tensor::randn([64, 8], (Kind::Float, GPU));
            tch::no_grad(|| weight += 0.1);
            let eager = step(seed, &mut weight.shallow_clone(), || {
                autocast(GPU, mixed, || both(&x, &weight, &other)).unwrap()
            });
            let replayed = step(seed, &mut weight.shallow_clone(), || {
                graph.replay(&[x.shallow_clone()]).unwrap()
            });
            // The graph draws random numbers in the same order as the eager functions.
            eager.iter().zip(&replayed).for_each(|(a, b)| same(a, b));
        }
        let wrong = graph.replay(&[x.narrow(0, 0, 3)]).unwrap_err().to_string();
        assert!(wrong.contains("input 0 was [64, 8]"), "{wrong}");
    }
}

/// Records a product whose gradient is transposed, and a sum whose terms share their gradient.
#[test]
fn recorded_gradients_lie_as_those_of_a_backward_pass_do() {
    let Some(_turn) = turn() else { return };
    manual_seed(1);
    let sizes = [[6, 8], [4, 6], [4, 6]];
    let params = sizes.map(|size| Tensor::randn(size, (Kind::Float, GPU)).set_requires_grad(true));
    let x = Tensor::randn([4, 8], (Kind::Float, GPU));
    let compute = |x: &Tensor| vec![x.matmul(&params[0].tr()) * (&params[1] + &params[2])];
    let gradients = |outputs: Vec<Tensor>| {
        outputs[0].square().sum(Kind::Float).backward();
        params.each_ref().map(Tensor::grad)
    };
    let eager = gradients(compute(&x)).map(|gradient| gradient.copy());
    torch_ext::drop_gradients(&params).unwrap();
    let handles = params.to_vec_of_handles();
    let graph = CudaGraph::record::<Error>(&[x.shallow_clone()], &handles, &[], |inputs| {
        Ok(compute(&inputs[0]))
    });
    let mut recorded = gradients(graph.unwrap().replay(&[x]).unwrap());
    for ((eager, recorded), param) in eager.iter().zip(&recorded).zip(&params) {
        same(eager, recorded);
        assert_eq!(recorded.stride(), param.stride());
    }
    // Clipping scales each gradient in place.
    let [_, one, other] = &mut recorded;
    *one *= 0.0;
    same(other, &eager[2]);
}

#[test]
fn what_waits_for_the_device_cannot_be_recorded_and_everything_goes_on() {
    let Some(_turn) = turn() else { return };
    let x = Tensor::randn([64, 8], (Kind::Float, GPU));
    for _ in 0..2 {
        let refused = CudaGraph::record::<Error>(&[x.shallow_clone()], &[], &[], |inputs| {
            let sum = inputs[0].sum(Kind::Float).f_double_value(&[])?;
            Ok(vec![&inputs[0] * sum])
        });
        assert!(refused.is_err());
        let mut y = Tensor::ones([4, 4], (Kind::Float, GPU));
        y += 1.0;
        assert_eq!(y.sum(Kind::Float).double_value(&[]), 32.0);
    }
    let (weight, other) = weights();
    assert!(record(&x, &weight, &other).is_ok());
}

#[test]
fn casts_of_a_recording_that_failed_are_not_used() {
    let Some(_turn) = turn() else { return };
    let (weight, _) = weights();
    let x = Tensor::randn([64, 8], (Kind::Float, GPU));
    let compute = |x: &Tensor| x.matmul(&weight).to_kind(Kind::Float);
    let expected = autocast(GPU, Some(Kind::BFloat16), || compute(&x)).unwrap();
    let after = autocast(GPU, Some(Kind::BFloat16), || {
        let refused = CudaGraph::record::<Error>(&[x.shallow_clone()], &[], &[], |inputs| {
            let sum = compute(&inputs[0]).sum(Kind::Float).f_double_value(&[])?;
            Ok(vec![&inputs[0] * sum])
        });
        assert!(refused.is_err());
        compute(&x)
    });
    same(&expected, &after.unwrap());
}

#[test]
fn a_cpu_has_no_graphs() {
    let x = Tensor::ones([2], (Kind::Float, Device::Cpu));
    let refused =
        CudaGraph::record::<Error>(&[x], &[], &[], |inputs| Ok(inputs.to_vec_of_handles()));
    let refused = refused.map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("CUDA"), "{refused}");
}
