//! Computes the features of preprocessed images with a backbone from any weight file.
//!
//! ```text
//! cargo run -p simdino-model --example features -- WEIGHTS IMAGES OUT [offset|size|antialias]
//! ```
//!
//! `IMAGES` is a safetensors file with `images` `[B, C, H, W]`, normalized, fp32; `OUT` gets `cls`
//! `[B, D]`, `patches` `[B, N, D]`, and, if there are any, `registers` `[B, R, D]`.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use model::Mode;
use model::weights::{LoadOptions, PretrainedBackbone, TensorFile, write_safetensors};
use tch::Device;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [weights, images, out, form @ ..] = arguments.as_slice() else {
        return Err("usage: features WEIGHTS IMAGES OUT [offset|size|antialias]".into());
    };
    let model = form.first().map(|form| format!("pos_interpolation={form}"));
    let options = LoadOptions { model: model.into_iter().collect(), ..LoadOptions::default() };
    let pretrained = PretrainedBackbone::open_with(Path::new(weights), &options, Device::Cpu)?;
    println!("{}", pretrained.report);
    let images = TensorFile::open(Path::new(images))?.read("images")?;
    let tokens = tch::no_grad(|| pretrained.backbone.forward(&images, Mode::Eval))?;
    let mut outputs = vec![("cls".to_owned(), tokens.cls), ("patches".to_owned(), tokens.patches)];
    if pretrained.model.num_register_tokens > 0 {
        outputs.push(("registers".to_owned(), tokens.registers));
    }
    write_safetensors(Path::new(out), &outputs, &BTreeMap::new())?;
    Ok(())
}
