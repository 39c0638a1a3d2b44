//! Attention in bfloat16 on a CPU, for networks that are only evaluated.

use std::ptr;
use std::sync::OnceLock;

use tch::Tensor;

use crate::ffi::pointer;
use crate::{Error, Result, ffi};

const WHAT: &str = "cpu_attention";

/// Returns whether [`cpu_attention`] runs on this processor and is faster than libtorch's attention:
/// the processor has AVX-512 BF16, and no matrix unit (AMX), which libtorch uses itself.
pub fn has_cpu_attention() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(detect)
}

#[cfg(target_arch = "x86_64")]
fn detect() -> bool {
    use std::arch::is_x86_feature_detected as has;
    use std::arch::x86_64::__cpuid_count;
    /// The bit of AMX BF16 in EDX of leaf 7.
    const AMX_BF16: u32 = 1 << 22;
    let vectors = has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512bf16");
    vectors && __cpuid_count(7, 0).edx & AMX_BF16 == 0
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> bool {
    false
}

/// Computes attention of queries `[B, H, Q, W]` over keys and values `[B, H, T, W]`, all in bfloat16 on the
/// CPU: `[B, Q, H W]`. Scores are scaled by `W^-0.5`. Scores, softmax, and sums are in fp32, and the
/// weights are rounded to bfloat16, as libtorch's attention does. It has no gradient.
///
/// The `W` numbers of a token must lie next to each other; everything else may be a view.
///
/// # Errors
/// Returns an error unless [`has_cpu_attention`], if a type, shape, or layout does not match, or if `W` is odd.
pub fn cpu_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    if !has_cpu_attention() {
        let message = "this processor lacks AVX-512 BF16, or has a matrix unit".to_owned();
        return Err(Error::Torch { what: WHAT, message });
    }
    let mut out = ptr::null_mut();
    // SAFETY: the tensors are alive for the call, `out` has room for the one pointer written, and the
    // processor has the instructions.
    unsafe {
        let message = ffi::simdino_cpu_attention(pointer(q), pointer(k), pointer(v), &mut out);
        ffi::check(WHAT, message)?;
        // Without an error, it is a new tensor, and we become its only owner.
        Ok(Tensor::from_ptr(out))
    }
}
