//! Compares crops with the same crops made by plain loops, and checks that pixels outside the box
//! have no effect.

use image::{Rgb, RgbImage};
use proptest::prelude::*;

use super::*;
use crate::filter::WEIGHT_BITS;

fn cut(image: &RgbImage, area: CropBox, (width, height): (u32, u32)) -> Result<RgbImage> {
    let mut planes = [Planes::default()];
    resize_crops(image.into(), &[Job { area, width, height, flip: false }], &mut planes)?;
    Ok(planes[0].to_rgb())
}

proptest! {
    #[test]
    fn a_flat_image_stays_in_every_box_and_size(
        (left, top, width, height) in (0_u32..30, 0_u32..30, 1_u32..260, 1_u32..260),
        (wide, high) in (1_u32..80, 1_u32..80),
        pixel: [u8; 3],
    ) {
        let image = RgbImage::from_pixel(290, 290, Rgb(pixel));
        let out = cut(&image, CropBox { left, top, width, height }, (wide, high)).unwrap();
        prop_assert!(out.pixels().all(|p| p.0 == pixel));
    }

    /// Compares with plain floats, with Pillow's rounding between the passes.
    #[test]
    fn values_are_those_of_the_plain_formula(
        (width, height) in (1_u32..120, 1_u32..90), (wide, high) in (1_u32..50, 1_u32..50),
        seed: u64, flip: bool,
    ) {
        let mut rng = crate::rng::Rng::new(seed, 0, 0, crate::rng::Purpose::Choice(0));
        let image = RgbImage::from_fn(width + 3, height + 2, |_, _| {
            Rgb([rng.bits() as u8, rng.bits() as u8, 128 + (rng.bits() as u8 >> 4)])
        });
        let area = CropBox { left: 2, top: 1, width, height };
        let mut planes = [Planes::default()];
        let job = Job { area, width: wide, height: high, flip };
        resize_crops((&image).into(), &[job], &mut planes).unwrap();
        let expected = plain(&image, job);
        let worst = planes[0].bytes().iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max();
        prop_assert!(worst <= Some(2), "{worst:?}");
    }
}

fn plain(image: &RgbImage, job: Job) -> Vec<u8> {
    let (columns, rows) =
        (Filter::new(job.area.width, job.width), Filter::new(job.area.height, job.height));
    let weigh = |filter: &Filter, target: usize, at: &dyn Fn(usize) -> u8| {
        let Some(taps) = filter.from(target).next() else { return 0 };
        let weights = taps.weights.as_flattened().iter().map(|w| w.get()).enumerate();
        let sum: f64 = weights
            .filter(|&(_, w)| w != 0)
            .map(|(i, w)| {
                f64::from(w) / f64::from(1 << WEIGHT_BITS) * f64::from(at(taps.start + i))
            })
            .sum();
        (sum + 0.5).floor().clamp(0.0, 255.0) as u8
    };
    let CropBox { left, top, .. } = job.area;
    let mut out = Vec::new();
    for c in 0..3 {
        let pixel = |x: usize, y: usize| image.get_pixel(left + x as u32, top + y as u32)[c];
        for target in 0..job.height as usize {
            for x in 0..job.width as usize {
                let x = if job.flip { job.width as usize - 1 - x } else { x };
                let middle = |y: usize| weigh(&columns, x, &|x| pixel(x, y));
                out.push(weigh(&rows, target, &middle));
            }
        }
    }
    out
}

#[test]
fn any_number_of_channels_is_resized_alike() {
    let image = RgbImage::from_fn(41, 37, |x, y| Rgb([x as u8 * 6, y as u8 * 6, (x * y) as u8]));
    let area = CropBox { left: 3, top: 1, width: 37, height: 30 };
    let job = Job { area, width: 19, height: 40, flip: true };
    let mut rgb = [Planes::default()];
    resize_crops((&image).into(), &[job], &mut rgb).unwrap();
    // The channels are red, green, blue, and red again.
    let four: Vec<u8> = image.pixels().flat_map(|p| [p[0], p[1], p[2], p[0]]).collect();
    let mut planes = [Planes::default()];
    resize_crops(Pixels::new(&four, 41, 37, 4).unwrap(), &[job], &mut planes).unwrap();
    assert_eq!(planes[0].bytes()[..rgb[0].bytes().len()], *rgb[0].bytes());
    assert_eq!(planes[0].channel(3), rgb[0].channel(0));
}

#[test]
fn crops_made_together_are_those_made_alone() {
    let image = RgbImage::from_fn(90, 100, |x, y| Rgb([x as u8, y as u8, (x ^ y) as u8]));
    let job = |left, top, width, height, side| Job {
        area: CropBox { left, top, width, height },
        width: side,
        height: side,
        flip: side > 20,
    };
    let jobs = [job(0, 0, 90, 100, 33), job(50, 60, 7, 31, 16), job(10, 95, 70, 5, 24)];
    let mut together: [Planes; 3] = Default::default();
    resize_crops((&image).into(), &jobs, &mut together).unwrap();
    for (job, planes) in jobs.iter().zip(&together) {
        let mut alone = [Planes::default()];
        resize_crops((&image).into(), &[*job], &mut alone).unwrap();
        assert_eq!(alone[0], *planes);
    }
}

fn two_halves() -> RgbImage {
    RgbImage::from_fn(40, 20, |x, _| if x < 20 { Rgb([0; 3]) } else { Rgb([200; 3]) })
}

#[test]
fn nothing_outside_the_box_reaches_the_crop() {
    let left = CropBox { left: 0, top: 0, width: 20, height: 20 };
    let out = cut(&two_halves(), left, (8, 8)).unwrap();
    assert!(out.iter().all(|&v| v == 0));
}

#[test]
fn wrong_sizes_are_errors() {
    let whole = CropBox { left: 0, top: 0, width: 40, height: 20 };
    assert!(cut(&two_halves(), CropBox { left: 30, ..whole }, (8, 8)).is_err());
    assert!(cut(&two_halves(), CropBox { width: 0, ..whole }, (8, 8)).is_err());
    assert!(resize((&two_halves()).into(), 0, 3).is_err());
    assert!(resize((&RgbImage::new(0, 0)).into(), 3, 3).is_err());
}

#[test]
fn one_pixel_can_be_enlarged() {
    let image = RgbImage::from_pixel(1, 1, Rgb([5, 6, 7]));
    let out = resize((&image).into(), 9, 4).unwrap().to_rgb();
    assert!(out.pixels().all(|p| p.0 == [5, 6, 7]));
}
