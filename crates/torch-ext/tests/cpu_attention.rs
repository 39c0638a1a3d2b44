//! Attention in bfloat16 on the CPU against its formulas in fp64. On a processor without AVX-512 BF16, only its
//! refusal is tested.
#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

use tch::{Device, Kind, Tensor};
use torch_ext::{cpu_attention, has_cpu_attention};

/// Queries, keys, and values `[B, H, T, W]` as views of one projection `[B, T, 3 H W]`, in bfloat16.
fn views(batch: i64, heads: i64, tokens: i64, width: i64) -> [Tensor; 3] {
    tch::manual_seed(tokens * width);
    let qkv = Tensor::randn([batch, tokens, 3, heads, width], (Kind::Float, Device::Cpu)) * 1.5;
    let parts = qkv.to_kind(Kind::BFloat16).permute([2, 0, 3, 1, 4]);
    [0, 1, 2].map(|i| parts.select(0, i))
}

/// Attention in fp64, `[B, Q, H W]`.
fn exact(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    let [q, k, v] = [q, k, v].map(|x| x.to_kind(Kind::Double));
    let scale = (q.size()[3] as f64).powf(-0.5);
    let weights = (q * scale).matmul(&k.transpose(-2, -1)).softmax(-1, Kind::Double);
    weights.matmul(&v).transpose(1, 2).flatten(2, 3)
}

/// Weights and outputs are each rounded to 8 bits, which changes them by a factor of at most 1 + 2^-8. So
/// an output is off by at most 2^-7 of the weighted mean of absolute values, and a little for sums in fp32.
fn assert_close(q: &Tensor, k: &Tensor, v: &Tensor, what: &str) {
    let got = cpu_attention(q, k, v).unwrap();
    assert_eq!(got.kind(), Kind::BFloat16, "{what}");
    let allowed = exact(q, k, &v.abs()) * (2.02 / 256.0) + 1e-6;
    let error = (got.to_kind(Kind::Double) - exact(q, k, v)).abs() / allowed;
    let worst = error.max().double_value(&[]);
    assert!(worst <= 1.0, "{what}: {worst} times the error of rounding");
}

#[test]
fn it_is_exact_up_to_the_rounding_of_bfloat16() {
    if !has_cpu_attention() {
        let [q, k, v] = views(1, 1, 4, 32);
        let error = cpu_attention(&q, &k, &v).unwrap_err().to_string();
        assert!(error.contains("AVX-512 BF16"), "{error}");
        return;
    }
    for tokens in [1, 2, 12, 13, 31, 33, 50, 197] {
        for (heads, width) in [(3, 64), (2, 32), (1, 80), (2, 24), (1, 2), (1, 130)] {
            let [q, k, v] = views(2, heads, tokens, width);
            assert_close(&q, &k, &v, &format!("{tokens} tokens, {heads} heads of {width}"));
        }
    }
    // Fewer queries than keys, and scores so far apart that most weights vanish.
    let [q, k, v] = views(3, 2, 45, 64);
    assert_close(&q.narrow(2, 4, 7), &k, &v, "seven queries");
    assert_close(&(q * 30), &k, &v, "scores of hundreds");
}

#[test]
fn a_value_that_is_not_finite_reaches_the_queries_that_see_it_and_no_others() {
    if !has_cpu_attention() {
        return;
    }
    for bad in [f64::NAN, f64::INFINITY] {
        let [q, k, v] = views(2, 2, 20, 32);
        let mut of_one_head = v.select(0, 1).select(0, 0).select(0, 5);
        let _ = of_one_head.fill_(bad);
        let finite = cpu_attention(&q, &k, &v).unwrap().isfinite().view([2, 20, 2, 32]);
        let per_head = finite.all_dims([1, 3].as_slice(), false);
        assert_eq!(per_head, Tensor::from_slice(&[true, true, false, true]).view([2, 2]));
    }
}

#[test]
fn results_do_not_depend_on_the_batch_or_the_number_of_threads() {
    if !has_cpu_attention() {
        return;
    }
    let [q, k, v] = views(3, 2, 130, 64);
    let all = cpu_attention(&q, &k, &v).unwrap();
    let one = |x: &Tensor| x.narrow(0, 1, 1);
    assert_eq!(cpu_attention(&one(&q), &one(&k), &one(&v)).unwrap(), one(&all));
    let threads = tch::get_num_threads();
    tch::set_num_threads(1);
    let alone = cpu_attention(&q, &k, &v);
    tch::set_num_threads(threads);
    assert_eq!(alone.unwrap(), all);
}

#[test]
fn other_types_shapes_and_layouts_are_refused() {
    if !has_cpu_attention() {
        return;
    }
    let [q, k, v] = views(1, 2, 6, 8);
    let refused = |q: &Tensor, k: &Tensor, v: &Tensor, what: &str| {
        let error = cpu_attention(q, k, v).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    };
    refused(&q.to_kind(Kind::Float), &k, &v, "q must be [B, H, T, W] in bfloat16");
    refused(&q, &k.narrow(1, 0, 1), &v, "k must fit queries");
    refused(&q, &k, &v.narrow(2, 0, 3), "equally many tokens");
    refused(&q.narrow(3, 0, 7), &k.narrow(3, 0, 7), &v.narrow(3, 0, 7), "even width");
    refused(&q.transpose(2, 3), &k.transpose(2, 3), &v.transpose(2, 3), "must be contiguous");
}
