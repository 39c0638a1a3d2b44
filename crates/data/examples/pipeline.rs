//! Images per second of the whole training pipeline on a folder: encoded bytes in memory to a batch
//! of u8 crops, 2 of 224 and 10 of 96 pixels. `cargo xtask bench data` runs it beside its peers.
//!
//! `cargo run -p data --example pipeline -- FOLDER [--seconds S] [--threads N] [--what all|decode|crops]`

use std::time::{Duration, Instant};

use data::AugmentConfig;
use data::transform::{CropKey, MultiCrop};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let dir = &args[1];
    let what = args.get(2).map_or("all", |s| s.as_str());
    let files: Vec<Vec<u8>> = walk(dir);
    let mut config = AugmentConfig::default();
    let part = args.get(3).map_or("", |s| s.as_str());
    if !part.is_empty() {
        (config.jitter_prob, config.gray_prob, config.solarize_prob, config.blur_prob) =
            (0.0, 0.0, 0.0, [0.0; 3]);
        if part == "jitter" {
            config.jitter_prob = 0.8
        }
        if part == "blur" {
            config.blur_prob = [1.0, 0.1, 0.5]
        }
    }
    let files = if what == "crops" { files[..8].to_vec() } else { files };
    let crops = MultiCrop::new(&config);
    let mut global = vec![0_u8; 2 * 3 * 224 * 224];
    let mut local = vec![0_u8; 10 * 3 * 96 * 96];
    let images: Vec<_> = files.iter().map(|f| decode::decode(f).unwrap()).collect();
    let start = Instant::now();
    let mut n = 0;
    while start.elapsed() < Duration::from_secs(5) {
        let i = n % files.len();
        let decoded;
        let image = if what == "crops" {
            &images[i]
        } else {
            decoded = decode::decode(&files[i]).unwrap();
            &decoded
        };
        if what != "decode" {
            let mut globals: Vec<&mut [u8]> = global.chunks_mut(3 * 224 * 224).collect();
            let mut locals: Vec<&mut [u8]> = local.chunks_mut(3 * 96 * 96).collect();
            crops
                .apply(
                    image.into(),
                    CropKey { seed: 0, epoch: 0, sample: n as u64 },
                    &mut globals,
                    &mut locals,
                )
                .unwrap();
        }
        n += 1;
    }
    println!("{what}: {:.1} img/s", n as f64 / start.elapsed().as_secs_f64());
}

fn walk(dir: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = walkdir::WalkDir::new(dir)
        .into_iter()
        .filter_map(Result::ok)
        .filter(|e| e.path().extension().is_some_and(|x| x == "JPEG"))
        .map(|e| e.path().to_owned())
        .collect();
    paths.sort();
    paths.iter().map(|p| std::fs::read(p).unwrap()).collect()
}
