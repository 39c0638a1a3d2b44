//! Fused operations of a transformer block, with gradients.
//!
//! On a CUDA device, for residuals in fp32 or bf16 and activations in bf16, element-wise functions
//! run as custom kernels with one pass over memory each, which are compiled for the GPU on first
//! use; [`supported`] checks whether that is possible. Everywhere else, libtorch's operators
//! compute the same formulas: this is correct for every type and device, and no faster than writing
//! them out.
//!
//! Biases belong to these functions rather than to the matrix products before them, because their
//! gradients are sums of values that the functions write anyway.

use std::ffi::c_int;
use std::ptr;

use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

use crate::ffi::pointer;
use crate::{Error, Result, ffi};

/// Checks whether the kernels run on `device` for networks of width `dim`, compiling them if
/// necessary. The answer does not change during the lifetime of the process.
///
/// # Errors
/// Returns the reason if they do not: no CUDA, a GPU without bfloat16, a width that is not a
/// multiple of 8 or is above 1536, no NVRTC, or `SIMDINO_FUSED_KERNELS=0` in the environment.
pub fn supported(device: Device, dim: i64) -> Result<()> {
    const WHAT: &str = "fused kernels";
    match ffi::cuda_index(WHAT, device)? {
        index if index < 0 => Err(Error::Device { what: WHAT, device }),
        // SAFETY: takes numbers.
        index => unsafe { ffi::check(WHAT, ffi::simdino_fused_why_not(index, dim)) },
    }
}

/// Some of the images of a batch, in any order.
#[derive(Debug)]
pub struct Subset {
    /// Index of each image of the batch among the chosen ones, or -1. `[B]`, int32.
    places: Tensor,
    /// Number of chosen images, `K`.
    count: i64,
}

impl Subset {
    /// Chooses, for each row `i` of `numbers` `[n, B]`, the `counts[i]` images with the smallest
    /// numbers. Counts are clamped to 0 to `B`. Returns one subset per row.
    pub fn smallest(numbers: &Tensor, counts: &[i64]) -> Vec<Self> {
        let ranks = numbers.argsort(1, false).argsort(1, false); // [n, B]
        let of_row = |(ranks, &count): (Tensor, &i64)| {
            let count = count.clamp(0, ranks.size()[0]);
            let places = ranks.where_scalarother(&ranks.lt(count), -1.0).to_kind(Kind::Int);
            Self { places, count }
        };
        ranks.unbind(0).into_iter().zip(counts).map(of_row).collect()
    }

    /// Returns the number of chosen images.
    pub fn count(&self) -> i64 {
        self.count
    }

    /// Returns the indices of the chosen images within the batch, in the order of the subset,
    /// `[count]`, int64.
    pub fn images(&self) -> Tensor {
        let last = self.places.where_scalarother(&self.places.ge(0), f64::from(i32::MAX));
        last.argsort(0, false).narrow(0, 0, self.count)
    }
}

impl Clone for Subset {
    /// Shares the tensor.
    fn clone(&self) -> Self {
        Self { places: self.places.shallow_clone(), count: self.count }
    }
}

/// A residual branch that has not been added yet.
#[derive(Debug)]
pub struct Branch {
    /// Its output without the last bias, `[B, T, D]`, or `[K, T, D]` for a subset of the images.
    pub output: Tensor,
    /// The last bias, `[D]`.
    pub bias: Option<Tensor>,
    /// LayerScale: a factor per channel, `[D]`.
    pub gamma: Option<Tensor>,
    /// A factor per image of the batch, `[B]`, in fp32. It gets no gradient.
    pub factor: Option<Tensor>,
    /// Images that the branch was computed for; all of them if `None`.
    pub subset: Option<Subset>,
}

/// Weights of a layer norm.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// Factor per channel, `[D]`.
    pub weight: &'a Tensor,
    /// Offset per channel, `[D]`.
    pub shift: &'a Tensor,
    /// Added to the variance.
    pub eps: f64,
}

/// Computes `out = x + factor * gamma * (output + bias)`, `[B, T, D]` in the type of `x`, and its
/// layer norm in type `kind` for the images of `subset`: `(normed, out)`, where `normed` is
/// `[K, T, D]`, or `[B, T, D]` without a subset.
///
/// If the residual stream `x` is in bf16, parameters and arithmetic are in fp32.
///
/// # Errors
/// Returns an error if shapes or types do not match, or if libtorch or the driver fails.
pub fn add_norm(
    x: &Tensor,
    branch: &Branch,
    norm: Norm<'_>,
    kind: Kind,
    subset: Option<&Subset>,
) -> Result<(Tensor, Tensor)> {
    let (normed, out) = call_add_norm(x, Some(branch), norm, kind, subset)?;
    out.map(|out| (normed, out))
        .ok_or_else(|| Error::Torch { what: ADD_NORM, message: "there is no sum".into() })
}

