//! Features of prepared images by a backbone of any weight file.
//!
//! ```text
//! cargo run -p simdino-model --example features -- WEIGHTS IMAGES OUT [offset|size|antialias]
//! ```
//!
//! `IMAGES` is a safetensors file with `images` `[B, C, H, W]`, normalized, fp32; `OUT` gets `cls`
//! `[B, D]`, `patches` `[B, N, D]` and, where there are any, `registers` `[B, R, D]`.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use model::weights::{
    ImportPolicy, Role, Target, TensorFile, choose, import, infer, write_safetensors,
};
use model::{Mode, PosInterpolation, VisionTransformer};
use tch::{Device, nn};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [weights, images, out, form @ ..] = arguments.as_slice() else {
        return Err("usage: features WEIGHTS IMAGES OUT [offset|size|antialias]".into());
    };
    let file = TensorFile::open(Path::new(weights))?;
    let mut config = infer(&file, &choose(&file, Role::Teacher)?)?.model;
    match form.first().map(String::as_str) {
        None => (),
        Some("offset") => config.pos_interpolation = PosInterpolation::Offset,
        Some("size") => config.pos_interpolation = PosInterpolation::Size,
        Some("antialias") => config.pos_interpolation = PosInterpolation::Antialias,
        Some(other) => return Err(format!("'{other}' is no form of interpolation").into()),
    }
    let vars = nn::VarStore::new(Device::Cpu);
    let backbone = VisionTransformer::new(&vars.root(), &config)?;
    let target = Target { vars: &vars, model: &config, backbone: "", head: None, patch_head: None };
    println!("{}", import(&file, &target, &ImportPolicy::default())?);
    let images = TensorFile::open(Path::new(images))?.read("images")?;
    let tokens = tch::no_grad(|| backbone.forward(&images, Mode::Eval))?;
    let mut outputs = vec![("cls".to_owned(), tokens.cls), ("patches".to_owned(), tokens.patches)];
    if config.num_register_tokens > 0 {
        outputs.push(("registers".to_owned(), tokens.registers));
    }
    write_safetensors(Path::new(out), &outputs, &BTreeMap::new())?;
    Ok(())
}
