//! Describes this machine: versions, devices, and memory.

use std::fmt::Write;

use base::counted;
use serde_json::{Value, json};
use simdino::self_check::{self, Outcome};
use tch::{Cuda, Device};

use super::findings::Findings;
use crate::failure::Result;

/// Describes the machine. If `check` is set, also runs the self-check on each device. Returns the
/// findings and whether all checks passed.
///
/// # Errors
/// Returns an error if the self-check cannot run.
pub fn inspect(check: bool) -> Result<(Findings, bool)> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = tch::get_num_threads();
    let (version, libtorch) = (env!("CARGO_PKG_VERSION"), torch_ext::libtorch_version());
    let cuda = torch_ext::cuda_version();
    let nccl = torch_ext::has_nccl();
    let mut text = format!(
        "simdino       {version}\nlibtorch      {libtorch}\nCUDA          {}\n\
         NCCL          {}\n\
         cores         {cores}, with {} for tensor operations\n",
        cuda.as_deref().unwrap_or("not in this libtorch"),
        if nccl { "in this build" } else { "not in this build: no training on several GPUs" },
        counted(threads, "thread", "threads"),
    );
    let devices = devices();
    let mut described = Vec::new();
    for &device in &devices {
        let entry = describe(device);
        let _ = writeln!(text, "{:<14}{}", name_of(device), sentence(&entry));
        described.push(entry);
    }
    let mut json = json!({
        "simdino": version,
        "libtorch": libtorch,
        "cuda": cuda,
        "nccl": nccl,
        "cores": cores,
        "threads": threads,
        "devices": described,
    });
    let mut passed = true;
    if check {
        let mut outcomes = Vec::new();
        for &device in &devices {
            for outcome in self_check::run(device)? {
                passed &= outcome.passed();
                let _ = writeln!(text, "{:<14}{outcome}", name_of(device));
                outcomes.push(as_json(device, &outcome));
            }
        }
        json["self_check"] = outcomes.into();
        json["passed"] = passed.into();
    }
    Ok((Findings { text, json }, passed))
}

/// Returns the CPU and every GPU that libtorch sees.
fn devices() -> Vec<Device> {
    let gpus = usize::try_from(Cuda::device_count()).unwrap_or(0);
    std::iter::once(Device::Cpu).chain((0..gpus).map(Device::Cuda)).collect()
}

fn name_of(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".into(),
    }
}

fn describe(device: Device) -> Value {
    let memory = torch_ext::device_memory(device).ok();
    let gb = |bytes: u64| (bytes as f64 / 1e8).round() / 10.0;
    // 768 is one of the published widths. Whether the kernels compile for a GPU does not depend on
    // it.
    let fused = device.is_cuda().then(|| torch_ext::fused::supported(device, 768));
    json!({
        "device": name_of(device),
        "name": torch_ext::device_name(device),
        "total_gb": memory.map(|m| gb(m.total_bytes)),
        "free_gb": memory.map(|m| gb(m.free_bytes)),
        "fused_kernels": fused.as_ref().map(std::result::Result::is_ok),
        "without_fused_kernels": fused.and_then(std::result::Result::err).map(|e| e.to_string()),
    })
}

fn sentence(entry: &Value) -> String {
    let memory = match (entry["free_gb"].as_f64(), entry["total_gb"].as_f64()) {
        (Some(free), Some(total)) => format!("{free} of {total} GB free"),
        _ => "memory unknown".into(),
    };
    let fused = match (entry["fused_kernels"].as_bool(), entry["without_fused_kernels"].as_str()) {
        (Some(true), _) => ", with fused kernels for bf16".to_owned(),
        (Some(false), Some(why)) => format!(", without fused kernels for bf16: {why}"),
        _ => String::new(),
    };
    format!("{}, {memory}{fused}", entry["name"].as_str().unwrap_or_default())
}

fn as_json(device: Device, outcome: &Outcome) -> Value {
    json!({
        "device": name_of(device),
        "check": outcome.what,
        "error": outcome.error,
        "tolerance": outcome.tolerance,
        "passed": outcome.passed(),
    })
}
