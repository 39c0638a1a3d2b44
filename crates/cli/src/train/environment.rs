//! `env.json`: what a run was made with and on.

use std::process::Command;

use serde_json::{Value, json};

use super::team::Team;

/// Versions, device, processes, threads, commit and command line.
pub fn describe(team: &Team, data_fingerprint: &str) -> Value {
    json!({
        "simdino": env!("CARGO_PKG_VERSION"),
        "libtorch": torch_ext::libtorch_version(),
        "cuda": torch_ext::cuda_version(),
        "device": torch_ext::device_name(team.device),
        "processes": team.launch.size,
        "launcher": team.launch.launcher.to_string(),
        "threads": tch::get_num_threads(),
        "cores": std::thread::available_parallelism().map_or(1, |n| n.get()),
        "host": std::fs::read_to_string("/proc/sys/kernel/hostname").map(|s| s.trim().to_owned()).ok(),
        "os": format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
        "git_commit": git_commit(),
        "data_fingerprint": data_fingerprint,
        "command_line": std::env::args().collect::<Vec<_>>(),
    })
}

/// Commit of the working directory, where there is one.
fn git_commit() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "HEAD"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