/// Computes the layer norm of `x` `[B, T, D]` in type `kind` for the images of `subset`.
///
/// # Errors
/// Same as [`add_norm`].
pub fn norm(x: &Tensor, norm: Norm<'_>, kind: Kind, subset: Option<&Subset>) -> Result<Tensor> {
    call_add_norm(x, None, norm, kind, subset).map(|(normed, _)| normed)
}

/// Computes `GELU(x + bias)` in its exact form (no tanh approximation), for `x` and the result
/// `[.., C]` in the type of `x`, within a network of width `dim`.
///
/// # Errors
/// Same as [`add_norm`].
pub fn bias_gelu(x: &Tensor, bias: &Tensor, dim: i64) -> Result<Tensor> {
    const WHAT: &str = "bias_gelu";
    let mut out = ptr::null_mut();
    // SAFETY: both tensors are alive for the call, and `out` has room for the one pointer written.
    unsafe {
        ffi::check(WHAT, ffi::simdino_fused_bias_gelu(pointer(x), pointer(bias), dim, &mut out))?;
        // Without an error, it is a new tensor, and we become its only owner.
        Ok(Tensor::from_ptr(out))
    }
}

/// Splits a projection `[B, T, 3 D]` into queries, keys, and values, each a view `[B, H, T, D /
/// H]`.
///
/// If there is a `bias` `[3 D]`, it must already have been added to `qkv`, detached: its gradient
/// is computed here.
///
/// # Errors
/// Returns an error if a shape does not match.
pub fn split_heads(qkv: &Tensor, bias: Option<&Tensor>, heads: i64) -> Result<[Tensor; 3]> {
    const WHAT: &str = "split_heads";
    let mut out = [ptr::null_mut(); 3];
    let bias = optional(bias);
    // SAFETY: the tensors are alive for the call, and `out` has room for three pointers.
    unsafe {
        ffi::check(
            WHAT,
            ffi::simdino_fused_split_heads(pointer(qkv), bias, heads, out.as_mut_ptr()),
        )?;
        // Without an error, each is a new tensor, and we become its only owner.
        Ok(out.map(|tensor| Tensor::from_ptr(tensor)))
    }
}

const ATTENTION: &str = "attention";

/// Checks whether kernels compute [`attention`] on `device` for sequences of `tokens` tokens and
/// heads of `width` columns, in bfloat16, compiling them if necessary. The answer does not change
/// during the lifetime of the process.
///
/// # Errors
/// Returns the reason if they do not: no CUDA, a GPU without bfloat16 or with too little shared
/// memory, heads that do not have 64 columns, more than 272 tokens, no NVRTC, or
/// `SIMDINO_FUSED_ATTENTION=0` in the environment.
pub fn attention_supported(device: Device, tokens: i64, width: i64) -> Result<()> {
    match ffi::cuda_index(ATTENTION, device)? {
        index if index < 0 => Err(Error::Device { what: ATTENTION, device }),
        // SAFETY: takes numbers.
        index => unsafe {
            ffi::check(ATTENTION, ffi::simdino_fused_attention_why_not(index, tokens, width))
        },
    }
}

/// Computes multi-head self-attention from a projection `[B, T, 3 D]` that holds queries, keys, and
/// values. Returns `[B, T, D]` in the type of `qkv`. Scores are scaled by `(D / H)^-0.5`, and the
/// softmax is in fp32, or in fp64 if `qkv` is.
///
/// If there is a `bias` `[3 D]`, it must already have been added to `qkv`, detached: its gradient
/// is computed here.
///
/// If [`attention_supported`] returns an error, libtorch's operators compute it, which store all
/// attention probabilities.
///
/// # Errors
/// Returns an error if a shape does not match, or if libtorch or the driver fails.
pub fn attention(qkv: &Tensor, bias: Option<&Tensor>, heads: i64) -> Result<Tensor> {
    let mut out = ptr::null_mut();
    let bias = optional(bias);
    // SAFETY: the tensors are alive for the call, and `out` has room for the one pointer written.
    unsafe {
        let message = ffi::simdino_fused_attention(pointer(qkv), bias, heads, &mut out);
        ffi::check(ATTENTION, message)?;
        // Without an error, it is a new tensor, and we become its only owner.
        Ok(Tensor::from_ptr(out))
    }
}

const LINEAR: &str = "linear";

