//! The element-wise work of a transformer block, in one pass over memory per function, with
//! gradients.
//!
//! On a CUDA device, for float residuals and bfloat16 activations, each function is a custom
//! kernel that is compiled for the GPU on first use; [`supported`] checks whether that is
//! possible. Everywhere else, libtorch's operators compute the same formulas: this is correct for
//! every type and device, and no faster than writing them out.
//!
//! Biases belong to these functions rather than to the matrix products before them, because their
//! gradients are sums of values that the functions write anyway.

use std::ffi::c_int;
use std::ptr;

use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

use crate::{Error, Result, ffi};

/// Checks whether the kernels run on `device` for networks of width `dim`, compiling them if
/// necessary. The answer does not change during the life of the process.
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

/// A residual branch that has not been added yet.
#[derive(Debug)]
pub struct Branch {
    /// Its output without the last bias, `[B, T, D]`.
    pub output: Tensor,
    /// The last bias, `[D]`.
    pub bias: Option<Tensor>,
    /// A factor per channel, `[D]`.
    pub gamma: Option<Tensor>,
    /// A factor per image, `[B]`, in fp32. It gets no gradient.
    pub factor: Option<Tensor>,
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

/// Computes `out = x + factor * gamma * (output + bias)` and its layer norm in type `kind`:
/// `(normed, out)`, both `[B, T, D]`.
///
/// # Errors
/// Returns an error if shapes or types do not match, or if libtorch or the driver fails.
pub fn add_norm(
    x: &Tensor,
    branch: &Branch,
    norm: Norm<'_>,
    kind: Kind,
) -> Result<(Tensor, Tensor)> {
    let (normed, out) = call_add_norm(x, Some(branch), norm, kind)?;
    out.map(|out| (normed, out))
        .ok_or_else(|| Error::Torch { what: ADD_NORM, message: "there is no sum".into() })
}

/// Computes the layer norm of `x` `[B, T, D]` in type `kind`.
///
/// # Errors
/// As [`add_norm`].
pub fn norm(x: &Tensor, norm: Norm<'_>, kind: Kind) -> Result<Tensor> {
    call_add_norm(x, None, norm, kind).map(|(normed, _)| normed)
}

/// Computes `GELU(x + bias)` in its exact form for `x` `[.., C]` within a network of width `dim`;
/// in the type of `x`.
///
/// # Errors
/// As [`add_norm`].
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
    // SAFETY: the tensors are alive for the call, and `out` has room for the three pointers written.
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
/// during the life of the process.
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

/// Computes multi-head self-attention of a projection `[B, T, 3 D]` to queries, keys, and values:
/// `[B, T, D]`, in the type of `qkv`. Scores are scaled by `(D/H)^-0.5`, and softmax is in fp32
/// (fp64 if `qkv` is).
///
/// If there is a `bias` `[3 D]`, it must already have been added to `qkv`, detached: its gradient
/// is computed here.
///
/// Where [`attention_supported`] refuses, operators compute it, which store all probabilities in
/// between.
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

const ADD_NORM: &str = "add_norm";

/// Returns the normalized tokens, and the sum if there is a branch.
fn call_add_norm(
    x: &Tensor,
    branch: Option<&Branch>,
    norm: Norm<'_>,
    kind: Kind,
) -> Result<(Tensor, Option<Tensor>)> {
    let arguments = ffi::AddNorm {
        x: pointer(x),
        output: optional(branch.map(|b| &b.output)),
        bias: optional(branch.and_then(|b| b.bias.as_ref())),
        gamma: optional(branch.and_then(|b| b.gamma.as_ref())),
        factor: optional(branch.and_then(|b| b.factor.as_ref())),
        weight: pointer(norm.weight),
        shift: pointer(norm.shift),
        eps: norm.eps,
        kind: number_of(kind)?,
    };
    let mut out = [ptr::null_mut(); 2];
    // SAFETY: all tensors are alive for the call, and `out` has room for the two pointers written at most.
    unsafe {
        ffi::check(ADD_NORM, ffi::simdino_fused_add_norm(&arguments, out.as_mut_ptr()))?;
        // Without an error, each that is not null is a new tensor, and we become its only owner.
        let [normed, sum] = out;
        Ok((Tensor::from_ptr(normed), (!sum.is_null()).then(|| Tensor::from_ptr(sum))))
    }
}

/// The value of `c10::ScalarType`.
fn number_of(kind: Kind) -> Result<c_int> {
    match kind {
        Kind::Half => Ok(5),
        Kind::Float => Ok(6),
        Kind::Double => Ok(7),
        Kind::BFloat16 => Ok(15),
        other => Err(Error::Torch {
            what: ADD_NORM,
            message: format!("tokens are of a floating point type (got {other:?})"),
        }),
    }
}

fn pointer(tensor: &Tensor) -> *mut C_tensor {
    tensor.as_ptr().cast_mut()
}

fn optional(tensor: Option<&Tensor>) -> *mut C_tensor {
    tensor.map_or(ptr::null_mut(), pointer)
}
