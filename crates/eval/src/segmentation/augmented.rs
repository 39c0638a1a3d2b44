//! Random views of training images for the memory of patches.

use augment::color;
use augment::crop::random_resized_crop;
use augment::resize::{Job, resize_crops};
use augment::rng::{Purpose, Rng};
use augment::{CropBox, Planes};
use data::decode::Image;
use data::dense::{DenseSample, LabelMap};

use super::features::{image_of, resized_labels};
use crate::error::Result;

/// The [`Purpose::Choice`] number for views.
const VIEW: u32 = 708;
/// Range of the area of a view, as a fraction of the image's. A crop that does not fit is drawn
/// again, so large fractions mostly end as the whole image.
const AREA: [f64; 2] = [0.5, 2.0];
/// Maximum change of brightness, contrast, saturation, and hue, each of which changes with
/// probability 1/2.
const JITTER: f64 = 0.1;

/// Cuts a random part of an image, resizes it to a square of `side` pixels, and varies its colors a
/// little; returns it with the class of each pixel. The result depends only on the seed, the pass,
/// and the index of the image.
///
/// # Source
/// The transform of training images in the public code open-hummingbird-eval, which does not flip
/// them.
pub(super) fn random_view(
    sample: &DenseSample,
    side: u32,
    seed: u64,
    pass: u64,
    index: usize,
) -> Result<(Image, LabelMap)> {
    let mut rng = Rng::new(seed, pass, index as u64, Purpose::Choice(VIEW));
    let (width, height) = sample.image.dimensions();
    let area = random_resized_crop(&mut rng, width, height, AREA);
    let job = Job { area, width: side, height: side, flip: false };
    let mut planes = [Planes::default()];
    resize_crops((&sample.image).into(), &[job], &mut planes)?;
    let [mut planes] = planes;
    recolor(&mut planes, &mut rng);
    let channels = sample.image.channels();
    let mut pixels = vec![0; planes.bytes().len()];
    planes.store(&mut pixels);
    let image = image_of(pixels, (side, side), channels)?;
    Ok((image, resized_labels(&cut(&sample.labels, area), side, side)))
}

/// A function that changes colors by an amount.
type Change = fn(&mut Planes, f64);

/// Changes colors by random amounts. All amounts are drawn even if unused, so that one choice does
/// not shift the others.
fn recolor(planes: &mut Planes, rng: &mut Rng) {
    let changes: [(Change, f64); 4] = [
        (color::brightness, 1.0),
        (color::contrast, 1.0),
        (color::saturation, 1.0),
        (color::hue, 0.0),
    ];
    for (change, middle) in changes {
        let (happens, amount) = (rng.chance(0.5), rng.uniform(-JITTER, JITTER));
        if happens {
            change(planes, middle + amount);
        }
    }
}

/// Returns the labels within a box.
fn cut(labels: &LabelMap, area: CropBox) -> LabelMap {
    let rows = labels.ids.chunks_exact(labels.width as usize);
    let rows = rows.skip(area.top as usize).take(area.height as usize);
    let columns = area.left as usize..(area.left + area.width) as usize;
    let ids = rows.flat_map(|row| &row[columns.clone()]).copied().collect();
    LabelMap { width: area.width, height: area.height, ids }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns an image whose first channel is the class of each pixel times 40.
    fn sample(width: u32, height: u32) -> DenseSample {
        let ids: Vec<u8> =
            (0..width * height).map(|i| (i % width / 10 + i / width / 10) as u8).collect();
        let pixels = ids.iter().flat_map(|&id| [40 * id, 128, 255 - 40 * id]).collect();
        let image = Image::new(pixels, width, height, 3).unwrap();
        DenseSample { image, labels: LabelMap { width, height, ids } }
    }

    #[test]
    fn labels_follow_their_image() {
        let sample = sample(40, 30);
        let (mut far, mut all, mut views) = (0, 0, Vec::new());
        for pass in 0..20 {
            let (image, labels) = random_view(&sample, 48, 7, pass, 3).unwrap();
            assert_eq!((image.dimensions(), labels.width, labels.height), ((48, 48), 48, 48));
            for (pixel, &id) in image.data().chunks_exact(3).zip(&labels.ids) {
                all += 1;
                far += usize::from((i32::from(pixel[0]) - 40 * i32::from(id)).abs() > 50);
            }
            views.push((image, labels));
        }
        // Colors change a little, and resizing blurs the borders between classes.
        assert!(far * 20 < all, "{far} of {all} pixels do not have the color of their class");
        let first = random_view(&sample, 48, 7, 0, 3).unwrap();
        assert_eq!((&first.0, &first.1), (&views[0].0, &views[0].1));
        assert!(views[1..].iter().all(|view| view.0 != views[0].0));
        assert!(random_view(&sample, 48, 7, 0, 4).unwrap().0 != first.0);
        assert!(random_view(&sample, 48, 8, 0, 3).unwrap().0 != first.0);
    }

    #[test]
    fn a_strip_and_a_single_pixel_have_views() {
        for (width, height) in [(1, 1), (40, 1), (1, 30)] {
            let (image, labels) = random_view(&sample(width, height), 16, 0, 1, 0).unwrap();
            assert_eq!((image.dimensions(), labels.ids.len()), ((16, 16), 256));
        }
    }
}
