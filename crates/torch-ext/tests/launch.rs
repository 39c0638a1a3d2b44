//! Tests the variables of launchers, and the real torchrun.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/processes.rs"]
mod processes;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use processes::free_port;
use tch::{Device, Kind, Tensor};
use torch_ext::{Collective, Launch, Launcher, ProcessGroup};

fn read(text: &str) -> Result<Launch, String> {
    let pairs = text.split_whitespace().map(|pair| pair.split_once('=').unwrap());
    let variables: HashMap<_, _> = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    Launch::from_variables(&variables).map_err(|error| error.to_string())
}

/// Returns rank, size, local rank, host, and port.
fn place(launch: &Launch) -> (usize, usize, usize, &str, u16) {
    (launch.rank, launch.size, launch.local_rank, &launch.host, launch.port)
}

const TORCHRUN: &str = "RANK=5 WORLD_SIZE=8 LOCAL_RANK=1 LOCAL_WORLD_SIZE=4 MASTER_ADDR=a MASTER_PORT=1234 \
     TORCHELASTIC_RESTART_COUNT=2 TORCHELASTIC_USE_AGENT_STORE=True";
const SLURM: &str = "SLURM_PROCID=5 SLURM_NTASKS=8 SLURM_LOCALID=1 SLURM_NODEID=1 SLURM_NODELIST=gpu[07-08] \
     SLURM_TASKS_PER_NODE=4(x2) SLURM_JOB_ID=123456 SLURM_LAUNCH_NODE_IPADDR=10.0.0.1";
const OPEN_MPI: &str = "OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_RANK=2 \
     OMPI_COMM_WORLD_LOCAL_SIZE=4";

#[test]
fn no_variables_mean_one_process() {
    assert_eq!(read("PATH=/bin").unwrap(), Launch::alone());
    // An allocation without srun and an empty variable do not count as a launcher.
    assert_eq!(read("SLURM_NTASKS=8 SLURM_JOB_ID=1 RANK=").unwrap(), Launch::alone());
    assert_eq!(read("RANK=0 WORLD_SIZE=1").unwrap().size, 1);
}

#[test]
fn each_launcher_is_read() {
    let torchrun = read(TORCHRUN).unwrap();
    assert_eq!(place(&torchrun), (5, 8, 1, "a", 1234));
    assert_eq!((torchrun.local_size, torchrun.restarts), (Some(4), 2));
    assert!(torchrun.store_is_external);
    let slurm = read(SLURM).unwrap();
    assert_eq!(place(&slurm), (5, 8, 1, "gpu07", 23_456));
    assert_eq!((slurm.launcher, slurm.local_size), (Launcher::Slurm, Some(4)));
    assert!(!slurm.store_is_external);
    let open_mpi = read(OPEN_MPI).unwrap();
    assert_eq!(place(&open_mpi), (2, 4, 2, "127.0.0.1", 29_500));
    assert_eq!(open_mpi.launcher, Launcher::OpenMpi);
}

#[test]
fn one_launcher_inside_another() {
    for (inner, launcher) in [(TORCHRUN, Launcher::Torchrun), (OPEN_MPI, Launcher::OpenMpi)] {
        assert_eq!(read(&format!("{SLURM} {inner}")).unwrap().launcher, launcher);
    }
    let both = format!("{SLURM} MASTER_ADDR=b MASTER_PORT=77 GLOO_SOCKET_IFNAME=eth1");
    let launch = read(&both).unwrap();
    assert_eq!(place(&launch), (5, 8, 1, "b", 77));
    let rendezvous = launch.rendezvous(Duration::from_secs(9));
    assert_eq!(
        (rendezvous.host.as_str(), rendezvous.port, rendezvous.rank, rendezvous.size),
        ("b", 77, 5, 8)
    );
    assert_eq!(rendezvous.interface.as_deref(), Some("eth1"));
    // A job script may set WORLD_SIZE for other programs.
    assert_eq!(read(&format!("{SLURM} WORLD_SIZE=8")).unwrap(), read(SLURM).unwrap());
    let step = "SLURM_STEP_NUM_TASKS=6 SLURM_STEP_NODELIST=gpu08 SLURM_STEP_TASKS_PER_NODE=3,3";
    let of_step = read(&format!("{SLURM} {step}")).unwrap();
    assert_eq!((of_step.size, of_step.host.as_str(), of_step.local_size), (6, "gpu08", Some(3)));
}

