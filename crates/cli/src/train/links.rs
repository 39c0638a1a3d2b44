//! Describes the exchanges of a run with several processes, for `--dry-run`.

use base::counted;
use simdino::exchanges::{Exchange, Moment};
use simdino::links::{self, Link, OF_CPUS, OF_GPUS, Times, times};
use tch::Device;
use trainer::processes::Processes;

use crate::failure::Result;

/// The connections of the processes that a dry run plans for.
pub struct Links {
    processes: usize,
    /// Candidates for the connection of the devices, each with a description.
    of_devices: Vec<(String, Link)>,
    of_hosts: Link,
}

/// Measures the connections of the present processes. For processes that are only planned, assumes
/// typical connections.
///
/// # Errors
/// Returns an error if a process does not respond.
pub fn links(present: &Processes, device: Device, planned: usize) -> Result<Links> {
    if let Processes::Group(group) = present {
        let of_hosts = links::measure(group, Device::Cpu)?;
        let of_devices = match device {
            Device::Cpu => of_hosts,
            device => links::measure(group, device)?,
        };
        let measured = format!(
            "measured here: {:.3} ms per message, {:.2} GB/s",
            1e3 * of_devices.latency_s,
            of_devices.bytes_per_s / 1e9
        );
        return Ok(Links {
            processes: planned,
            of_devices: vec![(measured, of_devices)],
            of_hosts,
        });
    }
    let usual = if device.is_cuda() { &OF_GPUS[..] } else { std::slice::from_ref(&OF_CPUS) };
    let assumed = usual.iter().map(|usual| {
        let (latency, bus) = (1e3 * usual.latency_s, usual.bus_bytes_per_s / 1e9);
        let name =
            format!("assumed for {}: {latency:.3} ms per message, {bus} GB/s per link", usual.name);
        (name, usual.link(planned))
    });
    Ok(Links { processes: planned, of_devices: assumed.collect(), of_hosts: OF_CPUS.link(planned) })
}

impl Links {
    /// Returns lines on what a step exchanges and how long that takes; none for a single process.
    pub fn describe(&self, exchanges: &[Exchange]) -> Vec<(&'static str, String)> {
        if self.processes < 2 {
            return Vec::new();
        }
        let each = exchanges.iter().map(|exchange| ("exchange", sentence(exchange)));
        let of = |(name, link): &(String, Link)| {
            let Times { beside_s, waiting_s } = times(exchanges, link, &self.of_hosts);
            let (beside, waiting) = (1e3 * beside_s, 1e3 * waiting_s);
            let sentence = format!(
                "{beside:.2} ms during the backward pass and {waiting:.2} ms of waiting per step \
                 with {} processes ({name})",
                self.processes
            );
            ("exchange time", sentence)
        };
        each.chain(self.of_devices.iter().map(of)).collect()
    }
}

fn sentence(Exchange { what, calls, bytes, moment }: &Exchange) -> String {
    let moment = match moment {
        Moment::Beside => ", during the backward pass",
        Moment::Within => "",
        Moment::Host => ", on the CPU",
    };
    format!("{what}, {} in {}{moment}", size(*bytes), counted(*calls, "message", "messages"))
}

/// Formats a number of bytes in the largest decimal unit up to GB that it fills.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_exchanges_nothing_and_several_say_what() {
        let gradients =
            Exchange { what: "gradients", calls: 2, bytes: 3_000_000, moment: Moment::Beside };
        let flag = Exchange { what: "flag", calls: 1, bytes: 4, moment: Moment::Host };
        let said = |processes| {
            let links = links(&Processes::Single, Device::Cpu, processes).unwrap();
            links.describe(&[gradients, flag])
        };
        assert!(said(1).is_empty());
        let said = said(2);
        assert_eq!(said[0].1, "gradients, 3.0 MB in 2 messages, during the backward pass");
        assert_eq!(said[1].1, "flag, 4 B in 1 message, on the CPU");
        // Beside: 2 messages of 0.15 ms plus 3 MB at 1 GB/s. Waiting: a message of 0.15 ms.
        let start =
            "3.30 ms during the backward pass and 0.15 ms of waiting per step with 2 processes";
        assert!(said[2].1.starts_with(start), "{}", said[2].1);
        assert!(said[2].1.contains("assumed for Gloo"), "{}", said[2].1);
    }

    #[test]
    fn gpus_may_be_connected_in_several_ways() {
        let links = links(&Processes::Single, Device::Cuda(0), 8).unwrap();
        assert_eq!(links.describe(&[]).len(), OF_GPUS.len());
    }
}
