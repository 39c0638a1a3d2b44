//! Compares the fused operations of a block with libtorch's own operators in fp64: the formulas
//! and, on a GPU, the kernels. Also runs the source of the kernels on the CPU.
#![allow(clippy::unwrap_used)] // helpers of tests

#[path = "support/kernels.rs"]
mod kernels;

use kernels::{CPU, emulate, exact, gpu, in_fp64};
use tch::{Device, Kind, Tensor};
use torch_ext::fused::{self, Branch, Norm, Subset};

/// The parts of a case. With `subset`, the branch is computed for some of the images, and others
/// are normalized.
#[derive(Debug, Clone, Copy, Default)]
struct Parts {
    branch: bool,
    bias: bool,
    gamma: bool,
    factor: bool,
    subset: bool,
}

const NOTHING: Parts =
    Parts { branch: false, bias: false, gamma: false, factor: false, subset: false };
const PARTS: [Parts; 9] = [
    NOTHING,
    Parts { subset: true, ..NOTHING },
    Parts { branch: true, ..NOTHING },
    Parts { branch: true, bias: true, ..NOTHING },
    Parts { branch: true, bias: true, factor: true, ..NOTHING },
    Parts { branch: true, bias: true, factor: true, subset: true, ..NOTHING },
    Parts { branch: true, bias: true, gamma: true, factor: true, subset: false },
    Parts { branch: true, bias: true, gamma: true, factor: true, subset: true },
    Parts { branch: true, gamma: true, ..NOTHING },
];

/// Inputs of a case, in fp64 on the CPU. The leaves are x, output, bias, gamma, weight, and shift;
/// `numbers` choose the images of the branch and of the norm.
struct Case {
    leaves: [Tensor; 6],
    factor: Tensor,
    numbers: Tensor,
}

impl Case {
    /// Chooses `B - 1` of `B` images for the branch, and `B - 2` for the norm.
    fn subsets(&self, parts: Parts, device: Device) -> [Option<Subset>; 2] {
        let batch = self.numbers.size()[1];
        let numbers = self.numbers.to_device(device);
        let mut subsets = Subset::smallest(&numbers, &[batch - 1, batch - 2]).into_iter();
        [(); 2].map(|()| subsets.next().filter(|_| parts.subset))
    }
}

fn case(batch: i64, tokens: i64, dim: i64) -> Case {
    tch::manual_seed(dim);
    let large = [batch, tokens, dim];
    Case {
        leaves: [
            exact(&large) * 3.0 + 0.5,
            exact(&large),
            exact(&[dim]),
            exact(&[dim]),
            exact(&[dim]) * 0.25 + 1.0,
            exact(&[dim]),
        ],
        // Some images are dropped, the others are scaled.
        factor: Tensor::from_slice(
            &(0..batch).map(|i| if i % 3 == 1 { 0.0 } else { 1.25 }).collect::<Vec<f32>>(),
        ),
        numbers: Tensor::rand([2, batch], (Kind::Float, CPU)),
    }
}