/// Checks whether [`linear`] chooses the cuBLASLt kernel itself for `tokens` rows from `inputs` to
/// `outputs` columns on `device`, in bfloat16. The answer does not change during the lifetime of
/// the process.
///
/// # Errors
/// Returns the reason if it does not: no CUDA, a GPU other than Hopper, columns that are not a
/// multiple of 8, too few rows or columns, so many `inputs` that libtorch's kernels are as fast, or
/// `SIMDINO_FUSED_LINEAR=0` in the environment.
pub fn linear_supported(device: Device, tokens: i64, outputs: i64, inputs: i64) -> Result<()> {
    match ffi::cuda_index(LINEAR, device)? {
        index if index < 0 => Err(Error::Device { what: LINEAR, device }),
        // SAFETY: takes numbers.
        index => unsafe {
            let why_not = ffi::simdino_fused_linear_why_not(index, tokens, outputs, inputs);
            ffi::check(LINEAR, why_not)
        },
    }
}

/// Computes `x * weight^T + bias` for `x` `[.., K]`, `weight` `[N, K]`, and `bias` `[N]`. Returns
/// `[.., N]`.
///
/// Types are those of libtorch's linear layer, including under autocast, which casts each parameter
/// once per region. For `x` in bfloat16 on a GPU, products that [`linear_supported`] accepts, and
/// gradients of `x` with sizes that it would accept, use cuBLASLt kernels that are faster than the
/// ones libtorch would get. The choice depends only on the sizes, the alignment of the operands, the
/// GPU, and the version of cuBLASLt.
///
/// # Errors
/// Returns an error if shapes or types do not match, or if libtorch or cuBLASLt fails.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let mut out = ptr::null_mut();
    let bias = optional(bias);
    // SAFETY: the tensors are alive for the call, and `out` has room for the one pointer written.
    unsafe {
        let message = ffi::simdino_fused_linear(pointer(x), pointer(weight), bias, &mut out);
        ffi::check(LINEAR, message)?;
        // Without an error, it is a new tensor, and we become its only owner.
        Ok(Tensor::from_ptr(out))
    }
}

const ADD_NORM: &str = "add_norm";

/// Returns the normalized tokens, and the sum if there is a branch.
fn call_add_norm(
    x: &Tensor,
    branch: Option<&Branch>,
    norm: Norm<'_>,
    kind: Kind,
    subset: Option<&Subset>,
) -> Result<(Tensor, Option<Tensor>)> {
    if let Some(Branch { output, subset: Some(subset), .. }) = branch
        && output.size().first() != Some(&subset.count)
    {
        // The kernels read the branch at the indices in `places`, without a bounds check.
        let (expected, got) = (subset.count, output.size());
        let message = format!("the branch must hold {expected} images (got {got:?})");
        return Err(Error::Torch { what: ADD_NORM, message });
    }
    let places = |subset: Option<&Subset>| optional(subset.map(|subset| &subset.places));
    let arguments = ffi::AddNorm {
        x: pointer(x),
        output: optional(branch.map(|b| &b.output)),
        bias: optional(branch.and_then(|b| b.bias.as_ref())),
        gamma: optional(branch.and_then(|b| b.gamma.as_ref())),
        factor: optional(branch.and_then(|b| b.factor.as_ref())),
        places: places(branch.and_then(|b| b.subset.as_ref())),
        weight: pointer(norm.weight),
        shift: pointer(norm.shift),
        selected_places: places(subset),
        eps: norm.eps,
        selected: subset.map_or(-1, |subset| subset.count),
        kind: number_of(kind)?,
    };
    let mut out = [ptr::null_mut(); 2];
    // SAFETY: all tensors are alive for the call, and `out` has room for two pointers.
    unsafe {
        ffi::check(ADD_NORM, ffi::simdino_fused_add_norm(&arguments, out.as_mut_ptr()))?;
        // Without an error, each that is not null is a new tensor, and we become its only owner.
        let [normed, sum] = out;
        Ok((Tensor::from_ptr(normed), (!sum.is_null()).then(|| Tensor::from_ptr(sum))))
    }
}

/// Returns the value of `c10::ScalarType`.
fn number_of(kind: Kind) -> Result<c_int> {
    match kind {
        Kind::Half => Ok(5),
        Kind::Float => Ok(6),
        Kind::Double => Ok(7),
        Kind::BFloat16 => Ok(15),
        other => Err(Error::Torch {
            what: ADD_NORM,
            message: format!("tokens must be of a floating point type (got {other:?})"),
        }),
    }
}

fn optional(tensor: Option<&Tensor>) -> *mut C_tensor {
    tensor.map_or(ptr::null_mut(), pointer)
}
