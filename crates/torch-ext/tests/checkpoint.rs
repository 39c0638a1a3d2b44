//! Tests that activation checkpointing gives bitwise equal values and gradients.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers outside of tests")]

use std::sync::Mutex;

use tch::{Device, Kind, Tensor};
use torch_ext::{autocast, checkpoint, manual_seed, rng_state};

/// A function with weights and random numbers, like a block with stochastic depth.
fn body([weight, bias, out]: &[Tensor; 3], x: &Tensor) -> Tensor {
    let hidden = x.linear(weight, Some(bias)).gelu("none");
    let kept = Tensor::rand([x.size()[0], 1], (Kind::Float, Device::Cpu)).gt(0.3);
    x + hidden.matmul(out) * kept
}

/// Returns the value, and the gradients of the input and all parameters. The body is applied twice,
/// so that gradients are accumulated.
fn run(checkpointed: bool, dtype: Option<Kind>) -> Vec<Tensor> {
    manual_seed(3);
    let leaf =
        |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let x = leaf(&[6, 5]);
    let params = [leaf(&[5, 5]), leaf(&[5]), leaf(&[5, 5])];
    let once = |x: &Tensor| {
        if !checkpointed {
            return body(&params, x);
        }
        let inside = Mutex::new(params.each_ref().map(Tensor::shallow_clone));
        checkpoint(x, &params, move |x| body(&inside.lock().unwrap(), x)).unwrap()
    };
    // Once under autocast, where both uses would share the casts of parameters and sum in 16 bits.
    let y =
        autocast(Device::Cpu, dtype, || if dtype.is_some() { once(&x) } else { once(&once(&x)) })
            .unwrap();
    let after = rng_state(Device::Cpu).unwrap();
    y.square().sum(Kind::Float).backward();
    assert_eq!(rng_state(Device::Cpu).unwrap(), after, "the backward pass drew numbers");
    [&x].into_iter().chain(&params).map(Tensor::grad).chain([y.detach()]).collect()
}

#[test]
fn gradients_are_the_same_to_the_last_bit() {
    for dtype in [None, Some(Kind::BFloat16)] {
        assert_eq!(run(true, dtype), run(false, dtype), "{dtype:?}");
    }
    errors();
}

/// Runs on the same thread as the rest, because libtorch's generator is shared.
fn errors() {
    let x = Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let error = checkpoint(&x, &[], |_| std::panic::panic_any("no such thing".to_owned()));
    std::panic::set_hook(quiet);
    assert!(error.unwrap_err().to_string().contains("no such thing"));

    let weight = Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let inside = Mutex::new(weight.shallow_clone());
    let params = [weight.shallow_clone()];
    let y = checkpoint(&x, &params, move |x| x * &*inside.lock().unwrap()).unwrap();
    let _ = tch::no_grad(|| weight.shallow_clone().f_add_scalar_(1.0).unwrap());
    let error = y.sum(Kind::Float).f_backward().unwrap_err().to_string();
    assert!(error.contains("modified by an inplace operation"), "{error}");
}
