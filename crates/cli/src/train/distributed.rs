//! The processes of a run: their rendezvous, their devices, and how they share the batch.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use base::counted;
use tch::Device;
use torch_ext::{Launch, Launcher, ProcessGroup, host_name};
use trainer::processes::Processes;

use crate::config::RunConfig;
use crate::console::note;
use crate::failure::{Failure, Result};
use simdino::{assemble, device, numerics};

/// Time after which missing processes suggest a mistake, so that the user gets advice.
const PATIENCE: Duration = Duration::from_secs(10);

/// This process and its connection to the others of the run.
pub struct DistributedContext {
    /// Rank, number of processes, and address, as the launcher states them.
    pub launch: Launch,
    /// Device that this process computes on.
    pub device: Device,
    /// All processes of the run, connected.
    pub processes: Processes,
}

/// Reads the launcher's environment variables, and checks that its processes can share the batch.
///
/// # Errors
/// Returns an error if the variables contradict each other or the batch cannot be shared.
pub fn launch(config: &RunConfig) -> Result<Launch> {
    let launch = Launch::from_variables(&std::env::vars().collect())?;
    sharing(config, launch.size)?;
    Ok(launch)
}

/// Checks that this number of processes can share the batch.
///
/// # Errors
/// Returns all settings that do not fit the number of processes.
pub fn sharing(config: &RunConfig, processes: usize) -> Result<()> {
    let problems = config.problems_of_sharing(processes);
    if problems.is_empty() { Ok(()) } else { Err(Failure::problems(problems)) }
}

impl DistributedContext {
    /// Reads the launcher's environment variables, selects a device, and joins the other processes.
    ///
    /// # Errors
    /// Returns an error if the variables contradict each other, the batch cannot be shared, the
    /// device does not exist, or another process does not join in time.
    pub fn init(config: &RunConfig) -> Result<Self> {
        Self::join(config, launch(config)?, config.run.timeout_s)
    }

    /// Selects a device and joins the other processes of a launcher, waiting for them for at most
    /// `timeout_s` seconds.
    ///
    /// # Errors
    /// Returns an error if the device does not exist or another process does not join in time.
    pub fn join(config: &RunConfig, launch: Launch, timeout_s: f64) -> Result<Self> {
        let device = device::of_process(config.run.device, &launch)?;
        numerics::apply(config, device)?;
        if launch.size == 1 {
            return Ok(Self { launch, device, processes: Processes::Single });
        }
        let timeout = Duration::from_secs_f64(timeout_s);
        let waiting = (launch.rank == 0).then(|| Waiting::begin(&launch));
        let mut group = ProcessGroup::join(launch.rendezvous(timeout))?;
        drop(waiting);
        if let Device::Cuda(index) = device {
            group = group.with_cuda(index)?;
        }
        Ok(Self { launch, device, processes: Processes::Group(group) })
    }

    /// Returns whether this is the first process (rank 0), which writes the files of the run.
    pub fn is_first(&self) -> bool {
        self.launch.rank == 0
    }

    /// Returns the number of threads that prepare images in this process.
    pub fn workers(&self, configured: Option<usize>) -> usize {
        assemble::workers(configured, self.launch.local_size.unwrap_or(1))
    }

    /// Returns a line for each process with its host and device; none for a single process.
    ///
    /// # Errors
    /// Returns an error if a process does not respond.
    pub fn describe_ranks(&self) -> Result<Vec<String>> {
        if self.launch.size == 1 {
            return Ok(Vec::new());
        }
        let own = format!("{}, {}", host_name(), torch_ext::device_name(self.device));
        let all = self.processes.collective().all_gather_text(&own)?;
        let of = all.len();
        let line = |(rank, place): (usize, &String)| format!("process {rank} of {of}: {place}");
        Ok(all.iter().enumerate().map(line).collect())
    }

    /// Tells the other processes why this one exits.
    pub fn leave(&self, failure: &Failure) {
        if let Processes::Group(group) = &self.processes {
            group.announce_failure(failure.lines().first().map_or("unknown error", String::as_str));
        }
    }
}

/// Prints that the first process waits for the others, and advice if that takes long. Dropped when
/// all processes have joined.
struct Waiting {
    _over: Sender<()>,
}

impl Waiting {
    fn begin(launch: &Launch) -> Self {
        let others = launch.size - 1;
        let others = counted(others, "other process", "other processes");
        note(&format!("waiting for {others} at {}:{}", launch.host, launch.port));
        let (over, ended) = mpsc::channel();
        let advice = advice(launch.launcher, launch.size);
        thread::spawn(move || {
            if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                note(&advice);
            }
        });
        Self { _over: over }
    }
}

/// Returns the likely reason why other processes are missing.
fn advice(launcher: Launcher, size: usize) -> String {
    match launcher {
        Launcher::Slurm => format!(
            "still waiting: SLURM's variables say that this is one of {size} processes; start all \
             of them with srun, or unset SLURM_PROCID to train in this process alone"
        ),
        Launcher::OpenMpi => format!(
            "still waiting: Open MPI's variables say that this is one of {size} processes; check \
             that mpirun starts all of them, on machines that can reach this address"
        ),
        Launcher::Torchrun | Launcher::SingleProcess => format!(
            "still waiting: WORLD_SIZE says that there are {size} processes; check that torchrun \
             runs on every machine, with the same address, or unset RANK and WORLD_SIZE to train \
             in this process alone"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likely_reason_of_a_wait_is_named_by_launcher() {
        assert!(
            advice(Launcher::Slurm, 4)
                .contains("start all of them with srun, or unset SLURM_PROCID")
        );
        assert!(advice(Launcher::Torchrun, 2).contains("torchrun"));
        assert!(advice(Launcher::OpenMpi, 2).contains("mpirun"));
    }
}
