//! The augmentations against torchvision and Pillow.
//!
//! `fixtures/augment.safetensors` is made by `tools/parity/augment.py` (versions and seed in its
//! metadata): one image, the output of each operation on it, and quantiles of the boxes of 20,000
//! random resized crops. Tolerances are in levels of 0-255.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use augment::crop::random_resized_crop;
use augment::resize::resize_crops;
use augment::rng::{Purpose, Rng};
use augment::{
    AugmentConfig, BlurKind, CropBox, CropPlan, EvalTransform, Jitter, Job, MultiCrop, Planes,
    blur, color, gray, solarize,
};
use image::RgbImage;
use safetensors::SafeTensors;
use serde_json::Value;

static FIXTURE: &[u8] = include_bytes!("fixtures/augment.safetensors");

fn fixture() -> SafeTensors<'static> {
    SafeTensors::deserialize(FIXTURE).unwrap()
}

/// A JSON list of the file's metadata.
fn listed(key: &str) -> Vec<Value> {
    let (_, metadata) = SafeTensors::read_metadata(FIXTURE).unwrap();
    serde_json::from_str(&metadata.metadata().as_ref().unwrap()[key]).unwrap()
}

fn rgb(name: &str) -> RgbImage {
    let tensors = fixture();
    let view = tensors.tensor(name).unwrap();
    let [height, width, 3] = view.shape() else { panic!("{name}: {:?}", view.shape()) };
    RgbImage::from_raw(*width as u32, *height as u32, view.data().to_vec()).unwrap()
}

fn crop_box(case: &Value) -> CropBox {
    let at = |i: usize| case["box"][i].as_u64().unwrap() as u32;
    CropBox { left: at(0), top: at(1), width: at(2), height: at(3) }
}

fn recolored(image: &RgbImage, op: &str, factor: f64) -> RgbImage {
    let mut planes = Planes::from_rgb(image);
    match op {
        "brightness" => color::brightness(&mut planes, factor),
        "contrast" => color::contrast(&mut planes, factor),
        "saturation" => color::saturation(&mut planes, factor),
        "hue" => color::hue(&mut planes, factor),
        "gray" => gray::grayscale(&mut planes),
        "flip" => {
            let (width, height) = image.dimensions();
            let area = CropBox { left: 0, top: 0, width, height };
            let job = Job { area, width, height, flip: true };
            resize_crops(image.into(), &[job], std::slice::from_mut(&mut planes)).unwrap();
        }
        "solarize" => solarize::solarize(&mut planes, factor as u8),
        "pillow_blur" => blur::pillow(&mut planes, factor),
        "kernel9_blur" => blur::kernel9(&mut planes, factor),
        other => panic!("unknown operation {other}"),
    }
    planes.to_rgb()
}

/// A whole crop through [`MultiCrop::apply_plan`].
fn chained(image: &RgbImage, case: &Value, side: u32) -> RgbImage {
    let steps: Vec<Jitter> = case["jitter"].as_array().unwrap().iter().map(step).collect();
    let plan = CropPlan {
        area: crop_box(case),
        side,
        flip: true,
        jitter: Some(steps.try_into().unwrap()),
        gray: false,
        blur_sigma: case["factor"].as_f64(),
        solarize: true,
    };
    let config = AugmentConfig { blur: BlurKind::Pillow, ..AugmentConfig::default() };
    let mut out = RgbImage::new(side, side);
    let outs = [&mut *out].into_iter();
    MultiCrop::new(&config).apply_plans(image.into(), &[plan], outs).unwrap();
    out
}

fn step(step: &Value) -> Jitter {
    let factor = step[1].as_f64().unwrap();
    match step[0].as_str().unwrap() {
        "brightness" => Jitter::Brightness(factor),
        "contrast" => Jitter::Contrast(factor),
        "saturation" => Jitter::Saturation(factor),
        "hue" => Jitter::Hue(factor),
        other => panic!("unknown step {other}"),
    }
}

