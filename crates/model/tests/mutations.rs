//! Damaged weight files by the thousand: an error or tensors, never a panic, never much memory.
//!
//! `SIMDINO_MUTATIONS=1000000 cargo test -p simdino-model --test mutations` runs more of them.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use model::weights::{TensorFile, write_safetensors};
use tch::{Device, Kind, Tensor};

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

fn originals() -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pth");
    let names = [
        "kinds.pth",
        "kinds_protocol4.pth",
        "kinds_legacy.pth",
        "training.pth",
        "training_legacy.pth",
    ];
    let mut files: Vec<_> = names.iter().map(|name| fs::read(folder.join(name)).unwrap()).collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    let tensors: Vec<_> = [Kind::Float, Kind::BFloat16, Kind::Int64]
        .into_iter()
        .map(|kind| (format!("{kind:?}"), Tensor::ones([3, 5], (kind, Device::Cpu))))
        .collect();
    write_safetensors(&path, &tensors, &BTreeMap::from([("a".into(), "b".into())])).unwrap();
    files.push(fs::read(&path).unwrap());
    files
}

/// One to eight changes: bytes, numbers, parts that move, are repeated or cut off.
fn mutate(bytes: &mut Vec<u8>, draws: &mut Draws) {
    for _ in 0..=draws.below(8) {
        let at = draws.below(bytes.len());
        match draws.below(7) {
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
            _ => {
                let len = draws.below(32).min(bytes.len() - at);
                bytes.drain(at..at + len);
            }
        }
    }
}

/// Whether it was read whole.
fn read(path: &Path) -> bool {
    let Ok(file) = TensorFile::open(path) else { return false };
    let names: Vec<_> = file.tensors().map(|(name, _)| name.to_owned()).collect();
    names.iter().all(|name| file.read(name).is_ok())
}

/// Most memory that this process had at once, in KiB.
fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

#[test]
fn damaged_files_are_errors() {
    let count = std::env::var("SIMDINO_MUTATIONS").ok().and_then(|n| n.parse().ok());
    let count = count.unwrap_or(DEFAULT_COUNT);
    let originals = originals();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("damaged");
    for original in &originals {
        fs::write(&path, original).unwrap();
        assert!(read(&path));
    }
    let before = peak();
    let (mut draws, mut whole) = (Draws(1), 0);
    for _ in 0..count {
        let mut bytes = originals[draws.below(originals.len())].clone();
        mutate(&mut bytes, &mut draws);
        fs::write(&path, &bytes).unwrap();
        whole += u64::from(read(&path));
    }
    let grown = peak().zip(before).map(|(after, before)| after - before);
    println!("{count} files, {whole} still readable, memory grew by {grown:?} KiB at most");
    assert!(whole < count, "no change did any harm");
    assert!(grown.is_none_or(|kib| kib < 32 << 10), "memory grew by {grown:?} KiB");
}