#[test]
fn what_is_missing_or_contradicts_itself_is_named() {
    let without = |text: &str, name: &str| {
        let kept = text.split_whitespace().filter(|pair| !pair.starts_with(&format!("{name}=")));
        kept.collect::<Vec<_>>().join(" ")
    };
    for (base, name, words) in [
        (TORCHRUN, "RANK", "RANK is not set, but WORLD_SIZE is: start with torchrun"),
        (TORCHRUN, "WORLD_SIZE", "WORLD_SIZE is not set, but RANK is"),
        (TORCHRUN, "LOCAL_RANK", "LOCAL_RANK is not set, but RANK is"),
        (TORCHRUN, "MASTER_ADDR", "MASTER_ADDR is not set, but RANK is"),
        (TORCHRUN, "MASTER_PORT", "MASTER_PORT is not set, but RANK is"),
        (SLURM, "SLURM_NTASKS", "SLURM_NTASKS is not set, but SLURM_PROCID is"),
        (SLURM, "SLURM_LOCALID", "SLURM_LOCALID is not set, but SLURM_PROCID is"),
        (OPEN_MPI, "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE is not set"),
        (OPEN_MPI, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_RANK is not set"),
        (OPEN_MPI, "OMPI_COMM_WORLD_LOCAL_SIZE", "MASTER_ADDR is not set"),
    ] {
        let error = read(&without(base, name)).unwrap_err();
        assert!(error.starts_with(words), "{error}");
    }
    for (base, change, words) in [
        (TORCHRUN, "RANK=8", "RANK: expected less than WORLD_SIZE, which is 8 (got \"8\")"),
        (TORCHRUN, "RANK=-1", "RANK: expected an integer (got \"-1\")"),
        (TORCHRUN, "WORLD_SIZE=0", "WORLD_SIZE: expected at least 1"),
        (TORCHRUN, "LOCAL_RANK=4", "LOCAL_RANK: expected less than the 4 processes"),
        (TORCHRUN, "LOCAL_RANK=7", "LOCAL_RANK: expected at most RANK, which is 5"),
        (TORCHRUN, "LOCAL_WORLD_SIZE=9", "WORLD_SIZE: expected at least 9"),
        (TORCHRUN, "MASTER_PORT=70000", "MASTER_PORT: expected a port"),
        (SLURM, "WORLD_SIZE=4", "WORLD_SIZE: expected 8, as SLURM_NTASKS, or unset (got \"4\")"),
        (SLURM, "SLURM_NODELIST=gpu[07", "SLURM_NODELIST: expected machines"),
        (SLURM, "SLURM_TASKS_PER_NODE=4", "SLURM_TASKS_PER_NODE: expected counts"),
    ] {
        let error = read(&format!("{base} {change}")).unwrap_err();
        assert!(error.starts_with(words), "{change}: {error}");
    }
}

/// Returns the installed torchrun; without one, prints that the test is skipped.
fn torchrun() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv/bin/torchrun");
    if path.exists() {
        return Some(path);
    }
    println!("skipped: no {}", path.display());
    None
}

const FOLDER: &str = "SIMDINO_TEST_FOLDER";

/// Starts the ignored test `name` in two processes with torchrun, which restarts both if one fails.
/// Returns the names of the files that they leave.
fn under_torchrun(label: &str, name: &str, options: &[&str]) -> Vec<String> {
    let Some(torchrun) = torchrun() else { return Vec::new() };
    let folder = env::temp_dir().join(format!("simdino-torchrun-{label}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let output = Command::new(torchrun)
        .args(["--no-python", "--nproc-per-node=2", "--max-restarts=1"])
        .args(["--monitor-interval=0.1"])
        .args(options)
        .arg(env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .env(FOLDER, &folder)
        .output()
        .unwrap();
    let mut names: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    fs::remove_dir_all(&folder).unwrap();
    let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let told = words(&output.stdout) + &words(&output.stderr);
    assert!(output.status.success(), "{told}");
    names
}

const LEFT: [&str; 3] = ["0-of-2-restart-1", "1-of-2-restart-0-dies", "1-of-2-restart-1"];

#[test]
fn torchrun_with_a_store_of_its_own_starts_a_group_again() {
    let names = under_torchrun("own", "as_a_worker_of_torchrun", &["--standalone"]);
    assert!(names.is_empty() && torchrun().is_none() || names == LEFT, "{names:?}");
}

#[test]
fn torchrun_at_a_fixed_address_starts_a_group_again() {
    let port = format!("--master-port={}", free_port());
    let options = ["--master-addr=127.0.0.1", &port];
    let names = under_torchrun("fixed", "as_a_worker_of_torchrun", &options);
    assert!(names.is_empty() && torchrun().is_none() || names == LEFT, "{names:?}");
}

#[test]
#[ignore = "started by torchrun"]
fn as_a_worker_of_torchrun() {
    let launch = Launch::from_variables(&env::vars().collect()).unwrap();
    assert_eq!(launch.launcher, Launcher::Torchrun);
    assert_eq!((launch.local_rank, launch.local_size), (launch.rank, Some(2)));
    let group = ProcessGroup::join(launch.rendezvous(Duration::from_secs(60))).unwrap();
    let mut sum = Tensor::ones([3], (Kind::Float, Device::Cpu)) * (launch.rank as f64 + 1.0);
    group.all_reduce_sum(&mut sum).unwrap();
    assert_eq!(sum, Tensor::ones([3], (Kind::Float, Device::Cpu)) * 3.0);
    let folder = PathBuf::from(env::var(FOLDER).unwrap());
    let name = format!("{}-of-{}-restart-{}", launch.rank, launch.size, launch.restarts);
    if launch.restarts == 0 && launch.rank == 1 {
        fs::write(folder.join(format!("{name}-dies")), "").unwrap();
        std::process::exit(9);
    }
    // Without process 1, no process gets past this.
    group.barrier().unwrap();
    fs::write(folder.join(name), "").unwrap();
}
