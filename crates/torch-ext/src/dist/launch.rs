//! Determines which process of a run this is from the variables that a launcher sets: torchrun,
//! SLURM's srun, Open MPI's mpirun, or none.
//!
//! This module does not read the environment itself; the variables are passed as a map.

use std::collections::HashMap;
use std::time::Duration;

use super::{Rendezvous, slurm};
use crate::{Error, Result};

/// The port if the launcher sets none and provides nothing to derive one from.
const DEFAULT_PORT: u16 = 29_500;
const LOOPBACK: &str = "127.0.0.1";
const TORCHRUN: &str = "start with torchrun --no-python, which sets them all";

/// The program that started the processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launcher {
    /// No launcher: a single process.
    SingleProcess,
    /// torchrun, or any program that sets its variables.
    Torchrun,
    /// `srun` of SLURM.
    Slurm,
    /// `mpirun` of Open MPI.
    OpenMpi,
}

impl std::fmt::Display for Launcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::SingleProcess => "no launcher",
            Self::Torchrun => "torchrun",
            Self::Slurm => "SLURM",
            Self::OpenMpi => "Open MPI",
        })
    }
}

/// The rank of this process, the number of processes, and where they meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The launcher.
    pub launcher: Launcher,
    /// Rank of this process, from 0.
    pub rank: usize,
    /// Number of processes.
    pub size: usize,
    /// Rank of this process on its machine, from 0: the index of its GPU.
    pub local_rank: usize,
    /// Number of processes on this machine, if the launcher states it.
    pub local_size: Option<usize>,
    /// Name or address of the machine where the processes meet.
    pub host: String,
    /// Port on that machine.
    pub port: u16,
    /// Whether the launcher serves the store, as torchrun does; otherwise, process 0 serves it.
    pub store_is_external: bool,
    /// Number of times that the launcher has restarted the processes.
    pub restarts: usize,
    /// Network interface for Gloo, such as `eth0`.
    pub interface: Option<String>,
}

impl Launch {
    /// Describes a single process.
    pub fn alone() -> Self {
        Self {
            launcher: Launcher::SingleProcess,
            rank: 0,
            size: 1,
            local_rank: 0,
            local_size: Some(1),
            host: LOOPBACK.to_owned(),
            port: DEFAULT_PORT,
            store_is_external: false,
            restarts: 0,
            interface: None,
        }
    }

    /// Reads the variables of the first launcher that has set any: torchrun, then Open MPI, then
    /// SLURM, because the latter two may start torchrun. `MASTER_ADDR` and `MASTER_PORT` determine
    /// where the processes meet, whatever the launcher.
    ///
    /// Under SLURM without them, the processes meet at the first machine of the step, at a port
    /// derived from the job and step numbers. `GLOO_SOCKET_IFNAME` sets the network interface.
    ///
    /// # Errors
    /// Returns an error if a variable is missing although others of its launcher are set, is not a
    /// number, or contradicts another.
    pub fn from_variables(variables: &HashMap<String, String>) -> Result<Self> {
        let variables = Variables(variables);
        let has = |name: &str| variables.text(name).is_some();
        let mut launch = if has("RANK") || (has("WORLD_SIZE") && !has("SLURM_PROCID")) {
            torchrun(&variables)?
        } else if has("OMPI_COMM_WORLD_RANK") || has("OMPI_COMM_WORLD_SIZE") {
            open_mpi(&variables)?
        } else if has("SLURM_PROCID") {
            slurm(&variables)?
        } else {
            Self::alone()
        };
        launch.interface = variables.text("GLOO_SOCKET_IFNAME").map(str::to_owned);
        Ok(launch)
    }

    /// Returns the rendezvous of this process with the others.
    pub fn rendezvous(&self, timeout: Duration) -> Rendezvous {
        Rendezvous {
            host: self.host.clone(),
            port: self.port,
            rank: self.rank,
            size: self.size,
            timeout,
            store_is_external: self.store_is_external,
            interface: self.interface.clone(),
        }
    }
}

