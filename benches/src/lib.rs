//! This library is empty; the Criterion benchmarks of simdino are in `benches/`.
#![forbid(unsafe_code)]
