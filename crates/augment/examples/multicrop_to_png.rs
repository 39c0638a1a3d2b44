//! Writes the crops that a network sees of an image as PNG files.
//!
//! ```text
//! cargo run -p simdino-augment --example multicrop_to_png -- [IMAGE] [FOLDER]
//! ```
//!
//! Without an image, the example draws one; without a folder, it writes to `crops`. The name of a
//! file states which operations were drawn for it. Another `epoch` or `sample` gives other crops;
//! the same key gives the same crops on any machine.

use std::path::{Path, PathBuf};

use augment::{AugmentConfig, CropKey, GLOBAL_CROPS, MultiCrop, Preset, decode};
use image::{Rgb, RgbImage};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let image = match arguments.next() {
        Some(path) => open(&path).map_err(|error| format!("{}: {error}", path.display()))?,
        None => rings(256),
    };
    let folder = arguments.next().unwrap_or_else(|| "crops".into());
    std::fs::create_dir_all(&folder)?;

    // SimDINO's recipe: 2 global crops of 224 pixels and 10 local crops of 96.
    let multicrop = MultiCrop::new(&AugmentConfig::of(Preset::Simdino));
    let key = CropKey { seed: 0, epoch: 0, sample: 0 };
    let views = GLOBAL_CROPS + multicrop.config().local_crops_number;

    // Every random choice is made first and can be inspected; then all crops are made together.
    let plans: Vec<_> =
        (0..views).map(|view| multicrop.plan(image.dimensions(), key, view)).collect();
    let mut crops: Vec<Vec<u8>> =
        plans.iter().map(|plan| vec![0; 3 * (plan.side as usize).pow(2)]).collect();
    multicrop.apply_plans((&image).into(), &plans, crops.iter_mut().map(Vec::as_mut_slice))?;

    for (view, (plan, pixels)) in plans.iter().zip(crops).enumerate() {
        let kind = if view < GLOBAL_CROPS { "global" } else { "local" };
        let mut name = format!("{view:02}-{kind}");
        for (happened, what) in [
            (plan.flip, "flip"),
            (plan.jitter.is_some(), "jitter"),
            (plan.gray, "gray"),
            (plan.blur_sigma.is_some(), "blur"),
            (plan.solarize, "solarize"),
        ] {
            if happened {
                name += &format!("-{what}");
            }
        }
        let path = folder.join(name + ".png");
        save(&path, plan.side, pixels)?;
        println!("{}", path.display());
    }
    Ok(())
}

fn open(path: &Path) -> Result<RgbImage, Box<dyn std::error::Error>> {
    Ok(decode::decode(&std::fs::read(path)?)?)
}

fn save(path: &Path, side: u32, pixels: Vec<u8>) -> Result<(), Box<dyn std::error::Error>> {
    let crop =
        RgbImage::from_raw(side, side, pixels).ok_or("a crop has another size than planned")?;
    Ok(crop.save(path)?)
}

/// Draws colored rings, `side` pixels wide and high.
fn rings(side: u32) -> RgbImage {
    let middle = f64::from(side) / 2.0;
    RgbImage::from_fn(side, side, |x, y| {
        let distance = (f64::from(x) - middle).hypot(f64::from(y) - middle);
        let wave = |period: f64| (127.5 * (1.0 + (distance / period).sin())) as u8;
        Rgb([wave(5.0), wave(9.0), (255 * x / side) as u8])
    })
}