fn torchrun(variables: &Variables) -> Result<Launch> {
    let needs = |name, beside| variables.number_beside(name, beside, TORCHRUN);
    let rank = needs("RANK", "WORLD_SIZE")?;
    let size = needs("WORLD_SIZE", "RANK")?;
    let names = Names { rank: "RANK", size: "WORLD_SIZE", local: "LOCAL_RANK" };
    let several = size > 1;
    let local_rank = match variables.number("LOCAL_RANK")? {
        None if several => return Err(missing("LOCAL_RANK", "RANK", TORCHRUN)),
        given => given.unwrap_or(0),
    };
    let local_size = variables.number("LOCAL_WORLD_SIZE")?;
    names.check(rank, size, local_rank, local_size)?;
    if several && variables.text("MASTER_ADDR").is_none() {
        return Err(missing("MASTER_ADDR", "RANK", TORCHRUN));
    }
    if several && variables.text("MASTER_PORT").is_none() {
        return Err(missing("MASTER_PORT", "RANK", TORCHRUN));
    }
    let (host, port) = meeting_place(variables, LOOPBACK, DEFAULT_PORT)?;
    Ok(Launch {
        launcher: Launcher::Torchrun,
        rank,
        size,
        local_rank,
        local_size,
        host,
        port,
        store_is_external: variables.text("TORCHELASTIC_USE_AGENT_STORE") == Some("True"),
        restarts: variables.number("TORCHELASTIC_RESTART_COUNT")?.unwrap_or(0),
        interface: None,
    })
}

fn open_mpi(variables: &Variables) -> Result<Launch> {
    const ADVICE: &str = "start with mpirun, which sets them all";
    let needs = |name, beside| variables.number_beside(name, beside, ADVICE);
    let names = Names {
        rank: "OMPI_COMM_WORLD_RANK",
        size: "OMPI_COMM_WORLD_SIZE",
        local: "OMPI_COMM_WORLD_LOCAL_RANK",
    };
    let rank = needs(names.rank, names.size)?;
    let size = needs(names.size, names.rank)?;
    let local_rank = needs(names.local, names.rank)?;
    let local_size = variables.number("OMPI_COMM_WORLD_LOCAL_SIZE")?;
    names.check(rank, size, local_rank, local_size)?;
    if variables.text("MASTER_ADDR").is_none() && local_size != Some(size) {
        let advice = "pass the name of process 0's machine: mpirun -x MASTER_ADDR=HOST";
        return Err(missing("MASTER_ADDR", names.rank, advice));
    }
    let (host, port) = meeting_place(variables, LOOPBACK, DEFAULT_PORT)?;
    let launcher = Launcher::OpenMpi;
    Ok(Launch { launcher, rank, size, local_rank, local_size, host, port, ..Launch::alone() })
}

fn slurm(variables: &Variables) -> Result<Launch> {
    const ADVICE: &str = "start with srun, which sets them all";
    let needs = |name| variables.number_beside(name, "SLURM_PROCID", ADVICE);
    let size_name = variables.first_of(&["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"]);
    let names = Names {
        rank: "SLURM_PROCID",
        size: size_name.unwrap_or("SLURM_NTASKS"),
        local: "SLURM_LOCALID",
    };
    let rank = needs(names.rank)?;
    let size = needs(names.size)?;
    let local_rank = needs(names.local)?;
    if let Some(world) = variables.number("WORLD_SIZE")?.filter(|&world| world != size) {
        let expected = format!("{size}, as {}, or unset", names.size);
        return Err(wrong("WORLD_SIZE", &world.to_string(), &expected));
    }
    let local_size = slurm_tasks_here(variables)?;
    names.check(rank, size, local_rank, local_size)?;
    let node = slurm_first_node(variables)?;
    if size > 1 && node.is_none() && variables.text("MASTER_ADDR").is_none() {
        return Err(missing("MASTER_ADDR", "SLURM_PROCID", "set it to process 0's machine"));
    }
    let port = slurm_port(variables)?;
    let (host, port) = meeting_place(variables, node.as_deref().unwrap_or(LOOPBACK), port)?;
    let restarts = variables.number("SLURM_RESTART_COUNT")?.unwrap_or(0);
    let launcher = Launcher::Slurm;
    Ok(Launch {
        launcher,
        rank,
        size,
        local_rank,
        local_size,
        host,
        port,
        restarts,
        ..Launch::alone()
    })
}

