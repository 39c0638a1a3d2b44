//! Rendezvous of the processes of a run.
//!
//! A store may outlive the processes that met there: torchrun keeps one across restarts, and counts
//! restarts per machine, so their count does not identify a group. Therefore, process 0 gives each
//! group a unique name and sends it to arriving processes. All keys of the group begin with that
//! name, so keys left over from earlier groups are never read.

use std::fs;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::greeting::{NoStore, free_to_listen, wait_for_store};
use super::store::Store;
use crate::{Error, GroupFailure, Result};

const WHAT: &str = "the rendezvous of all processes";
const ARRIVALS: &str = "simdino/arrivals";
const PAUSE: Duration = Duration::from_millis(10);

/// Where the processes of a run meet, and the rank of this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendezvous {
    /// Name or address of the machine that serves the store.
    pub host: String,
    /// Port of the store on that machine.
    pub port: u16,
    /// Rank of this process, from 0.
    pub rank: usize,
    /// Number of processes.
    pub size: usize,
    /// Longest wait for the others, at the start and in each operation.
    pub timeout: Duration,
    /// Whether the launcher already serves a store there, as torchrun does.
    pub store_is_external: bool,
    /// Network interface for Gloo, such as `eth0`. `None` uses the one that this machine's host
    /// name resolves to.
    pub interface: Option<String>,
}

impl Rendezvous {
    /// Creates a rendezvous at the machine of process 0, which serves the store there.
    pub fn new(host: &str, port: u16, rank: usize, size: usize, timeout: Duration) -> Self {
        let host = host.to_owned();
        Self { host, port, rank, size, timeout, store_is_external: false, interface: None }
    }

    /// Returns whether this process serves the store.
    pub(super) fn serves(&self) -> bool {
        self.rank == 0 && !self.store_is_external
    }

    /// Connects to the store, and opens it first if this process serves it.
    pub(super) fn connect(&self) -> Result<Store> {
        if !self.serves() {
            return self.connect_again();
        }
        free_to_listen(self.port).map_err(|reason| self.no_store(reason))?;
        let store = Store::open(self.port, self.timeout);
        let store = store.map_err(|error| self.failed(WHAT, &error))?;
        // Also checks that the host name, which the other processes use, leads to this store.
        self.wait_for_store()?;
        Ok(store)
    }

    /// Connects to an existing store, possibly a second time for another thread.
    pub(super) fn connect_again(&self) -> Result<Store> {
        self.wait_for_store()?;
        let store = Store::connect(&self.host, self.port, self.timeout);
        store.map_err(|error| self.failed(WHAT, &error))
    }

    fn wait_for_store(&self) -> Result<()> {
        let deadline = Instant::now() + self.timeout;
        wait_for_store(&self.host, self.port, deadline).map_err(|reason| self.no_store(reason))
    }

    fn no_store(&self, NoStore { what, advice }: NoStore) -> Error {
        self.error(WHAT, what, Vec::new(), advice)
    }

    /// Waits until every process is present; returns the key prefix of this group.
    pub(super) fn wait_for_all(&self, store: &Store) -> Result<String> {
        let prefix = if self.rank == 0 { self.call(store) } else { self.arrive(store) };
        prefix.map_err(|error| match error {
            Error::Torch { .. } => self.failed(WHAT, &error),
            other => other,
        })
    }

