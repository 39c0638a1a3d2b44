//! Helpers for optional timings on a GPU.

use std::time::Instant;

use tch::{Cuda, Device};

use crate::kernels::gpu;

/// Returns the GPU to time if the environment requests timings.
pub fn gpu_to_time() -> Option<Device> {
    if std::env::var_os("SIMDINO_BENCH").is_none() {
        println!("skipped: set SIMDINO_BENCH=1");
        return None;
    }
    gpu()
}

/// Returns the mean time of a call in milliseconds, over 50 calls after 5 to warm up.
pub fn milliseconds(mut f: impl FnMut()) -> f64 {
    (0..5).for_each(|_| f());
    Cuda::synchronize(0);
    let start = Instant::now();
    (0..50).for_each(|_| f());
    Cuda::synchronize(0);
    start.elapsed().as_secs_f64() * 1e3 / 50.0
}
