//! Damaged input: whatever the bytes, an answer comes back, soon, and without a panic.
//!
//! A seeded run of a few thousand mutated files a target belongs to every test run. More:
//! `SIMDINO_MUTATIONS=1000000 cargo test -p simdino-data --test it mutation -- --nocapture`
//!
//! This stands in for cargo-fuzz, which needs a nightly compiler: the inputs are drawn, not steered by
//! what code they reach, but they start from whole files of every kind.

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use augment::rng::{Purpose, Rng};
use data::decode::PixelFormat;
use data::{DataConfig, SourceKind};
use rayon::prelude::*;

/// Longest time for one input.
const PATIENCE: Duration = Duration::from_secs(1);

fn runs() -> u64 {
    std::env::var("SIMDINO_MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(2000)
}

/// One to four changes: bits, extreme values, cuts, repeats, insertions.
fn mutate(seed: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..1 + rng.index(4) {
        let place = rng.index(bytes.len().max(1));
        let end = (place + 1 + rng.index(32)).min(bytes.len());
        match rng.index(7) {
            0 => bytes.truncate(place),
            1 => {
                let piece = bytes[place.min(end)..end].to_vec();
                bytes.splice(place..place, piece);
            }
            2 => {
                let noise: Vec<u8> = (0..1 + rng.index(8)).map(|_| rng.bits() as u8).collect();
                bytes.splice(place..place, noise);
            }
            3 => drop(bytes.drain(place.min(end)..end)),
            4 if !bytes.is_empty() => bytes[place] ^= 1 << rng.index(8),
            5 if !bytes.is_empty() => bytes[place] = [0, 1, 0x7F, 0x80, 0xFF][rng.index(5)],
            _ if !bytes.is_empty() => bytes[place] = rng.bits() as u8,
            _ => {}
        }
    }
    bytes
}

/// Gives mutated `seeds` to `target` and sees to time and panics.
fn attack(name: &str, seeds: &[Vec<u8>], target: impl Fn(&[u8]) -> bool + Sync) {
    let slowest = Mutex::new(Duration::ZERO);
    let accepted = (0..runs())
        .into_par_iter()
        .filter(|&run| {
            let mut rng = Rng::new(20_26, 0, run, Purpose::Choice(0));
            let bytes = mutate(&seeds[run as usize % seeds.len()], &mut rng);
            let start = Instant::now();
            let accepted = target(&bytes);
            let time = start.elapsed();
            assert!(time < PATIENCE, "{name}: input {run} took {time:?}");
            let mut slowest = slowest.lock().unwrap();
            *slowest = time.max(*slowest);
            accepted
        })
        .count();
    let peak = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = peak.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("VmHWM unknown");
    let slowest = slowest.into_inner().unwrap();
    println!("{name}: {} inputs, {accepted} accepted, slowest {slowest:?}, {peak}", runs());
}

fn images(extension: &str) -> Vec<Vec<u8>> {
    files("images", extension)
}

/// The decoder's fixtures of one kind.
fn files(folder: &str, extension: &str) -> Vec<Vec<u8>> {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../decode/tests/fixtures").join(folder);
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|path| {
            let name = path.to_string_lossy();
            name.ends_with(extension) && !name.ends_with(".expected.png")
        })
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// A decoder's own panic is caught and reported as a broken image; it must not happen all the same.
fn decodes(bytes: &[u8]) -> bool {
    match decode::decode(bytes) {
        Ok(_) => true,
        Err(error @ decode::Error::DecoderPanic { .. }) => panic!("{error}"),
        Err(_) => false,
    }
}

#[test]
fn jpeg_files() {
    attack("jpeg", &images(".jpg"), decodes);
}

#[test]
fn png_files() {
    attack("png", &images(".png"), decodes);
}

#[test]
fn other_image_files() {
    let seeds = [".webp", ".tiff", ".bmp"].iter().flat_map(|kind| images(kind)).collect::<Vec<_>>();
    attack("webp, tiff, bmp", &seeds, decodes);
}

/// As many channels as the file has, and a range of values.
#[test]
fn tiff_files_of_many_channels() {
    let seeds = files("bands", ".tif");
    attack("tiff of many channels", &seeds, |bytes| {
        let mut any = false;
        for channels in [1, 4, 5, 13] {
            let pixels = PixelFormat { channels, value_range: vec![[0.0, 3000.0]] };
            match decode::decode_as(bytes, &pixels) {
                Ok(_) => any = true,
                Err(decode::Error::Channels { .. }) => {}
                Err(error @ decode::Error::DecoderPanic { .. }) => panic!("{error}"),
                Err(_) => break,
            }
        }
        any
    });
}

fn opens(bytes: &[u8], name: &str, source: SourceKind) -> bool {
    thread_local! {
        static FOLDER: tempfile::TempDir = tempfile::tempdir().unwrap();
    }
    FOLDER.with(|folder| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::write(folder.path().join("a.jpg"), b"x").unwrap();
        let path = path.to_string_lossy().into_owned();
        let Ok(dataset) = data::open(&DataConfig { path, source, ..DataConfig::default() }) else {
            return false;
        };
        for index in 0..dataset.len().min(4) {
            let _ = (dataset.image(index), dataset.name(index), dataset.label(index));
        }
        true
    })
}

