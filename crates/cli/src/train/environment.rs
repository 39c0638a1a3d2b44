//! The contents of `env.json`: the software and hardware of a run.

use serde_json::{Map, Value, json};

use super::distributed::DistributedContext;
use crate::config::RunConfig;

/// Describes the versions, device, precision, processes, threads, data, commit, and command line.
pub fn describe(
    config: &RunConfig,
    distributed: &DistributedContext,
    data_fingerprint: &str,
) -> Value {
    let mut all = json!({
        "simdino": env!("CARGO_PKG_VERSION"),
        "libtorch": torch_ext::libtorch_version(),
        "cuda": torch_ext::cuda_version(),
        "device": torch_ext::device_name(distributed.device),
        "precision": config.train.precision,
        "deterministic": torch_ext::is_deterministic(),
        "processes": distributed.launch.size,
        "launcher": distributed.launch.launcher.to_string(),
        "threads": tch::get_num_threads(),
        "cores": std::thread::available_parallelism().map_or(1, |n| n.get()),
        "host": std::fs::read_to_string("/proc/sys/kernel/hostname").map(|s| s.trim().to_owned()).ok(),
        "os": format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
        "data_fingerprint": data_fingerprint,
        "command_line": std::env::args().collect::<Vec<_>>(),
    });
    if let Value::Object(all) = &mut all {
        all.append(&mut build());
    }
    all
}

/// Returns the commit that the program was built from and whether its sources had been modified;
/// empty if it was built without git.
fn build() -> Map<String, Value> {
    let mut build = Map::new();
    if let Some(commit) = option_env!("SIMDINO_COMMIT") {
        build.insert("git_commit".into(), commit.into());
        build.insert("git_dirty".into(), option_env!("SIMDINO_DIRTY").is_some().into());
    }
    build
}
