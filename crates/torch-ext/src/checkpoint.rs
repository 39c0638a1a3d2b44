//! Activation checkpointing, which trades time for memory.

use std::ffi::{CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use tch::Tensor;
use torch_sys::C_tensor;

use crate::{Result, ffi, rng_state, set_rng_state};

const WHAT: &str = "checkpoint";

/// Computes `body(x)` such that autograd stores only `x`. Intermediate results are recomputed in
/// the backward pass, with the same autocast and the same state of the generator of `x`'s device.
/// Gradients are therefore bitwise equal if `body` uses each parameter once; those of a parameter
/// that it uses more often may be summed in a different order. If no gradients are needed, this is
/// the same as `body(x)`.
///
/// `params` must list all tensors that `body` uses and that need gradients; modifying one of them
/// between the passes makes the backward pass fail. On a GPU, `body` runs on a libtorch thread in
/// the backward pass, hence `Send + Sync`.
///
/// # Errors
/// Returns an error if libtorch fails or `body` panics. If that happens in the backward pass, tch's
/// `backward` panics and `f_backward` returns an error.
pub fn checkpoint(
    x: &Tensor,
    params: &[Tensor],
    body: impl Fn(&Tensor) -> Tensor + Send + Sync + 'static,
) -> Result<Tensor> {
    let data = Box::new(Data { body: Box::new(body), generator: Mutex::new(None) });
    let body = ffi::Body { data: Box::into_raw(data).cast(), call, drop: free };
    let params = ffi::pointers(params);
    let mut out = std::ptr::null_mut();
    // SAFETY: `x` and the tensors behind `params` are alive for the call; the shim takes `data`,
    // a box that `free` frees, in all cases, and `out` has room for the one pointer written.
    unsafe {
        let (list, len) = (params.as_ptr(), params.len());
        let message = ffi::simdino_checkpoint(x.as_ptr().cast_mut(), list, len, &body, &mut out);
        ffi::check(WHAT, message)?;
        // Without an error, it is a new tensor, and we become its only owner.
        Ok(Tensor::from_ptr(out))
    }
}

struct Data {
    body: Box<dyn Fn(&Tensor) -> Tensor + Send + Sync>,
    /// State of the generator before `body` first ran.
    generator: Mutex<Option<Tensor>>,
}

impl Data {
    fn first(&self, x: &Tensor) -> Result<Tensor> {
        let state = rng_state(x.device())?;
        *self.lock() = Some(state);
        Ok((self.body)(x))
    }

    /// Runs `body` with the generator state of the forward pass, and then restores the current one.
    fn again(&self, x: &Tensor) -> Result<Tensor> {
        let now = rng_state(x.device())?;
        if let Some(state) = &*self.lock() {
            set_rng_state(x.device(), state)?;
        }
        let out = catch_unwind(AssertUnwindSafe(|| (self.body)(x)));
        set_rng_state(x.device(), &now)?;
        out.map_or_else(|panic| std::panic::resume_unwind(panic), Ok)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Tensor>> {
        self.generator.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

extern "C" fn call(
    data: *mut c_void,
    x: *mut C_tensor,
    again: c_int,
    out: *mut *mut C_tensor,
) -> ffi::Message {
    // SAFETY: the shim passes back the box that `checkpoint` gave it, which it has not freed, and
    // `Data` is `Sync`.
    let data = unsafe { &*data.cast::<Data>() };
    let run = || {
        // SAFETY: `x` is alive for this call and is cloned, so that dropping ours frees nothing.
        let x = unsafe { Tensor::clone_from_ptr(x) };
        if again == 0 { data.first(&x) } else { data.again(&x) }
    };
    let problem = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(tensor)) => {
            let pointer = tensor.as_ptr().cast_mut();
            std::mem::forget(tensor); // the shim becomes its owner
            // SAFETY: `out` has room for one pointer.
            unsafe { *out = pointer };
            return std::ptr::null();
        }
        Ok(Err(error)) => error.to_string(),
        Err(panic) => base::panic_message(&*panic).unwrap_or("the body panicked").to_owned(),
    };
    keep(problem)
}

extern "C" fn free(data: *mut c_void) {
    // SAFETY: the shim calls this once, with the box that `checkpoint` gave it.
    drop(unsafe { Box::from_raw(data.cast::<Data>()) });
}

/// Stores a message and returns a pointer to it, valid until this thread's next call.
fn keep(message: String) -> *const c_char {
    thread_local! {
        static MESSAGE: std::cell::RefCell<CString> = std::cell::RefCell::default();
    }
    MESSAGE.with_borrow_mut(|kept| {
        *kept = CString::new(message.replace('\0', " ")).unwrap_or_default();
        kept.as_ptr()
    })
}
