//! Writes the batches that loaders in other languages must reproduce exactly.
//!
//! `cargo run -p simdino-py --example reference_batches -- OUT` draws images, some of them broken,
//! into `OUT/images`, packs them into `OUT/shards`, lists them in `OUT/list.txt`, and writes
//! `OUT/reference.json`, which holds the options of each case and the SHA-256 of the arrays of each
//! batch.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use data::augment::{AugmentConfig, MultiCrop, Preset};
use data::batch::BatchGeometry;
use data::loader::{Batch, LoaderConfig, Position, TrainLoader, ViewPlan};
use data::masking::{MaskConfig, MaskGenerator};
use data::source::{self, PackOptions};
use data::{DataConfig, MixEntry, SyntheticConfig, synthetic};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Number of steps of each case; with 23 images in batches of 6, they extend into the third epoch.
const STEPS: usize = 8;
const BATCH: usize = 6;
const SEED: u64 = 41;

fn main() -> Result<()> {
    let out = std::env::args().nth(1).ok_or("name a new folder")?;
    let out = Path::new(&out);
    let set = SyntheticConfig { count: 20, size: 48, seed: 3 };
    synthetic::write_folder(&set, out, |_| {})?;
    let images = out.join("images");
    let good = any_image(&images)?;
    fs::write(images.join("cut.png"), &good[..good.len() / 2])?;
    fs::write(images.join("empty.jpg"), "")?;
    fs::write(images.join("text.jpg"), "this is no image")?;
    pack(&images, &out.join("shards"))?;
    write_list(&images, &out.join("list.txt"))?;

    let path = |name: &str| Some(out.join(name).to_string_lossy().into_owned());
    let of = |name: &str| DataConfig { path: path(name), ..DataConfig::default() };
    let entry = |name: &str, weight| MixEntry { path: path(name), weight, ..MixEntry::default() };
    let mix = DataConfig {
        mix: vec![entry("images", Some(1.0)), entry("shards", Some(2.0))],
        ..DataConfig::default()
    };
    let cases = [
        case("folder", &of("images"), Preset::Dino, 1, 0)?,
        case("folder, second of two", &of("images"), Preset::Dino, 2, 1)?,
        case("shards", &of("shards"), Preset::Simdinov2, 1, 0)?,
        case("list", &of("list.txt"), Preset::Dinov2, 3, 1)?,
        case("mix", &mix, Preset::Simdino, 1, 0)?,
    ];
    fs::write(out.join("reference.json"), serde_json::to_string_pretty(&cases)?)?;
    Ok(())
}

/// Returns the bytes of one of the images.
fn any_image(images: &Path) -> std::io::Result<Vec<u8>> {
    let mut folders: Vec<_> = fs::read_dir(images)?.filter_map(|e| Some(e.ok()?.path())).collect();
    folders.sort();
    for folder in folders {
        if let Some(file) = fs::read_dir(folder)?.next() {
            return fs::read(file?.path());
        }
    }
    Err(std::io::ErrorKind::NotFound.into())
}

fn pack(images: &Path, shards: &Path) -> Result<()> {
    let path = Some(images.to_string_lossy().into_owned());
    let source = source::open(&DataConfig { path, ..DataConfig::default() })?;
    let options = PackOptions { shard_images: 9, skip_unreadable: false };
    fs::create_dir_all(shards)?;
    source::pack(source.as_ref(), shards, &options, |_| {})?;
    Ok(())
}

fn write_list(images: &Path, list: &Path) -> Result<()> {
    let path = Some(images.to_string_lossy().into_owned());
    let source = source::open(&DataConfig { path, ..DataConfig::default() })?;
    // In a different order than the folder.
    let names: Vec<_> = (0..source.len()).rev().map(|i| images.join(source.name(i))).collect();
    let lines: Vec<_> = names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    Ok(fs::write(list, lines.join("\n") + "\n")?)
}

fn case(
    name: &str,
    config: &DataConfig,
    preset: Preset,
    world_size: usize,
    rank: usize,
) -> Result<Value> {
    let augment = AugmentConfig {
        global_crops_size: 32,
        local_crops_size: 16,
        local_crops_number: 3,
        ..AugmentConfig::of(preset)
    };
    let views = ViewPlan {
        crops: MultiCrop::new(&augment),
        masks: Some(MaskGenerator::new(&MaskConfig::default(), (4, 4))?),
    };
    let geometry = BatchGeometry::new(BATCH)?.of_process(rank, world_size)?;
    let options = LoaderConfig {
        seed: SEED,
        workers: Some(2),
        max_bad_fraction: 1.0,
        ..LoaderConfig::new(geometry)
    };
    let dataset = Arc::new(data::open(config)?);
    let mut loader = TrainLoader::new(dataset, views, options, Position::default())?;
    let mut batches = Vec::new();
    for _ in 0..STEPS {
        batches.push(hashes(&loader.next_batch()?));
    }
    Ok(json!({
        "name": name,
        "data": config,
        "preset": preset,
        "augment": {"global_crops_size": 32, "local_crops_size": 16, "local_crops_number": 3},
        "patch_size": 8,
        "batch_size": BATCH,
        "seed": SEED,
        "rank": rank,
        "world_size": world_size,
        "steps_per_epoch": loader.steps_per_epoch(),
        "batches": batches,
    }))
}

fn hashes(batch: &Batch) -> Value {
    let masks = batch.masks.as_ref();
    let hidden: Vec<u8> =
        masks.iter().flat_map(|masks| masks.masks.iter().map(|&hidden| hidden.into())).collect();
    let weights: Vec<u8> = masks
        .iter()
        .flat_map(|masks| masks.weights.iter().flat_map(|weight| weight.to_le_bytes()))
        .collect();
    let broken: Vec<_> = batch.broken.iter().map(|image| &image.name).collect();
    json!({
        "epoch": batch.position.epoch,
        "step": batch.position.step,
        "samples": batch.samples,
        "global": sha256(&batch.global.pixels),
        "local": batch.local.as_ref().map(|local| sha256(&local.pixels)),
        "masks": sha256(&hidden),
        "weights": sha256(&weights),
        "broken": broken,
    })
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
