//! Helpers for tests of kernels: inputs, comparisons, and emulation of kernels on the CPU.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::path::{Path, PathBuf};
use std::process::Command;

use tch::{Cuda, Device, Kind, Tensor};

pub const CPU: Device = Device::Cpu;

/// Returns the GPU to test on; if there is none, prints that the test is skipped.
pub fn gpu() -> Option<Device> {
    let found = Cuda::is_available();
    if !found {
        println!("skipped: this machine has no GPU");
    }
    found.then_some(Device::Cuda(0))
}

/// Returns random values that are exact in bfloat16, so that inputs are the same in all types.
pub fn exact(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, (Kind::Float, CPU)).to_kind(Kind::BFloat16).to_kind(Kind::Double)
}

/// Moves results to the CPU and to fp64.
pub fn in_fp64((name, result): (&'static str, Tensor)) -> (&'static str, Tensor) {
    (name, result.detach().to_device(CPU).to_kind(Kind::Double))
}

/// Checks that the largest error of each result is within the allowed one, relative to the largest
/// value of the exact result, or to `least` if that value is smaller.
pub fn compare(
    got: &[(&str, Tensor)],
    exact: &[(&str, Tensor)],
    least: f64,
    allowed: impl Fn(&str) -> f64,
    what: &str,
) {
    assert_eq!(got.len(), exact.len(), "{what}");
    for ((name, got), (_, exact)) in got.iter().zip(exact) {
        assert_eq!(got.size(), exact.size(), "{what}: {name}");
        let size = exact.abs().max().clamp_min(least);
        let error = ((got - exact).abs().max() / size).double_value(&[]);
        assert!(error <= allowed(name), "{what}: {name} is off by {error}");
    }
}

/// Compiles and runs a C++ program of `tests/kernels`, which runs the source of the kernels on the
/// CPU, thread by thread, and compares it with plain loops.
pub fn emulate(source: &str, define: &str, arguments: &[&str]) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !here.join("cpp").exists() {
        println!("skipped: the sources are not here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("emulated");
    let mut compiler = Command::new(std::env::var_os("CXX").map_or("c++".into(), PathBuf::from));
    compiler.args(["-std=c++17", "-O1"]).arg(format!("-D{define}"));
    compiler.arg("-I").arg(here.join("cpp/fused")).arg(here.join("tests/kernels").join(source));
    let compiled = compiler.arg("-o").arg(&program).output().unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let ran = Command::new(&program).args(arguments).output().unwrap();
    assert!(ran.status.success(), "{define}: {}", String::from_utf8_lossy(&ran.stdout));
}
