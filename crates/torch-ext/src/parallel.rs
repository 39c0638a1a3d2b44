//! Work in libtorch's threads.

use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::{Mutex, PoisonError};

use crate::{Result, ffi};

/// Work, and the first panic in it.
struct Job<F> {
    work: F,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Calls `work(i)` for each `i` below `count` in libtorch's threads, of which there are as many as
/// [`tch::get_num_threads`] says. Each gets a contiguous part.
///
/// Between operations of libtorch, its threads wait actively for a while, so other threads, such as
/// those of a pool of their own, would compete with them for the same processors.
///
/// # Errors
/// Returns an error if libtorch cannot begin.
///
/// # Panics
/// Panics if `work` does.
pub fn in_parallel<F: Fn(usize) + Sync>(count: usize, work: F) -> Result<()> {
    let job = Job { work, panic: Mutex::new(None) };
    // SAFETY: `call::<F>` takes exactly this pointer. `job` outlives the call, which returns when
    // all threads are done, and `F` may be called by several threads.
    let message = unsafe {
        ffi::simdino_in_parallel(count as i64, call::<F>, ptr::from_ref(&job).cast::<c_void>())
    };
    if let Some(panic) = job.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
        resume_unwind(panic);
    }
    // SAFETY: the message comes from the shim.
    unsafe { ffi::check("in_parallel", message) }
}

/// Calls the work of a job. A panic must not unwind into C++, so it is kept.
///
/// # Safety
/// `job` must point to a `Job<F>`.
unsafe extern "C" fn call<F: Fn(usize) + Sync>(job: *const c_void, i: i64) {
    // SAFETY: see above; only shared references to the job exist while threads work on it.
    let job = unsafe { &*job.cast::<Job<F>>() };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (job.work)(i as usize))) {
        job.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn each_piece_is_done_once() {
        for count in [0, 1, 7, 1000] {
            let done: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
            in_parallel(count, |i| {
                done[i].fetch_add(i + 1, Ordering::Relaxed);
            })
            .unwrap();
            let done: Vec<usize> = done.into_iter().map(AtomicUsize::into_inner).collect();
            assert_eq!(done, (1..=count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        let caught = catch_unwind(|| in_parallel(20, |i| assert_ne!(i, 13, "unlucky")));
        let message = base::panic_message(&*caught.unwrap_err()).unwrap_or_default().to_owned();
        assert!(message.contains("unlucky"), "{message}");
        in_parallel(3, |_| ()).unwrap();
    }
}
