//! All that reads bytes which somebody else wrote, as functions from bytes to "accepted" or "refused".
//!
//! A target panics on a finding and on nothing else. Three things run them:
//!
//! - `cargo test`: over their seeds and a few thousand damaged copies, the same ones each time.
//! - `cargo +nightly fuzz run pth fuzz/corpus/pth`: steered by coverage, after
//!   `cargo run -p simdino-fuzz --bin corpus` has written the seeds there.
//! - `cargo run -p simdino-fuzz --bin pth -- FILE ...`: a finding again, with any compiler.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a finding is a panic; the rest is preparation"
)]

pub mod damage;
mod differential;
mod seeds;
pub mod targets;
#[cfg(test)]
mod tests;

/// A reader under attack.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, which is that of its program.
    pub name: &'static str,
    /// Reads; whether the bytes were accepted.
    pub run: fn(&[u8]) -> bool,
    /// Whole files to start from. Each is accepted.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 9] = [
    Target { name: "image", run: targets::image, seeds: seeds::image },
    Target { name: "channels", run: targets::channels, seeds: seeds::channels },
    Target { name: "jpeg", run: targets::jpeg, seeds: seeds::jpeg },
    Target { name: "list", run: targets::list, seeds: seeds::list },
    Target { name: "shard", run: targets::shard, seeds: seeds::shard },
    Target { name: "index", run: targets::index, seeds: seeds::index },
    Target { name: "parquet", run: targets::parquet, seeds: seeds::parquet },
    Target { name: "pth", run: targets::pth, seeds: seeds::pth },
    Target { name: "safetensors", run: targets::safetensors, seeds: seeds::safetensors },
];

/// The program of a target: for libFuzzer under cargo-fuzz, else one that runs once for each file.
#[macro_export]
macro_rules! target {
    ($name:ident) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
            $crate::targets::$name(bytes);
        });

        #[cfg(not(fuzzing))]
        fn main() -> std::io::Result<()> {
            for path in std::env::args().skip(1) {
                let accepted = $crate::targets::$name(&std::fs::read(&path)?);
                println!("{path}: {}", if accepted { "accepted" } else { "refused" });
            }
            Ok(())
        }
    };
}
