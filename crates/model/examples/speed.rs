//! Measures the speed of a backbone, for `cargo xtask bench model`. The last line printed is JSON.
//!
//! ```text
//! speed step STEPS THREADS [N]  forward and backward pass of ViT-S/16, 8 images of 224 pixels;
//!                               with N, only the input of every N blocks is kept (activation
//!                               checkpointing)
//! speed load FOLDER             loading a ViT-L from safetensors, compared with reading the bytes
//!                               of the file, both from the page cache
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Instant;

use model::weights::{named_variables, read_safetensors, write_safetensors};
use model::{Arch, Mode, ModelConfig, VisionTransformer};
use tch::{Device, Kind, Tensor, nn};

const BATCH: i64 = 8;
const SIDE: i64 = 224;
const WARM_UP: usize = 2;
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["step", steps, threads] => step(steps.parse()?, threads.parse()?, 0),
        ["step", steps, threads, n] => step(steps.parse()?, threads.parse()?, n.parse()?),
        ["load", folder] => load(Path::new(folder)),
        _ => Err("usage: speed step STEPS THREADS [N] | speed load FOLDER".into()),
    }
}

/// Prints the milliseconds of the fastest pass, and by how much the passes raised peak memory.
fn step(steps: usize, threads: i32, checkpoint_blocks: i64) -> Result<(), Box<dyn Error>> {
    tch::set_num_threads(threads);
    let vars = nn::VarStore::new(Device::Cpu);
    let config = ModelConfig {
        arch: Arch::VitSmall,
        drop_path_rate: 0.0,
        checkpoint_blocks: (checkpoint_blocks > 0).then_some(checkpoint_blocks),
        ..Default::default()
    };
    let backbone = VisionTransformer::new(&vars.root(), &config)?;
    let images = Tensor::randn([BATCH, 3, SIDE, SIDE], (Kind::Float, Device::Cpu));
    torch_ext::reset_peak_memory(Device::Cpu);
    let before = torch_ext::device_memory(Device::Cpu)?.allocated_bytes;
    let parameters = vars.trainable_variables();
    let mut best = f64::INFINITY;
    for step in 0..WARM_UP + steps {
        torch_ext::drop_gradients(&parameters)?;
        let start = Instant::now();
        let tokens = backbone.forward(&images, Mode::Train)?;
        tokens.cls.square().mean(Kind::Float).backward();
        if step >= WARM_UP {
            best = best.min(start.elapsed().as_secs_f64());
        }
    }
    let peak = torch_ext::device_memory(Device::Cpu)?.peak_allocated_bytes - before;
    println!("{{\"step_ms\": {:.3}, \"peak_memory_bytes\": {peak}}}", 1e3 * best);
    Ok(())
}

/// Prints the seconds of the fastest read, as tensors and as bytes; the two alternate.
fn load(folder: &Path) -> Result<(), Box<dyn Error>> {
    let path = folder.join("vit_large.safetensors");
    let vars = nn::VarStore::new(Device::Cpu);
    let config = ModelConfig { arch: Arch::VitLarge, ..Default::default() };
    VisionTransformer::new(&vars.root(), &config)?;
    write_safetensors(&path, &named_variables(&vars), &BTreeMap::new())?;
    drop(vars);
    let (mut tensors, mut bytes, mut len) = (f64::INFINITY, f64::INFINITY, 0);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let file = fs::read(&path)?;
        bytes = bytes.min(start.elapsed().as_secs_f64());
        len = file.len();
        drop(file);
        let start = Instant::now();
        let file = read_safetensors(&path)?;
        tensors = tensors.min(start.elapsed().as_secs_f64());
        drop(file);
    }
    fs::remove_file(&path)?;
    println!("{{\"load_s\": {tensors:.4}, \"read_s\": {bytes:.4}, \"file_bytes\": {len}}}");
    Ok(())
}