fn plain_shard() -> Vec<u8> {
    let mut plain = tar::Builder::new(Vec::new());
    for (name, text) in [
        ("0.jpg", &b"no picture"[..]),
        ("0.cls", b"3"),
        ("1.png", b""),
        ("1.json", br#"{"label": "cat"}"#),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_cksum();
        plain.append_data(&mut header, name, text).unwrap();
    }
    plain.into_inner().unwrap()
}

#[test]
fn tar_shards() {
    let plain = plain_shard();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &plain).unwrap();
    let seeds = [plain, packed.finish().unwrap()];
    attack("tar", &seeds, |bytes| opens(bytes, "shard.tar", SourceKind::Shards));
}

/// Damaged lines under a head that vouches for them, or the checksum would end the matter.
#[test]
fn shard_indexes() {
    let folder = tempfile::tempdir().unwrap();
    let shard = plain_shard();
    let path = folder.path().join("s.tar");
    std::fs::write(&path, &shard).unwrap();
    data::source::write_index(&path, |_| ()).unwrap();
    let index = std::fs::read_to_string(folder.path().join("s.tar.index")).unwrap();
    let lines = index.split_once('\n').unwrap().1.as_bytes().to_vec();
    attack("tar.index", &[lines], |bytes| {
        let images = bytes.iter().filter(|&&byte| byte == b'\n').count();
        let (bytes_of_shard, crc) = (shard.len(), crc32fast::hash(bytes));
        let head = format!(
            "{{\"format\":\"simdino-tar-index\",\"version\":1,\"shard_bytes\":{bytes_of_shard},\
             \"images\":{images},\"crc32\":{crc}}}\n"
        );
        thread_local! {
            static SHARD: tempfile::TempDir = tempfile::tempdir().unwrap();
        }
        SHARD.with(|folder| {
            std::fs::write(folder.path().join("s.tar"), &shard).unwrap();
            let index = [head.as_bytes(), bytes].concat();
            std::fs::write(folder.path().join("s.tar.index"), index).unwrap();
            let path = folder.path().join("s.tar").to_string_lossy().into_owned();
            let Ok(dataset) = data::open(&DataConfig { path, ..DataConfig::default() }) else {
                return false;
            };
            (0..dataset.len().min(4)).for_each(|index| drop(dataset.image(index)));
            true
        })
    });
}

#[test]
fn lists() {
    let text = |text: &str| text.as_bytes().to_vec();
    attack("txt", &[text("a.jpg\n\nb/c.png\nd e.webp\n")], |b| opens(b, "l.txt", SourceKind::List));
    let csv = text("path,label\na.jpg,cat\n\"b,c.png\",dog\n");
    attack("csv", &[csv], |bytes| opens(bytes, "l.csv", SourceKind::List));
    let jsonl =
        text("{\"path\": \"a.jpg\", \"label\": 3}\n{\"path\": \"b.png\", \"label\": \"x\"}\n");
    attack("jsonl", &[jsonl], |bytes| opens(bytes, "l.jsonl", SourceKind::List));
}
