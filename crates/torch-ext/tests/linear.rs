//! Compares the linear layer with libtorch's own, which computes in fp64 where we choose the
//! kernels.
//!
//! `SIMDINO_BENCH=1 cargo test --test linear -- --nocapture` also prints times on a GPU.

#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

#[path = "support/kernels.rs"]
mod kernels;
#[path = "support/timing.rs"]
mod timing;

use std::thread;

use kernels::{CPU, emulate, exact, gpu, in_fp64};
use tch::{Device, Kind, Tensor};
use timing::{gpu_to_time, milliseconds};
use torch_ext::{CudaGraph, Error, autocast, fused};

/// Input `[.., K]`, weight `[N, K]`, bias `[N]`, and the gradient of the output `[.., N]`.
struct Case {
    x: Tensor,
    weight: Tensor,
    bias: Option<Tensor>,
    d_out: Tensor,
}

impl Case {
    /// Clones handles to the same tensors for another thread.
    fn handle(&self) -> Self {
        Self {
            x: self.x.shallow_clone(),
            weight: self.weight.shallow_clone(),
            bias: self.bias.as_ref().map(Tensor::shallow_clone),
            d_out: self.d_out.shallow_clone(),
        }
    }
}

fn case(rows: &[i64], inputs: i64, outputs: i64, bias: bool) -> Case {
    tch::manual_seed(inputs + outputs);
    let with = |last| [rows, &[last]].concat();
    Case {
        x: exact(&with(inputs)),
        weight: exact(&[outputs, inputs]),
        bias: bias.then(|| exact(&[outputs])),
        d_out: exact(&with(outputs)),
    }
}

/// The implementation that computes a result: [`fused::linear`] or libtorch.
#[derive(Clone, Copy)]
enum By {
    Us,
    Libtorch,
}

impl By {
    fn linear(self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        match self {
            Self::Us => fused::linear(x, weight, bias).unwrap(),
            Self::Libtorch => x.linear(weight, bias),
        }
    }
}

/// Returns the output, and the gradients of input, weight, and bias, in fp64. For bfloat16, weight
/// and bias are in fp32 under autocast.
fn run(case: &Case, device: Device, kind: Kind, by: By) -> Vec<(&'static str, Tensor)> {
    let mixed = (kind == Kind::BFloat16).then_some(kind);
    let wide = if mixed.is_some() { Kind::Float } else { kind };
    let leaf = |t: &Tensor, kind: Kind| {
        t.to_device(device).to_kind(kind).detach().copy().set_requires_grad(true)
    };
    let (x, weight) = (leaf(&case.x, kind), leaf(&case.weight, wide));
    let bias = case.bias.as_ref().map(|bias| leaf(bias, wide));
    let out = autocast(device, mixed, || by.linear(&x, &weight, bias.as_ref())).unwrap();
    let d_out = case.d_out.to_device(device);
    (out.to_kind(Kind::Double) * d_out).sum(None).backward();
    let mut results = vec![("out", out), ("d_x", x.grad()), ("d_weight", weight.grad())];
    results.extend(bias.map(|bias| ("d_bias", bias.grad())));
    results.into_iter().map(in_fp64).collect()
}

fn compare(got: &[(&str, Tensor)], want: &[(&str, Tensor)], allowed: f64, what: &str) {
    kernels::compare(got, want, 0.1, |_| allowed, what);
}

fn assert_same(got: &[(&str, Tensor)], want: &[(&str, Tensor)], what: &str) {
    for ((name, got), (_, want)) in got.iter().zip(want) {
        assert_eq!(got, want, "{what}: {name}");
    }
}

