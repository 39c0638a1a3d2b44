//! Each target from its seeds, and from the same few thousand damaged copies of them in every run.
//! `SIMDINO_MUTATIONS=1000000 cargo test -p simdino-fuzz` makes more.

use std::panic::{catch_unwind, resume_unwind};

use rayon::prelude::*;

use crate::{TARGETS, Target};

const DEFAULT_COUNT: u64 = 2_000;
/// Bytes that mean something to one of the formats.
const TELLING: [u8; 24] = [
    0, 1, 4, 0x7f, 0x80, 0xff, b'(', b')', b'.', b'R', b'Q', b'b', b'c', b'e', b'h', b'j', b'q',
    b's', b't', b'u', b'{', b'[', b'P', 0x85,
];

/// splitmix64.
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// One to four changes: bits, bytes, numbers, parts that are repeated, moved, or cut out.
fn mutate(bytes: &mut Vec<u8>, draws: &mut Draws) {
    for _ in 0..=draws.below(4) {
        let at = draws.below(bytes.len());
        match draws.below(8) {
            _ if bytes.is_empty() => return,
            0 => bytes[at] ^= 1 << draws.below(8),
            1 => bytes[at] = TELLING[draws.below(TELLING.len())],
            2 => bytes[at] = draws.next() as u8,
            3 => {
                let number = [0, 1, u64::MAX, 1 << 31, 1 << 62][draws.below(5)].to_le_bytes();
                let width = [2, 4, 8][draws.below(3)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&number[..width]);
            }
            4 => bytes.truncate(at),
            5 => {
                let len = draws.below(64).min(bytes.len() - at);
                let part = bytes[at..at + len].to_vec();
                let to = draws.below(bytes.len());
                bytes.splice(to..to, part);
            }
            6 => {
                let noise: Vec<u8> = (0..=draws.below(8)).map(|_| draws.next() as u8).collect();
                bytes.splice(at..at, noise);
            }
            _ => {
                let len = draws.below(32).min(bytes.len() - at);
                bytes.drain(at..at + len);
            }
        }
    }
}

/// A target that refuses everything, or accepts everything, has seen nothing of its reader.
fn attack(name: &str) {
    let Target { run, seeds, .. } = TARGETS.iter().find(|target| target.name == name).unwrap();
    let seeds = seeds();
    for (number, seed) in seeds.iter().enumerate() {
        assert!(run(seed), "{name}: seed {number} is refused");
    }
    let count = std::env::var("SIMDINO_MUTATIONS").ok().and_then(|count| count.parse().ok());
    let count = count.unwrap_or(DEFAULT_COUNT);
    let accepted = (0..count).into_par_iter().filter(|&number| {
        let mut bytes = seeds[number as usize % seeds.len()].clone();
        mutate(&mut bytes, &mut Draws(number << 32));
        catch_unwind(|| run(&bytes)).unwrap_or_else(|finding| {
            let path = std::env::temp_dir().join(format!("simdino-fuzz-{name}-{number}"));
            std::fs::write(&path, &bytes).unwrap();
            println!("{name}: the input is in {}", path.display());
            resume_unwind(finding)
        })
    });
    let accepted = accepted.count() as u64;
    println!("{name}: {} seeds, {count} damaged, {accepted} of them accepted", seeds.len());
    assert!(0 < accepted && accepted < count, "{name}: {accepted} of {count} were accepted");
}

macro_rules! attacks {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            attack(stringify!($name));
        })*

        #[test]
        fn every_target_is_run_here() {
            assert_eq!(TARGETS.map(|target| target.name), [$(stringify!($name)),*]);
        }
    };
}

attacks!(image channels jpeg list shard index parquet pth safetensors);
