//! Decodes a JPEG of 500x375 pixels on one thread, with `decode`, which uses the crate `jpeg` for
//! it, and with the `image` crate alone.
//!
//! `cargo bench -p benches --bench decode`

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use data::SyntheticConfig;
use data::synthetic::draw;
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageError, ImageFormat, imageops};

const QUALITY: u8 = 92;

/// Returns a JPEG of a drawing of a typical photograph's size, in color or gray.
fn encoded(gray: bool) -> Result<Vec<u8>, ImageError> {
    let drawing = draw(&SyntheticConfig { size: 500, ..SyntheticConfig::default() }, 0);
    let picture =
        DynamicImage::from(imageops::crop_imm(&drawing.image, 0, 60, 500, 375).to_image());
    let picture = if gray { picture.grayscale() } else { picture };
    let mut bytes = Vec::new();
    picture.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, QUALITY))?;
    Ok(bytes)
}

fn main() -> Result<(), ImageError> {
    let mut criterion = Criterion::default().configure_from_args();
    for (name, gray) in [("color", false), ("gray", true)] {
        let bytes = encoded(gray)?;
        let mut group = criterion.benchmark_group(format!("decode_{name}"));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function("decode", |b| b.iter(|| decode::decode(black_box(&bytes))));
        group.bench_function("image", |b| {
            b.iter(|| image::load_from_memory_with_format(black_box(&bytes), ImageFormat::Jpeg));
        });
        group.finish();
    }
    criterion.final_summary();
    Ok(())
}