/// Returns the machine of process 0: the first one of the step or else of the job, or the one on
/// which srun ran if there are no lists.
fn slurm_first_node(variables: &Variables) -> Result<Option<String>> {
    let lists = ["SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"];
    let Some(name) = variables.first_of(&lists) else {
        return Ok(variables.text("SLURM_LAUNCH_NODE_IPADDR").map(str::to_owned));
    };
    let list = variables.text(name).unwrap_or_default();
    let node = slurm::first_host(list);
    node.map(Some).ok_or_else(|| wrong(name, list, "machines, such as node[01-04]"))
}

/// Returns the number of tasks on this machine, from a list such as `4(x3),2` of counts per
/// machine.
fn slurm_tasks_here(variables: &Variables) -> Result<Option<usize>> {
    let lists = ["SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"];
    let (Some(name), Some(node)) = (variables.first_of(&lists), variables.number("SLURM_NODEID")?)
    else {
        return Ok(None);
    };
    let list = variables.text(name).unwrap_or_default();
    let tasks = slurm::tasks_of_node(list, node);
    tasks.map(Some).ok_or_else(|| wrong(name, list, "counts, such as 4(x3),2"))
}

/// Returns a port that differs between consecutive jobs and steps, below the range that systems
/// assign automatically.
fn slurm_port(variables: &Variables) -> Result<u16> {
    let job = variables.number("SLURM_JOB_ID")?;
    let step = variables.number("SLURM_STEP_ID")?.unwrap_or(0);
    let offset = |job: usize| u16::try_from((job + step) % 10_000).unwrap_or(0);
    Ok(job.map_or(DEFAULT_PORT, |job| 20_000 + offset(job)))
}

fn meeting_place(variables: &Variables, host: &str, port: u16) -> Result<(String, u16)> {
    let host = variables.text("MASTER_ADDR").unwrap_or(host).to_owned();
    let port = match variables.text("MASTER_PORT") {
        None => port,
        Some(text) => match text.parse() {
            Ok(port) if port > 0 => port,
            _ => return Err(wrong("MASTER_PORT", text, "a port from 1 to 65535")),
        },
    };
    Ok((host, port))
}

/// The names that a launcher uses for the same variables.
struct Names {
    rank: &'static str,
    size: &'static str,
    local: &'static str,
}

impl Names {
    fn check(&self, rank: usize, size: usize, local: usize, locals: Option<usize>) -> Result<()> {
        if size == 0 {
            return Err(wrong(self.size, "0", "at least 1"));
        }
        if rank >= size {
            let expected = format!("less than {}, which is {size}", self.size);
            return Err(wrong(self.rank, &rank.to_string(), &expected));
        }
        if let Some(locals) = locals.filter(|&locals| locals > size) {
            let expected = format!("at least {locals}, the number of processes on this machine");
            return Err(wrong(self.size, &size.to_string(), &expected));
        }
        if local > rank {
            let expected = format!("at most {}, which is {rank}", self.rank);
            return Err(wrong(self.local, &local.to_string(), &expected));
        }
        if let Some(locals) = locals.filter(|&locals| local >= locals) {
            let expected = format!("less than the {locals} processes on this machine");
            return Err(wrong(self.local, &local.to_string(), &expected));
        }
        Ok(())
    }
}

struct Variables<'a>(&'a HashMap<String, String>);

impl<'a> Variables<'a> {
    /// Returns the trimmed value of a variable; an empty one counts as unset.
    fn text(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    fn number(&self, name: &'static str) -> Result<Option<usize>> {
        let number = |text: &str| text.parse().map_err(|_| wrong(name, text, "an integer"));
        self.text(name).map(number).transpose()
    }

    fn number_beside(
        &self,
        name: &'static str,
        beside: &'static str,
        advice: &'static str,
    ) -> Result<usize> {
        self.number(name)?.ok_or_else(|| missing(name, beside, advice))
    }

    /// Returns the first of these names that is set.
    fn first_of(&self, names: &[&'static str]) -> Option<&'static str> {
        names.iter().find(|name| self.text(name).is_some()).copied()
    }
}

fn missing(name: &'static str, beside: &'static str, advice: &'static str) -> Error {
    Error::LaunchMissing { name, beside, advice }
}

fn wrong(name: &'static str, got: &str, expected: &str) -> Error {
    Error::LaunchValue { name, got: got.to_owned(), expected: expected.to_owned() }
}
