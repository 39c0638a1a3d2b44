//! Compares attention from a projection with libtorch's own operators in fp64: the formulas and, on
//! a GPU, the kernels. Also runs the source of the kernels on the CPU.
//!
//! `SIMDINO_BENCH=1 cargo test --test attention -- --nocapture` also prints times on a GPU.

#[path = "support/kernels.rs"]
mod kernels;
#[path = "support/timing.rs"]
mod timing;

use kernels::{CPU, emulate, exact, gpu, in_fp64};
use tch::{Device, Kind, Tensor};
use timing::{gpu_to_time, milliseconds};
use torch_ext::fused;

const WIDTH: i64 = 64;

/// A projection `[B, T, 3 D]` and the gradient of the output `[B, T, D]`.
struct Case {
    qkv: Tensor,
    d_out: Tensor,
    heads: i64,
}

fn case(batch: i64, tokens: i64, heads: i64, width: i64) -> Case {
    tch::manual_seed(tokens);
    let dim = heads * width;
    Case { qkv: exact(&[batch, tokens, 3 * dim]), d_out: exact(&[batch, tokens, dim]), heads }
}

type Results = [(&'static str, Tensor); 5];

/// Returns the output, and the gradients of queries, keys, values, and the bias, in fp64. The bias
/// is zero, so that the projection is the same in all types.
fn run(case: &Case, device: Device, kind: Kind, f: impl Fn(&Tensor, &Tensor) -> Tensor) -> Results {
    let wide = if kind == Kind::BFloat16 { Kind::Float } else { kind };
    let qkv = case.qkv.to_device(device).to_kind(kind).detach().copy().set_requires_grad(true);
    let bias = Tensor::zeros([qkv.size()[2]], (wide, device)).set_requires_grad(true);
    let out = f(&qkv, &bias);
    let weighted = out.to_kind(Kind::Double) * case.d_out.to_device(device);
    weighted.sum(None).backward();
    let mut thirds = qkv.grad().chunk(3, 2);
    let (d_value, d_key, d_query) = (thirds.remove(2), thirds.remove(1), thirds.remove(0));
    [
        ("out", out),
        ("d_query", d_query),
        ("d_key", d_key),
        ("d_value", d_value),
        ("d_bias", bias.grad()),
    ]
    .map(in_fp64)
}

/// Compares results, with an absolute tolerance for small ones: with one token, the gradients of
/// queries and keys are zero.
fn compare(got: &Results, exact: &Results, allowed: f64, what: &str) {
    kernels::compare(got, exact, 0.1, |_| allowed, what);
}

/// Computes the same with libtorch's operators.
fn by_operators(qkv: &Tensor, bias: &Tensor, heads: i64) -> Tensor {
    let (size, with_bias) = (qkv.size(), qkv + bias.to_kind(qkv.kind()));
    let parts = with_bias.view([size[0], size[1], 3, heads, -1]).permute([2, 0, 3, 1, 4]);
    let [q, k, v] = [0, 1, 2].map(|i| parts.select(0, i));
    Tensor::scaled_dot_product_attention::<Tensor>(&q, &k, &v, None, 0.0, false, None, false)
        .transpose(1, 2)
        .flatten(2, 3)
}

fn by_us(qkv: &Tensor, bias: &Tensor, heads: i64) -> torch_ext::Result<Tensor> {
    fused::attention(qkv, Some(bias), heads)
}

#[test]
fn the_formulas_are_those_of_libtorch() {
    for (batch, tokens, heads, width) in [(2, 1, 1, 8), (3, 5, 3, 8), (2, 37, 2, 64)] {
        let case = case(batch, tokens, heads, width);
        let want = run(&case, CPU, Kind::Double, |x, b| by_operators(x, b, heads));
        for (kind, allowed) in [(Kind::Double, 1e-12), (Kind::Float, 1e-5), (Kind::BFloat16, 8e-3)]
        {
            let got = run(&case, CPU, kind, |x, b| by_us(x, b, heads).unwrap());
            compare(&got, &want, allowed, &format!("{tokens} tokens, {kind:?}"));
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let x = Tensor::zeros([2, 3, 24], (Kind::Float, CPU));
    let refused =
        |bias: Option<&Tensor>, heads| fused::attention(&x, bias, heads).unwrap_err().to_string();
    assert!(refused(None, 3).contains("for 3 heads"));
    assert!(refused(None, 0).contains("for 0 heads"));
    let bias = Tensor::zeros([8], (Kind::Float, CPU));
    assert!(refused(Some(&bias), 2).contains("bias must be [24]"));
    assert!(fused::attention_supported(CPU, 37, WIDTH).is_err());
    let Some(device) = gpu() else { return };
    assert!(fused::attention_supported(device, 37, 32).is_err());
    assert!(fused::attention_supported(device, 273, WIDTH).is_err());
}

/// Returns whether the kernels support this number of tokens on the device; prints why not.
fn kernels_for(device: Device, tokens: i64) -> bool {
    let supported = fused::attention_supported(device, tokens, WIDTH);
    if let Err(why) = &supported {
        println!("{tokens} tokens skipped: {why}");
    }
    supported.is_ok()
}

#[test]
fn kernels_attend_as_libtorch_does_in_fp64() {
    let Some(device) = gpu() else { return };
    for tokens in [1, 5, 16, 17, 37, 50, 65, 128, 197, 201, 257, 272] {
        if !kernels_for(device, tokens) {
            continue;
        }
        let case = case(5, tokens, 3, WIDTH);
        let what = format!("{tokens} tokens");
        let want = run(&case, CPU, Kind::Double, |x, b| by_operators(x, b, case.heads));
        let ours = || run(&case, device, Kind::BFloat16, |x, b| by_us(x, b, case.heads).unwrap());
        let got = ours();
        compare(&got, &want, 1e-2, &what);
        for ((name, first), (_, second)) in got.iter().zip(&ours()) {
            assert_eq!(first, second, "{what}: {name} differs from run to run");
        }
    }
}

/// Returns the times of the forward pass of `f`, and of both passes together.
fn times(
    device: Device,
    [batch, tokens, heads]: [i64; 3],
    f: impl Fn(&Tensor, &Tensor) -> Tensor,
) -> (f64, f64) {
    let dim = heads * WIDTH;
    let qkv = Tensor::randn([batch, tokens, 3 * dim], (Kind::BFloat16, device));
    let bias = Tensor::zeros([3 * dim], (Kind::Float, device)).set_requires_grad(true);
    let d_out = Tensor::randn([batch, tokens, dim], (Kind::BFloat16, device));
    let forward = tch::no_grad(|| {
        milliseconds(|| {
            let _ = f(&qkv, &bias);
        })
    });
    let leaf = qkv.set_requires_grad(true);
    let both = milliseconds(|| {
        let out = f(&leaf, &bias);
        let inputs = [&leaf, &bias];
        // The gradient of this sum is `d_out`; the cost of the product is the same for all `f`.
        Tensor::run_backward(&[(out * &d_out).sum(Kind::Float)], &inputs, false, false);
    });
    (forward, both)
}

#[test]
fn times_beside_those_of_libtorch() {
    let Some(device) = gpu_to_time() else { return };
    for shape in [[256, 197, 12], [1280, 37, 12]] {
        if !kernels_for(device, shape[1]) {
            continue;
        }
        let ours = times(device, shape, |x, b| by_us(x, b, shape[2]).unwrap());
        let theirs = times(device, shape, |x, b| {
            let [q, k, v] = fused::split_heads(x, Some(b), shape[2]).unwrap();
            Tensor::scaled_dot_product_attention::<Tensor>(
                &q, &k, &v, None, 0.0, false, None, false,
            )
            .transpose(1, 2)
            .flatten(2, 3)
        });
        println!(
            "{shape:?}: forward {:.3} ms, libtorch {:.3}; both passes {:.3}, libtorch {:.3}",
            ours.0, theirs.0, ours.1, theirs.1
        );
    }
}

#[test]
fn the_text_of_the_kernels_computes_what_plain_loops_do() {
    let cases: [(u32, &[&str]); 7] = [
        (1, &["5", "16"]),
        (2, &["17"]),
        (3, &["37"]),
        (4, &["50"]),
        (5, &["65"]),
        (13, &["197", "201"]),
        (17, &["257"]),
    ];
    for (tiles, tokens) in cases {
        emulate("attention.cpp", &format!("TILES={tiles}"), tokens);
    }
}
