//! Times the multi-crop augmentation of a decoded image on one thread: all of SimDINO's recipe (2
//! crops of 224 pixels and 10 of 96, from 500x375), and its parts on a crop of 224 pixels.
//!
//! `cargo bench -p benches --bench multicrop`

use std::hint::black_box;
use std::time::Duration;

use augment::{
    AugmentConfig, BlurKind, CropBox, CropKey, EvalTransform, Job, MultiCrop, Planes, blur, color,
    gray, resize, solarize,
};
use criterion::{Criterion, Throughput};
use data::SyntheticConfig;
use data::synthetic::draw;
use image::RgbImage;

const SIDE: u32 = 224;

/// Returns a drawing of a typical photograph's size.
fn picture() -> RgbImage {
    let drawing = draw(&SyntheticConfig { size: 500, ..SyntheticConfig::default() }, 0);
    image::imageops::crop_imm(&drawing.image, 0, 60, 500, 375).to_image()
}

fn whole(c: &mut Criterion) {
    let image = picture();
    let mut group = c.benchmark_group("multicrop");
    group.throughput(Throughput::Elements(1));
    for (name, blur) in [("pillow", BlurKind::Pillow), ("kernel9", BlurKind::Kernel9)] {
        let config = AugmentConfig { blur, ..AugmentConfig::default() };
        let multicrop = MultiCrop::new(&config);
        let mut global = vec![0_u8; 2 * 3 * 224 * 224];
        let mut local = vec![0_u8; 10 * 3 * 96 * 96];
        let mut sample = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut globals: Vec<&mut [u8]> = global.chunks_mut(3 * 224 * 224).collect();
                let mut locals: Vec<&mut [u8]> = local.chunks_mut(3 * 96 * 96).collect();
                let key = CropKey { seed: 0, epoch: 0, sample };
                sample += 1;
                multicrop.apply(black_box((&image).into()), key, &mut globals, &mut locals)
            });
        });
    }
    let eval = EvalTransform { resize: 256, crop: SIDE };
    group.bench_function("eval", |b| b.iter(|| eval.apply(black_box(&image).into())));
    group.finish();
}

fn resizes(c: &mut Criterion) {
    let image = picture();
    let mut group = c.benchmark_group("resize");
    for (width, height, side) in [(400, 300, 224), (200, 180, 96), (100, 80, 96)] {
        let area = CropBox { left: 20, top: 10, width, height };
        let job = Job { area, width: side, height: side, flip: false };
        let mut planes = [Planes::default()];
        group.bench_function(format!("{width}x{height}_to_{side}"), |b| {
            b.iter(|| resize::resize_crops(black_box((&image).into()), &[job], &mut planes));
        });
    }
    group.finish();
}

type Operation = fn(&mut Planes);

fn operations(c: &mut Criterion) {
    let image = image::imageops::crop_imm(&picture(), 100, 50, SIDE, SIDE).to_image();
    let mut group = c.benchmark_group("crop_224");
    // Factors close to 1, so that repetition does not degrade the image.
    let operations: [(&str, Operation); 8] = [
        ("brightness", |planes| color::brightness(planes, 0.999)),
        ("contrast", |planes| color::contrast(planes, 0.999)),
        ("saturation", |planes| color::saturation(planes, 0.999)),
        ("hue", |planes| color::hue(planes, 0.05)),
        ("grayscale", gray::grayscale),
        ("blur_pillow", |planes| blur::pillow(planes, 1.2)),
        ("blur_kernel9", |planes| blur::kernel9(planes, 1.2)),
        ("solarize", |planes| solarize::solarize(planes, 128)),
    ];
    for (name, operation) in operations {
        let mut planes = Planes::from_rgb(&image);
        group.bench_function(name, |b| b.iter(|| operation(black_box(&mut planes))));
    }
    let mut planes = Planes::from_rgb(&image);
    let mut out = image.as_raw().clone();
    group.bench_function("planes_load_store", |b| {
        b.iter(|| {
            planes.load(black_box((&image).into()));
            planes.store(&mut out);
        });
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    whole(&mut criterion);
    resizes(&mut criterion);
    operations(&mut criterion);
    criterion.final_summary();
}