#[test]
fn on_a_cpu_it_is_the_layer_of_libtorch() {
    for rows in [&[7][..], &[2, 5], &[2, 1, 3]] {
        for bias in [false, true] {
            let case = case(rows, 24, 40, bias);
            let what = format!("{rows:?}, bias {bias}");
            let want = run(&case, CPU, Kind::Double, By::Libtorch);
            for (kind, allowed) in
                [(Kind::Double, 1e-13), (Kind::Float, 1e-6), (Kind::BFloat16, 8e-3)]
            {
                compare(&run(&case, CPU, kind, By::Us), &want, allowed, &what);
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, CPU));
    let refused = |x: &[i64], weight: &[i64], bias: Option<Tensor>| {
        fused::linear(&zeros(x), &zeros(weight), bias.as_ref()).is_err()
    };
    assert!(refused(&[3, 8], &[4, 7], None));
    assert!(refused(&[3, 8], &[4, 8], Some(zeros(&[5]))));
    assert!(fused::linear_supported(CPU, 50_432, 1152, 384).is_err());
}

// Shapes of rows, and numbers of input and output columns. On Hopper, we choose the kernels of
// `LARGE`.
const SMALL: [(&[i64], i64, i64); 5] = [
    (&[394], 384, 1152),
    (&[2, 197], 384, 384),
    (&[3, 37], 40, 24),
    (&[5], 12, 20), // not a multiple of 8
    (&[1], 768, 768),
];
const LARGE: [(&[i64], i64, i64); 6] = [
    (&[64, 197], 384, 1152),
    (&[37, 1297], 384, 384),
    (&[64, 197], 768, 2304),
    (&[14_129], 768, 768),
    (&[71, 199], 768, 3072),
    (&[51, 197], 1024, 3072),
];

/// Prints whether we choose the kernel of a layer; fails if cuBLASLt rejected the one that we
/// chose.
fn assert_not_refused(device: Device, what: &str, [rows, inputs, outputs]: [i64; 3]) {
    match fused::linear_supported(device, rows, outputs, inputs) {
        Ok(()) => println!("{what}: by us"),
        Err(why) => {
            let why = why.to_string();
            assert!(!why.to_lowercase().contains("cublaslt"), "{what}: {why}");
            println!("{what}: by libtorch, {why}");
        }
    }
}

#[test]
fn on_a_gpu_it_is_a_product_in_fp64_but_for_rounding() {
    let Some(device) = gpu() else { return };
    for (rows, inputs, outputs) in SMALL.into_iter().chain(LARGE) {
        for bias in [false, true] {
            let case = case(rows, inputs, outputs, bias);
            let what = format!("{rows:?}, {inputs} to {outputs}, bias {bias}");
            let want = run(&case, device, Kind::Double, By::Libtorch);
            let ours = run(&case, device, Kind::BFloat16, By::Us);
            compare(&ours, &want, 5e-3, &what);
            compare(&run(&case, device, Kind::BFloat16, By::Libtorch), &want, 5e-3, &what);
            let again = run(&case, device, Kind::BFloat16, By::Us);
            assert_same(&again, &ours, &format!("{what}, again"));
            assert_not_refused(device, &what, [rows.iter().product(), inputs, outputs]);
        }
    }
}

#[test]
fn threads_compute_the_same() {
    let Some(device) = gpu() else { return };
    let case = case(&[70, 197], 768, 1152, true); // new sizes, so that all threads search
    let start = |_| {
        let case = case.handle();
        thread::spawn(move || run(&case, device, Kind::BFloat16, By::Us))
    };
    let threads: Vec<_> = (0..4).map(start).collect();
    let results: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    for other in &results[1..] {
        assert_same(other, &results[0], "another thread");
    }
}

#[test]
fn a_graph_computes_the_same() {
    let Some(device) = gpu() else { return };
    let case = case(&[64, 197], 768, 2304, false);
    let x = case.x.to_device(device).to_kind(Kind::BFloat16);
    let weight = case.weight.to_device(device).to_kind(Kind::Float).set_requires_grad(true);
    let mixed = Some(Kind::BFloat16);
    let gradient = |out: &Tensor| {
        torch_ext::drop_gradients(&[weight.shallow_clone()]).unwrap();
        out.square().sum(Kind::Float).backward();
        weight.grad().copy()
    };
    let want = {
        // A recording must not start while the weight is part of an autograd graph.
        let eager = autocast(device, mixed, || fused::linear(&x, &weight, None)).unwrap().unwrap();
        [gradient(&eager), eager.detach()]
    };
    let record = || {
        CudaGraph::record::<Error>(&[x.shallow_clone()], &[weight.shallow_clone()], &[], |inputs| {
            Ok(vec![fused::linear(&inputs[0], &weight, None)?])
        })
    };
    let graph = autocast(device, mixed, record).unwrap().unwrap();
    for _ in 0..3 {
        let replayed = graph.replay(&[x.shallow_clone()]).unwrap().remove(0);
        assert_eq!(gradient(&replayed), want[0]);
        assert_eq!(replayed.detach(), want[1]);
    }
}

#[test]
fn the_tiles_are_those_that_were_fastest() {
    emulate("linear_tiles.cpp", "PROCESSORS=132", &[]);
}

/// Returns the times of the forward pass with and without a bias, and of both passes without.
fn times(device: Device, rows: i64, [inputs, outputs]: [i64; 2], by: By) -> [f64; 3] {
    let random = |shape: [i64; 2]| Tensor::randn(shape, (Kind::BFloat16, device));
    let (weight, x) = (random([outputs, inputs]), random([rows, inputs]));
    let (bias, d_out) = (weight.select(1, 0).contiguous(), random([rows, outputs]));
    let [with_bias, forward] = [Some(&bias), None].map(|bias| {
        let _without_gradients = tch::no_grad_guard();
        milliseconds(|| drop(by.linear(&x, &weight, bias)))
    });
    let (weight, x) = (weight.set_requires_grad(true), x.set_requires_grad(true));
    let both = milliseconds(|| {
        let out = by.linear(&x, &weight, None);
        // The gradient of this sum is `d_out`; the cost of the product is the same for both.
        let sum = (out * &d_out).sum(Kind::Float);
        Tensor::run_backward(&[sum], &[&x, &weight], false, false);
    });
    [with_bias, forward, both]
}

#[test]
fn times_beside_those_of_libtorch() {
    let Some(device) = gpu_to_time() else { return };
    for (dim, batch) in [(384, 128), (768, 128), (1024, 64)] {
        for rows in [2 * batch * 197, 10 * batch * 37] {
            for layer in [[dim, 3 * dim], [dim, dim], [dim, 4 * dim], [4 * dim, dim]] {
                let supported = fused::linear_supported(device, rows, layer[1], layer[0]).is_ok();
                let [ours, theirs] =
                    [By::Us, By::Libtorch].map(|by| times(device, rows, layer, by));
                println!(
                    "{rows} x {layer:?}, forward by us {supported}: with bias {:.3} ms, libtorch \
                     {:.3}; without {:.3}, libtorch {:.3}; both passes {:.3}, libtorch {:.3}",
                    ours[0], theirs[0], ours[1], theirs[1], ours[2], theirs[2]
                );
            }
        }
    }
}
