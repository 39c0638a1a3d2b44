//! Estimates how long an exchange takes with a simple model, whose parameters are either measured
//! between the processes of a run or assumed.
//!
//! ```text
//! seconds = calls * latency + bytes / bandwidth
//! ```
//!
//! The bandwidth is that of the operation, in bytes of a process's tensor per second. NVIDIA's
//! nccl-tests call it algbw. They also report `busbw = algbw * 2 (n - 1) / n` for a sum over `n`
//! processes, which depends less on `n`, because an element crosses each connection
//! `2 (n - 1) / n` times.

use std::time::Instant;

use tch::{Device, Kind, Tensor};
use torch_ext::{Collective, ProcessGroup};

use crate::error::Result;
use crate::exchanges::{Exchange, Moment};

/// Number of timed calls.
const CALLS: usize = 20;
/// Number of calls before them, which set up connections.
const WARM_UP: usize = 5;
/// Number of elements of a small tensor whose sum is timed, such as a flag.
const FEW: i64 = 1;
/// Number of elements of a large tensor, 16 MiB in fp32, about a bucket of gradients.
const MANY: i64 = 4 << 20;

/// The connection between all processes, as seen by sums over all of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Time of a sum of a few bytes, in seconds.
    pub latency_s: f64,
    /// Bytes of a process's tensor that are summed per second.
    pub bytes_per_s: f64,
}

impl Link {
    /// Returns the time of an exchange, in seconds.
    pub fn seconds(&self, exchange: &Exchange) -> f64 {
        exchange.calls as f64 * self.latency_s + exchange.bytes as f64 / self.bytes_per_s
    }
}

/// Typical performance of a kind of connection. The numbers are assumptions: they are round, and
/// below what the hardware can do, because the tensors of a step are smaller than those of a
/// benchmark.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usual {
    /// Name of the connection.
    pub name: &'static str,
    /// Time of a sum of a few bytes, in seconds.
    pub latency_s: f64,
    /// Bytes per second of each connection, the busbw of nccl-tests.
    pub bus_bytes_per_s: f64,
}

/// Connections between GPUs. In each direction, the hardware carries 450 GB/s with NVLink between
/// the Hopper GPUs of one machine, 32 GB/s with 16 lanes of PCIe 4.0, and 12.5 GB/s over a network
/// of 100 Gbit/s.
pub const OF_GPUS: [Usual; 3] = [
    Usual { name: "NVLink", latency_s: 25e-6, bus_bytes_per_s: 200e9 },
    Usual { name: "PCIe 4.0", latency_s: 40e-6, bus_bytes_per_s: 20e9 },
    Usual { name: "100 Gbit/s Ethernet", latency_s: 60e-6, bus_bytes_per_s: 10e9 },
];
/// Gloo over TCP, for CPU tensors.
pub const OF_CPUS: Usual = Usual { name: "Gloo", latency_s: 150e-6, bus_bytes_per_s: 1e9 };

impl Usual {
    /// Returns the link for sums over this number of processes.
    pub fn link(&self, processes: usize) -> Link {
        let n = processes.max(2) as f64;
        Link {
            latency_s: self.latency_s,
            bytes_per_s: self.bus_bytes_per_s * n / (2.0 * (n - 1.0)),
        }
    }
}

/// Times of the exchanges of a step, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Times {
    /// Time of exchanges that overlap with the backward pass, which hides some or all of it.
    pub beside_s: f64,
    /// Time of exchanges that the step waits for.
    pub waiting_s: f64,
}

/// Returns the total times of exchanges, given the link between the devices and that between the
/// CPUs.
pub fn times(exchanges: &[Exchange], device: &Link, host: &Link) -> Times {
    exchanges.iter().fold(Times::default(), |sum, exchange| match exchange.moment {
        Moment::Beside => Times { beside_s: sum.beside_s + device.seconds(exchange), ..sum },
        Moment::Within => Times { waiting_s: sum.waiting_s + device.seconds(exchange), ..sum },
        Moment::Host => Times { waiting_s: sum.waiting_s + host.seconds(exchange), ..sum },
    })
}

/// Measures the link between the processes for tensors on `device`; the slowest process counts. All
/// processes must call this together.
///
/// # Errors
/// Returns an error if a process does not respond.
pub fn measure(group: &ProcessGroup, device: Device) -> Result<Link> {
    let (few, many) = (seconds(group, device, FEW)?, seconds(group, device, MANY)?);
    let mut slowest = Tensor::from_slice(&[few, many]);
    group.all_reduce_max(&mut slowest)?;
    let [few, many] = [0, 1].map(|i| slowest.double_value(&[i]));
    let bytes = (MANY * 4) as f64;
    // Noise may make the difference of both times tiny or negative.
    Ok(Link { latency_s: few, bytes_per_s: bytes / (many - few).max(1e-3 * many) })
}

/// Returns the mean time in seconds of a sum of a tensor with `numbers` elements in fp32.
fn seconds(group: &ProcessGroup, device: Device, numbers: i64) -> Result<f64> {
    let mut tensor = Tensor::f_zeros([numbers], (Kind::Float, device))?;
    for _ in 0..WARM_UP {
        group.all_reduce_sum(&mut tensor)?;
    }
    let wait = |tensor: &Tensor| tensor.f_double_value(&[0]);
    wait(&tensor)?;
    group.barrier()?;
    let start = Instant::now();
    for _ in 0..CALLS {
        group.all_reduce_sum(&mut tensor)?;
    }
    wait(&tensor)?;
    Ok(start.elapsed().as_secs_f64() / CALLS as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_cost_latency_and_bytes_bandwidth() {
        let link = Link { latency_s: 1e-3, bytes_per_s: 1e6 };
        let of = |calls, bytes, moment| Exchange { what: "x", calls, bytes, moment };
        let all =
            [of(2, 3_000, Moment::Beside), of(1, 500, Moment::Within), of(4, 0, Moment::Host)];
        let host = Link { latency_s: 1e-2, ..link };
        let times = times(&all, &link, &host);
        assert!((times.beside_s - 5e-3).abs() < 1e-12, "{times:?}");
        assert!((times.waiting_s - (1.5e-3 + 4e-2)).abs() < 1e-12, "{times:?}");
    }

    #[test]
    fn an_element_crosses_a_connection_nearly_twice() {
        let usual = Usual { name: "x", latency_s: 0.0, bus_bytes_per_s: 7e9 };
        assert_eq!(usual.link(2).bytes_per_s, 7e9);
        assert_eq!(usual.link(8).bytes_per_s, 4e9);
    }
}