fn ours(image: &RgbImage, case: &Value) -> RgbImage {
    let side = case["side"].as_u64().unwrap_or(0) as u32;
    match case["op"].as_str().unwrap() {
        "crop" => {
            let mut planes = [Planes::default()];
            let job = Job { area: crop_box(case), width: side, height: side, flip: false };
            resize_crops(image.into(), &[job], &mut planes).unwrap();
            planes[0].to_rgb()
        }
        "eval" => {
            let resize = case["resize"].as_u64().unwrap() as u32;
            EvalTransform { resize, crop: side }.apply(image.into()).unwrap().to_rgb()
        }
        "chain" => chained(image, case, side),
        op => recolored(image, op, case["factor"].as_f64().unwrap_or(0.0)),
    }
}

/// Allowed (mean, largest) absolute difference. What only moves or selects values is exact; hue
/// passes through 8-bit HSV, where one step of the hue byte is up to six levels.
fn tolerance(op: &str) -> (f64, u8) {
    match op {
        "gray" | "flip" | "solarize" => (0.0, 0),
        "hue" => (1.0, 6),
        "chain" => (1.0, 6),
        _ => (0.5, 3),
    }
}

#[test]
fn every_operation_agrees_with_torchvision() {
    let image = rgb("image");
    let cases = listed("cases");
    assert!(cases.len() > 25);
    let mut wrong = Vec::new();
    for (i, case) in cases.iter().enumerate() {
        let expected = rgb(&format!("case.{i}"));
        let got = ours(&image, case);
        assert_eq!(got.dimensions(), expected.dimensions(), "{case}");
        let differences: Vec<u8> =
            got.iter().zip(expected.iter()).map(|(a, b)| a.abs_diff(*b)).collect();
        let mean =
            differences.iter().map(|&d| f64::from(d)).sum::<f64>() / differences.len() as f64;
        let largest = differences.iter().copied().max().unwrap();
        println!("{case}: mean {mean:.4}, largest {largest}");
        let (most_mean, most) = tolerance(case["op"].as_str().unwrap());
        if mean > most_mean || largest > most {
            wrong.push(format!("{case}: mean {mean}, largest {largest}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// At each of torchvision's 101 quantiles, the share of our draws below it is the quantile's
/// probability within 0.02; two sets of 20,000 draws of one distribution differ by more once in
/// a thousand times.
#[test]
fn crop_boxes_are_distributed_as_torchvisions() {
    for (i, case) in listed("boxes").iter().enumerate() {
        let number = |key: &str| case[key].as_u64().unwrap() as u32;
        let (width, height) = (number("width"), number("height"));
        let scale = [case["scale"][0].as_f64().unwrap(), case["scale"][1].as_f64().unwrap()];
        let mut draws: [Vec<f64>; 4] = Default::default();
        for sample in 0..20_000 {
            let mut rng = Rng::new(1, 0, sample, Purpose::Crop(0));
            let b = random_resized_crop(&mut rng, width, height, scale);
            let (w, h) = (f64::from(b.width), f64::from(b.height));
            let (all_w, all_h) = (f64::from(width), f64::from(height));
            let values = [
                w * h / (all_w * all_h),
                (w / h).ln(),
                f64::from(b.left) / all_w,
                f64::from(b.top) / all_h,
            ];
            draws.iter_mut().zip(values).for_each(|(list, value)| list.push(value));
        }
        let tensors = fixture();
        let quantiles = tensors.tensor(&format!("boxes.{i}")).unwrap();
        let (bytes, _) = quantiles.data().as_chunks::<8>();
        assert_eq!(quantiles.shape(), [4, 101]);
        for (q, &bytes) in bytes.iter().enumerate() {
            let (list, p) = (&mut draws[q / 101], (q % 101) as f64 / 100.0);
            check_quantile(list, f64::from_le_bytes(bytes), p, case);
        }
    }
}

fn check_quantile(draws: &[f64], quantile: f64, p: f64, case: &Value) {
    let share = |count: usize| count as f64 / draws.len() as f64;
    // Values repeat (boxes are whole pixels): p must lie between the shares below and up to it.
    let below = share(draws.iter().filter(|&&v| v < quantile - 1e-9).count());
    let up_to = share(draws.iter().filter(|&&v| v <= quantile + 1e-9).count());
    assert!(below - 0.02 <= p && p <= up_to + 0.02, "{case}: {quantile} at {p}: {below} {up_to}");
}