/// Returns the outputs, normed and out, and the gradients of the leaves in use for a fixed function
/// of the outputs.
fn run(
    case: &Case,
    parts: Parts,
    device: Device,
    (stream, activation): (Kind, Kind),
    f: impl Fn(&Tensor, Option<&Branch>, Norm<'_>, Option<&Subset>) -> Outputs,
) -> Vec<(&'static str, Tensor)> {
    let wide = if stream == Kind::BFloat16 { Kind::Float } else { stream };
    let kinds = [stream, activation, wide, wide, wide, wide];
    let [of_branch, of_norm] = case.subsets(parts, device);
    let leaves: Vec<Tensor> = case
        .leaves
        .iter()
        .zip(kinds)
        .map(|(leaf, kind)| {
            leaf.to_device(device).to_kind(kind).detach().copy().set_requires_grad(true)
        })
        .collect();
    let output = match &of_branch {
        Some(subset) => leaves[1].index_select(0, &subset.images()),
        None => leaves[1].shallow_clone(),
    };
    let branch = parts.branch.then(|| Branch {
        output,
        bias: parts.bias.then(|| leaves[2].shallow_clone()),
        gamma: parts.gamma.then(|| leaves[3].shallow_clone()),
        factor: parts.factor.then(|| case.factor.to_device(device)),
        subset: of_branch,
    });
    let norm = Norm { weight: &leaves[4], shift: &leaves[5], eps: 1e-6 };
    let (normed, out) = f(&leaves[0], branch.as_ref(), norm, of_norm.as_ref());
    // Weights that are exact in bfloat16, so that the incoming gradients are the same in all types.
    let weights = |like: &Tensor, step: i64| {
        let count =
            (Tensor::arange(like.numel() as i64, (Kind::Int64, device)) * step).remainder(17);
        (count.to_kind(Kind::Double).view_as(like) - 8.0) / 8.0
    };
    let mut loss = (normed.to_kind(Kind::Double) * weights(&normed, 1)).sum(None);
    if let Some(out) = &out {
        loss += (out.to_kind(Kind::Double) * weights(out, 5)).sum(None);
    }
    loss.backward();
    let mut results = vec![("normed", normed)];
    results.extend(out.map(|out| ("out", out)));
    let used = [true, parts.branch, parts.bias, parts.gamma, true, true];
    let names = ["d_x", "d_output", "d_bias", "d_gamma", "d_weight", "d_shift"];
    for ((leaf, used), name) in leaves.iter().zip(used).zip(names) {
        assert_eq!(leaf.grad().defined(), used, "{name}");
        if used {
            results.push((name, leaf.grad()));
        }
    }
    results.into_iter().map(in_fp64).collect()
}

type Outputs = (Tensor, Option<Tensor>);

/// Returns the normalized tokens, and the sum if there is a branch.
fn by_us(
    x: &Tensor,
    branch: Option<&Branch>,
    norm: Norm<'_>,
    kind: Kind,
    subset: Option<&Subset>,
) -> torch_ext::Result<Outputs> {
    match branch {
        Some(branch) => {
            fused::add_norm(x, branch, norm, kind, subset).map(|(normed, out)| (normed, Some(out)))
        }
        None => fused::norm(x, norm, kind, subset).map(|normed| (normed, None)),
    }
}

fn by_operators(
    x: &Tensor,
    branch: Option<&Branch>,
    norm: Norm<'_>,
    subset: Option<&Subset>,
) -> Outputs {
    let out = branch.map(|Branch { output, bias, gamma, factor, subset }| {
        let with = |value: Tensor, other: &Option<Tensor>, f: fn(&Tensor, &Tensor) -> Tensor| {
            other.as_ref().map_or(value.shallow_clone(), |other| f(&value, other))
        };
        let images = match subset {
            Some(subset) => subset.images(),
            None => Tensor::arange(x.size()[0], (Kind::Int64, x.device())),
        };
        let value = with(output.shallow_clone(), bias, |value, bias| value + bias);
        let value = with(value, gamma, |value, gamma| value * gamma);
        let per_image =
            |value: &Tensor, factor: &Tensor| value * factor.to_kind(Kind::Double).view([-1, 1, 1]);
        let factor = factor.as_ref().map(|factor| factor.index_select(0, &images));
        x.index_add(0, &images, &with(value, &factor, per_image))
    });
    let input = out.as_ref().unwrap_or(x);
    let dim = x.size()[2];
    let normed = input.layer_norm([dim], Some(norm.weight), Some(norm.shift), norm.eps, false);
    let normed = match subset {
        Some(subset) => normed.index_select(0, &subset.images()),
        None => normed,
    };
    (normed, out)
}

fn compare(
    got: &[(&str, Tensor)],
    exact: &[(&str, Tensor)],
    allowed: impl Fn(&str) -> f64,
    what: &str,
) {
    kernels::compare(got, exact, f64::MIN_POSITIVE, allowed, what);
}

#[test]
fn the_formulas_are_those_of_libtorch() {
    let case = case(4, 5, 24);
    for parts in PARTS {
        let double = (Kind::Double, Kind::Double);
        let exact = run(&case, parts, CPU, double, by_operators);
        let ours =
            run(&case, parts, CPU, double, |x, b, n, s| by_us(x, b, n, Kind::Double, s).unwrap());
        compare(&ours, &exact, |_| 1e-12, &format!("{parts:?}"));
        for stream in STREAMS {
            let ours = mixed(&case, parts, CPU, stream);
            let what = format!("{parts:?}, bfloat16 beside {stream:?}");
            compare(&ours, &exact, |name| tolerance(name, stream), &what);
        }
    }
}

/// Types of the residual stream with activations in bfloat16.
const STREAMS: [Kind; 2] = [Kind::Float, Kind::BFloat16];

fn mixed(case: &Case, parts: Parts, device: Device, stream: Kind) -> Vec<(&'static str, Tensor)> {
    let kind = Kind::BFloat16;
    run(case, parts, device, (stream, kind), |x, b, n, s| by_us(x, b, n, kind, s).unwrap())
}

/// Returns the tolerance of a result: that of bfloat16 if it is stored as such or computed from a
/// stream in bfloat16, otherwise that of float sums of rounded terms.
fn tolerance(name: &str, stream: Kind) -> f64 {
    match (name, stream) {
        (_, Kind::BFloat16) => 1e-2,
        ("normed" | "d_output", _) => 5e-3,
        _ => 2e-5,
    }
}

#[test]
fn kernels_add_and_normalize_as_the_formulas_do() {
    let Some(device) = gpu() else { return };
    for (batch, tokens, dim) in
        [(3, 7, 128), (5, 37, 192), (6, 197, 384), (7, 65, 768), (5, 50, 1024), (4, 33, 1536)]
    {
        fused::supported(device, dim).unwrap();
        let case = case(batch, tokens, dim);
        for parts in PARTS {
            let exact = run(&case, parts, CPU, (Kind::Double, Kind::Double), by_operators);
            for stream in STREAMS {
                let ours = mixed(&case, parts, device, stream);
                let what = format!("width {dim}, {parts:?}, {stream:?}");
                compare(&ours, &exact, |name| tolerance(name, stream), &what);
            }
        }
    }
}

/// Returns the output, and the gradients of x and of the bias.
fn gelu(
    x: &Tensor,
    bias: &Tensor,
    kinds: (Kind, Kind),
    device: Device,
    f: impl Fn(&Tensor, &Tensor) -> Tensor,
) -> Vec<(&'static str, Tensor)> {
    let leaf = |t: &Tensor, kind| {
        t.to_device(device).to_kind(kind).detach().copy().set_requires_grad(true)
    };
    let (x, bias) = (leaf(x, kinds.0), leaf(bias, kinds.1));
    let out = f(&x, &bias);
    let weights = (Tensor::arange(out.numel() as i64, (Kind::Int64, device)).remainder(17) - 8)
        .to_kind(Kind::Double)
        / 8.0;
    (out.to_kind(Kind::Double) * weights.view_as(&out)).sum(None).backward();
    [("normed", out), ("d_output", x.grad()), ("d_bias", bias.grad())].map(in_fp64).into()
}

#[test]
fn gelu_of_a_sum_and_its_gradients() {
    let plain = |x: &Tensor, b: &Tensor| (x + b).gelu("none");
    for (rows, columns, dim) in
        [(6, 40, 16), (5, 20, 128), (777, 512, 128), (301, 1536, 384), (130, 3072, 768)]
    {
        tch::manual_seed(columns);
        let (x, bias) = (exact(&[3, rows, columns]) * 2.0, exact(&[columns]));
        let double = (Kind::Double, Kind::Double);
        let want = gelu(&x, &bias, double, CPU, plain);
        let ours = gelu(&x, &bias, double, CPU, |x, b| fused::bias_gelu(x, b, dim).unwrap());
        compare(&ours, &want, |_| 1e-12, "operators");
        if dim > 16
            && let Some(device) = gpu()
        {
            let mixed = (Kind::BFloat16, Kind::Float);
            let ours = gelu(&x, &bias, mixed, device, |x, b| fused::bias_gelu(x, b, dim).unwrap());
            compare(
                &ours,
                &want,
                |name| tolerance(name, Kind::Float),
                &format!("kernels, {columns} columns"),
            );
        }
    }
}

#[test]
fn heads_are_split_and_their_gradients_merged_with_those_of_the_bias() {
    let mut devices = vec![(CPU, Kind::Double, 1e-12), (CPU, Kind::BFloat16, 5e-3)];
    devices.extend(gpu().map(|device| (device, Kind::BFloat16, 5e-3)));
    for (device, kind, allowed) in devices {
        for (batch, tokens, heads, width) in [(2, 5, 3, 8), (5, 37, 6, 64), (3, 197, 12, 64)] {
            let dim = heads * width;
            if device != CPU && dim < 128 {
                continue;
            }
            tch::manual_seed(dim);
            let values = (exact(&[batch, tokens, 3 * dim]), exact(&[3 * dim]) * 0.5);
            let weights = exact(&[3, batch, heads, tokens, width]);
            let run = |device: Device,
                       kind: Kind,
                       split: &dyn Fn(&Tensor, &Tensor) -> [Tensor; 3]| {
                let leaf = |t: &Tensor, kind| {
                    t.to_device(device).to_kind(kind).detach().copy().set_requires_grad(true)
                };
                let wide = if kind == Kind::BFloat16 { Kind::Float } else { kind };
                let (x, bias) = (leaf(&values.0, kind), leaf(&values.1, wide));
                let parts = split(&x, &bias);
                let loss = parts.iter().zip(0..).map(|(part, i)| {
                    // As from attention, gradients are laid out as [B, T, H, W], or are contiguous.
                    (part.to_kind(Kind::Double) * weights.select(0, i).to_device(device)).sum(None)
                });
                loss.sum::<Tensor>().backward();
                let out = Tensor::stack(&parts, 0);
                [("out", out), ("d_qkv", x.grad()), ("d_bias", bias.grad())].map(in_fp64)
            };
            let want = run(CPU, Kind::Double, &|x, bias| {
                let parts =
                    (x + bias).view([batch, tokens, 3, heads, width]).permute([2, 0, 3, 1, 4]);
                [0, 1, 2].map(|i| parts.select(0, i))
            });
            let got = run(device, kind, &|x, bias| {
                let sum = x + bias.detach().to_kind(x.kind());
                fused::split_heads(&sum, Some(bias), heads).unwrap()
            });
            compare(&got, &want, |_| allowed, &format!("{device:?} {kind:?} {heads} heads"));
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let x = Tensor::zeros([2, 3, 8], (Kind::Float, CPU));
    let (right, wrong) = (x.zeros_like().get(0).get(0), Tensor::zeros([4], (Kind::Float, CPU)));
    let norm = |weight| Norm { weight, shift: &right, eps: 1e-6 };
    let refused = |norm, branch: &Branch| {
        fused::add_norm(&x, branch, norm, Kind::Float, None).unwrap_err().to_string()
    };
    let branch = |output: &Tensor, factor| Branch {
        output: output.shallow_clone(),
        bias: None,
        gamma: None,
        factor,
        subset: None,
    };
    assert!(refused(norm(&wrong), &branch(&x, None)).contains("weight must be [8]"));
    assert!(refused(norm(&right), &branch(&right, None)).contains("the branch must be [2, 3, 8]"));
    assert!(
        refused(norm(&right), &branch(&x, Some(wrong.shallow_clone())))
            .contains("factor must be [2]")
    );
    // A subset of one image, but a branch for both.
    let numbers = Tensor::from_slice(&[0.5f32, 0.1]).view([1, 2]);
    let subset = Subset::smallest(&numbers, &[1]).pop();
    let both = Branch { subset, ..branch(&x, None) };
    assert!(refused(norm(&right), &both).contains("must hold 1 images"));
    assert!(fused::bias_gelu(&x, &wrong, 8).unwrap_err().to_string().contains("bias must be [8]"));
    assert!(fused::split_heads(&x, None, 3).unwrap_err().to_string().contains("for 3 heads"));
    assert!(
        fused::norm(&x, norm(&right), Kind::Int64, None)
            .unwrap_err()
            .to_string()
            .contains("floating point")
    );
    assert!(fused::supported(CPU, 8).is_err());
}

#[test]
fn the_text_of_the_kernels_computes_what_plain_loops_do() {
    // These widths have teams of one to six warps, eight or four columns per lane, and parts that
    // differ between the warps of a team.
    for dim in [24, 768, 1032, 1536] {
        emulate("emulated.cpp", &format!("DIM={dim}"), &[]);
    }
}

#[test]
fn with_little_shared_memory_they_compute_the_same() {
    emulate("emulated_small.cpp", "DIM=1024", &[]);
}
