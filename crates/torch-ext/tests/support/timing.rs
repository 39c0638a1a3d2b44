//! Times on a GPU, for those who ask for them.

use std::time::Instant;

use tch::{Cuda, Device};

use crate::kernels::gpu;

/// Returns the GPU whose kernels are to be timed, if the environment asks for it.
pub fn gpu_to_time() -> Option<Device> {
    if std::env::var_os("SIMDINO_BENCH").is_none() {
        println!("skipped: set SIMDINO_BENCH=1");
        return None;
    }
    gpu()
}

/// Milliseconds of a call, of 50 after 5.
pub fn milliseconds(mut f: impl FnMut()) -> f64 {
    (0..5).for_each(|_| f());
    Cuda::synchronize(0);
    let start = Instant::now();
    (0..50).for_each(|_| f());
    Cuda::synchronize(0);
    start.elapsed().as_secs_f64() * 1e3 / 50.0
}
