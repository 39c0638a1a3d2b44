//! Helpers for tests with several processes: the test program starts itself again for each of them,
//! to run one of its ignored tests. Tests of other crates use this file, too.

#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use torch_ext::Rendezvous;

const RANK: &str = "SIMDINO_TEST_RANK";
const SIZE: &str = "SIMDINO_TEST_SIZE";
pub const PORT: &str = "SIMDINO_TEST_PORT";

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Returns the command that runs the ignored test `name` as process `rank` of `size`.
pub fn command_of(name: &str, rank: usize, size: usize, port: u16) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .env(RANK, rank.to_string())
        .env(SIZE, size.to_string())
        .env(PORT, port.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Starts the ignored test `name` as process `rank` of `size`.
pub fn start(name: &str, rank: usize, size: usize, port: u16) -> Child {
    command_of(name, rank, size, port).spawn().unwrap()
}

/// Runs the ignored test `name` in `size` processes; all must pass.
pub fn all_pass(name: &str, size: usize) {
    let port = free_port();
    let children: Vec<Child> = (0..size).map(|rank| start(name, rank, size, port)).collect();
    for (rank, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "process {rank}: {text}\n{errors}");
        assert!(text.contains("1 passed"), "process {rank} ran no test: {text}");
    }
}

/// Returns the rendezvous that the environment of a started process describes.
pub fn rendezvous(timeout: Duration) -> Rendezvous {
    let number = |name: &str| std::env::var(name).unwrap().parse::<usize>().unwrap();
    let port = u16::try_from(number(PORT)).unwrap();
    Rendezvous::new("127.0.0.1", port, number(RANK), number(SIZE), timeout)
}
