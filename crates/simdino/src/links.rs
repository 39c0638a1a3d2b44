//! How long an exchange takes: a simple model, with numbers that are measured among the processes of
//! a run, or assumed.
//!
//! ```text
//! seconds = calls * latency + bytes / bandwidth
//! ```
//!
//! The bandwidth is that of the operation: bytes of a process's tensor per second. NVIDIA's
//! nccl-tests call it algbw, and `busbw = algbw * 2 (n - 1) / n` for a sum over `n` processes, which
//! depends less on `n`, because an element crosses each connection `2 (n - 1) / n` times.

use std::time::Instant;

use tch::{Device, Kind, Tensor};
use torch_ext::{Collective, ProcessGroup};

use crate::error::Result;
use crate::exchanges::{Exchange, Moment};

/// Timed calls, and those before them, which set up connections.
const CALLS: usize = 20;
const WARM_UP: usize = 5;
/// Numbers in the tensors whose sums are timed: a flag, and 16 MiB, about a bucket of gradients.
const FEW: i64 = 1;
const MANY: i64 = 4 << 20;

/// A connection between all processes, as their sums see it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Time of a sum of a few bytes, in seconds.
    pub latency_s: f64,
    /// Bytes of a process's tensor that are added up per second.
    pub bytes_per_s: f64,
}

impl Link {
    /// Returns the time of an exchange, in seconds.
    pub fn seconds(&self, exchange: &Exchange) -> f64 {
        exchange.calls as f64 * self.latency_s + exchange.bytes as f64 / self.bytes_per_s
    }
}

/// What a kind of connection usually reaches. These are assumptions: round numbers below what the
/// hardware can do, since tensors of a step are smaller than those of a benchmark.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usual {
    /// What connects the processes.
    pub name: &'static str,
    /// Time of a sum of a few bytes, in seconds.
    pub latency_s: f64,
    /// Bytes per second of each connection, the busbw of nccl-tests.
    pub bus_bytes_per_s: f64,
}

/// Connections of GPUs: NVLink of one machine with Hopper GPUs, which carries 450 GB/s in each
/// direction, PCIe 4.0 with 16 lanes, 32 GB/s, and a network of 100 Gbit/s, 12.5 GB/s.
pub const OF_GPUS: [Usual; 3] = [
    Usual { name: "NVLink", latency_s: 25e-6, bus_bytes_per_s: 200e9 },
    Usual { name: "PCIe 4.0", latency_s: 40e-6, bus_bytes_per_s: 20e9 },
    Usual { name: "100 Gbit/s Ethernet", latency_s: 60e-6, bus_bytes_per_s: 10e9 },
];
/// Gloo over TCP, for tensors of the CPU.
pub const OF_CPUS: Usual = Usual { name: "Gloo", latency_s: 150e-6, bus_bytes_per_s: 1e9 };

impl Usual {
    /// Returns the connection as sums over this number of processes see it.
    pub fn link(&self, processes: usize) -> Link {
        let n = processes.max(2) as f64;
        Link {
            latency_s: self.latency_s,
            bytes_per_s: self.bus_bytes_per_s * n / (2.0 * (n - 1.0)),
        }
    }
}

/// Time of the exchanges of a step, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Times {
    /// Of what is exchanged while the backward pass computes, which hides some or all of it.
    pub beside_s: f64,
    /// Of what the step waits for.
    pub waiting_s: f64,
}

/// Adds up the times of exchanges over the connection of the devices and that of the CPUs.
pub fn times(exchanges: &[Exchange], device: &Link, host: &Link) -> Times {
    exchanges.iter().fold(Times::default(), |sum, exchange| match exchange.moment {
        Moment::Beside => Times { beside_s: sum.beside_s + device.seconds(exchange), ..sum },
        Moment::Within => Times { waiting_s: sum.waiting_s + device.seconds(exchange), ..sum },
        Moment::Host => Times { waiting_s: sum.waiting_s + host.seconds(exchange), ..sum },
    })
}

/// Measures the connection of the processes for tensors of `device`: the slowest process counts. All
/// processes must call it together.
///
/// # Errors
/// Returns an error if a process does not respond.
pub fn measure(group: &ProcessGroup, device: Device) -> Result<Link> {
    let (few, many) = (seconds(group, device, FEW)?, seconds(group, device, MANY)?);
    let mut slowest = Tensor::from_slice(&[few, many]);
    group.all_reduce_max(&mut slowest)?;
    let [few, many] = [0, 1].map(|i| slowest.double_value(&[i]));
    let bytes = (MANY * 4) as f64;
    // Noise may hide the larger tensor behind the latency.
    Ok(Link { latency_s: few, bytes_per_s: bytes / (many - few).max(1e-3 * many) })
}

/// Time of a sum of `numbers` in fp32.
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