    /// Runs the part of process 0: responds to arriving processes until all are present.
    fn call(&self, store: &Store) -> Result<String> {
        let deadline = Instant::now() + self.timeout;
        let prefix = format!("simdino/{}/", unique());
        store.set(&format!("{prefix}here/0"), &host_name())?;
        let mut waiting: Vec<i64> = Vec::new();
        let mut seen = 0;
        loop {
            let arrived = store.add(ARRIVALS, 0)?;
            waiting.extend(seen + 1..=arrived);
            seen = arrived;
            let mut unnamed = Vec::new();
            for number in waiting.drain(..) {
                match store.find(&format!("simdino/arrival/{number}"))? {
                    None => unnamed.push(number), // has arrived, and is about to write its name
                    Some(name) => {
                        let answer = format!("{} {prefix}", self.size);
                        store.set(&format!("simdino/answer/{name}"), &answer)?;
                    }
                }
            }
            waiting = unnamed;
            let absent = self.absent(store, &prefix)?;
            if absent.is_empty() {
                store.set(&format!("{prefix}all"), "")?;
                return Ok(prefix);
            }
            if Instant::now() > deadline {
                let who = format!("{} did not join", list(&absent));
                store.set(&format!("{prefix}all"), &who)?;
                return Err(self.refused(&who));
            }
            thread::sleep(PAUSE);
        }
    }

    /// Returns the processes that have not confirmed the group's name.
    fn absent(&self, store: &Store, prefix: &str) -> Result<Vec<usize>> {
        let mut absent = Vec::new();
        for rank in 1..self.size {
            if !store.has(&format!("{prefix}here/{rank}"))? {
                absent.push(rank);
            }
        }
        Ok(absent)
    }

    /// Runs the part of the others: announces this process, and receives the group's name.
    fn arrive(&self, store: &Store) -> Result<String> {
        let name = unique();
        let number = store.add(ARRIVALS, 1)?;
        store.set(&format!("simdino/arrival/{number}"), &name)?;
        let answer = store.get(&format!("simdino/answer/{name}"));
        let answer = answer.map_err(|_| self.refused("process 0 did not join"))?;
        let (size, prefix) = answer.split_once(' ').unwrap_or_default();
        if size != self.size.to_string() {
            let who = format!(
                "process 0 was started with a world size of {size}, this one with {}",
                self.size
            );
            return Err(self.refused(&who));
        }
        if store.add(&format!("{prefix}claims/{}", self.rank), 1)? > 1 {
            return Err(self.refused("another process was started with the same rank"));
        }
        store.set(&format!("{prefix}here/{}", self.rank), &host_name())?;
        let verdict = store.get(&format!("{prefix}all"));
        match verdict.map_err(|_| self.refused("process 0 left before all processes had joined"))? {
            who if who.is_empty() => Ok(prefix.to_owned()),
            who => Err(self.refused(&who)),
        }
    }

    pub(super) fn refused(&self, who: &str) -> Error {
        let advice = "is every process running, with the same address and number of processes?";
        self.error(WHAT, who.to_owned(), Vec::new(), advice)
    }

    /// Adds this process and the address to an error of libtorch.
    pub(super) fn failed(&self, what: &'static str, error: &Error) -> Error {
        let who = "is every process running, and at the same step?".to_owned();
        self.error(what, who, Vec::new(), &error.to_string())
    }

    pub(super) fn error(
        &self,
        what: &'static str,
        who: String,
        gone: Vec<usize>,
        message: &str,
    ) -> Error {
        let address = format!("{}:{}", self.host, self.port);
        // Further lines of libtorch's messages contain advice for its own developers.
        let message = message.lines().next().unwrap_or_default().to_owned();
        let (rank, size) = (self.rank, self.size);
        Error::Group(Box::new(GroupFailure { what, rank, size, address, who, gone, message }))
    }
}

/// Returns the name of this machine.
pub fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "an unnamed machine".to_owned() } else { name.trim().to_owned() }
}

/// Formats ranks as `process 3` or `processes 1, 3`.
pub(super) fn list(ranks: &[usize]) -> String {
    let numbers: Vec<String> = ranks.iter().map(usize::to_string).collect();
    let noun = if ranks.len() == 1 { "process" } else { "processes" };
    format!("{noun} {}", numbers.join(", "))
}

/// Returns a name that no other process has used.
fn unique() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}-{}", host_name(), std::process::id(), since.as_nanos())
}
