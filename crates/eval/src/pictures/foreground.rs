//! Finds the patches of an image that show its object, by the first principal component of their
//! features.

use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::pca::Pca;

/// The patches of an image form two groups if the best threshold explains more than this fraction
/// of the variance of the first component. For a normal distribution, which is one group, it
/// explains 2/pi = 0.64.
const TWO_GROUPS: f64 = 0.66;
/// Minimum number of foreground patches of all images together, because the colors of fewer patches
/// would have no components. Below it, every patch counts as foreground.
const FEWEST: i64 = 4;

/// The foreground of images.
#[derive(Debug)]
pub(super) struct Foreground {
    /// Whether each patch of all images is foreground, `[n]` bool.
    pub mask: Tensor,
    /// Positions of images in which nothing stands out; all their patches are foreground.
    pub whole: Vec<usize>,
}

/// Finds the foreground of each image on its own. Otsu's threshold divides the patches along their
/// own first component, and the foreground is the part that is rarer at the border of the image
/// than elsewhere.
///
/// With a small network, a component of several images together often separates bright images from
/// dark ones, and then covers all of one image and nothing of the next.
pub(super) fn of_each(features: &Tensor, grid: (i64, i64)) -> Result<Foreground> {
    let patches = grid.0 * grid.1;
    let border = border(grid);
    let (mut mask, mut whole) = (Vec::new(), Vec::new());
    for (position, start) in (0..features.size()[0]).step_by(patches.max(1) as usize).enumerate() {
        match object(&features.narrow(0, start, patches), &border)? {
            Some(object) => mask.extend(object),
            None => {
                whole.push(position);
                mask.extend(vec![true; border.len()]);
            }
        }
    }
    if (mask.iter().filter(|&&inside| inside).count() as i64) < FEWEST {
        let whole = (0..mask.len() / border.len().max(1)).collect();
        return Ok(Foreground { mask: Tensor::from_slice(&vec![true; mask.len()]), whole });
    }
    Ok(Foreground { mask: Tensor::from_slice(&mask), whole })
}

/// Finds the foreground of all images with one component: the patches above `threshold` on the
/// scale [0, 1]. The sign of the component is chosen so that border patches are background on
/// average.
pub(super) fn of_all(features: &Tensor, grid: (i64, i64), threshold: f64) -> Result<Foreground> {
    let first = Pca::fit(features, 1)?.project(features); // [n, D] -> [n, 1]
    let patches = border(grid);
    let images = first.size()[0] as usize / patches.len().max(1);
    let border = Tensor::from_slice(&patches.repeat(images));
    let at_border = first.squeeze_dim(1).masked_select(&border).mean(Kind::Double);
    // Projections are centered, so their mean over all patches is 0.
    let first = if at_border.double_value(&[]) > 0.0 { -first } else { first };
    let mask = unit_range(&first, &first).squeeze_dim(1).gt(threshold);
    let found = mask.sum(Kind::Int64).int64_value(&[]);
    if found < FEWEST {
        return Ok(Foreground { mask: mask.ones_like(), whole: (0..images).collect() });
    }
    Ok(Foreground { mask, whole: Vec::new() })
}

/// Returns which patches of one image, `[N, D]`, show its object; `None` if they do not form two
/// groups.
fn object(features: &Tensor, border: &[bool]) -> Result<Option<Vec<bool>>> {
    if border.len() < 2 {
        return Ok(None);
    }
    let first = Pca::fit(features, 1)?.project(features).select(1, 0); // [N, D] -> [N]
    let first = values(&first)?;
    let Some(threshold) = otsu(&first) else { return Ok(None) };
    let above: Vec<bool> = first.iter().map(|&value| value > threshold).collect();
    let count = |wanted: fn(bool, bool) -> bool| {
        above.iter().zip(border).filter(|&(&above, &border)| wanted(above, border)).count()
    };
    let (inside, at_border) = (count(|above, _| above), count(|above, border| above && border));
    let (all, all_border) = (border.len(), count(|_, border| border));
    // Compares the shares of border and of all patches that are above the threshold, over a common
    // denominator.
    let (there, everywhere) = (at_border * all, inside * all_border);
    let is_object = there < everywhere || (there == everywhere && 2 * inside <= all);
    Ok(Some(above.into_iter().map(|above| above == is_object).collect()))
}

/// Returns the threshold with the largest variance between the values above and below it, if these
/// form two groups.
fn otsu(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (n, total) = (sorted.len() as f64, sorted.iter().sum::<f64>());
    let variance = sorted.iter().map(|value| (value - total / n).powi(2)).sum::<f64>() / n;
    let scale = sorted.iter().fold(0f64, |most, value| most.max(value.abs()));
    if variance.is_nan() || variance <= (1e-9 * scale).powi(2) {
        return None;
    }
    let (mut below, mut best) = (0.0, (0.0, None));
    for (i, pair) in sorted.windows(2).enumerate() {
        below += pair[0];
        let share = (i + 1) as f64 / n;
        let gap = below / (share * n) - (total - below) / ((1.0 - share) * n);
        let between = share * (1.0 - share) * gap * gap;
        if pair[0] < pair[1] && between > best.0 {
            best = (between, Some(f64::midpoint(pair[0], pair[1])));
        }
    }
    best.1.filter(|_| best.0 > TWO_GROUPS * variance)
}

/// Returns which patches are in the first or last row or column of an image.
pub(super) fn border((rows, cols): (i64, i64)) -> Vec<bool> {
    let on_edge = |i: i64| {
        let (row, col) = (i / cols, i % cols);
        row == 0 || row == rows - 1 || col == 0 || col == cols - 1
    };
    (0..rows * cols).map(on_edge).collect()
}

/// Scales the columns of `values` so that the same column of `reference` ranges from 0 to 1; if
/// that column is constant, the result is 0.5.
pub(super) fn unit_range(values: &Tensor, reference: &Tensor) -> Tensor {
    let low = reference.amin([0].as_slice(), true); // [m, k] -> [1, k]
    let range = reference.amax([0].as_slice(), true) - &low;
    let flat = range.le(1e-12);
    let scaled = (values - &low) / range.clamp_min(1e-12);
    scaled.where_self(&flat.logical_not(), &Tensor::from(0.5f64))
}

fn values(of: &Tensor) -> Result<Vec<f64>> {
    let of = of.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?.contiguous();
    let mut values = vec![0.0; of.numel()];
    of.f_copy_data(&mut values, of.numel())?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the patches of a 6 x 6 grid around `center`, whose inner 4 x 4 patches are far from
    /// the border patches.
    fn framed(center: f64, sign: f64) -> Tensor {
        let steps = Tensor::arange(36 * 5, (Kind::Double, Device::Cpu));
        let noise = (steps.square() * 0.37).sin().view([36, 5]);
        let inside = Tensor::from_slice(&border((6, 6))).logical_not();
        let inside = inside.to_kind(Kind::Double).unsqueeze(1);
        noise + inside * Tensor::from_slice(&[0.0, -8.0, 1.0, 0.0, 3.0]) * sign + center
    }

    fn mask_of(foreground: &Foreground) -> Vec<bool> {
        Vec::<bool>::try_from(&foreground.mask).unwrap()
    }

    #[test]
    fn objects_are_found_in_every_image_whatever_its_brightness_or_sign() {
        let inside: Vec<bool> = border((6, 6)).iter().map(|border| !border).collect();
        let images = [(0.0, 1.0), (50.0, -1.0), (-50.0, 1.0), (7.0, -1.0)];
        let features: Vec<Tensor> = images.iter().map(|&(c, s)| framed(c, s)).collect();
        let found = of_each(&Tensor::cat(&features, 0), (6, 6)).unwrap();
        assert_eq!(mask_of(&found), inside.repeat(images.len()));
        assert!(found.whole.is_empty());
    }

    #[test]
    fn an_object_that_touches_the_border_is_still_the_object() {
        // Columns 1 to 4 of 6, from top to bottom, are 24 of 36 patches, and 8 of 20 border
        // patches.
        let object: Vec<bool> = (0..36).map(|i| (1..5).contains(&(i % 6))).collect();
        let step: Vec<f64> = object.iter().map(|&object| f64::from(u8::from(object))).collect();
        let features = Tensor::from_slice(&step).unsqueeze(1) * Tensor::from_slice(&[4.0, -2.0]);
        assert_eq!(mask_of(&of_each(&features, (6, 6)).unwrap()), object);
    }

    #[test]
    fn one_group_of_patches_is_shown_whole() {
        // A bell-shaped distribution, a constant, and a single patch.
        let bell: Vec<f64> = (0..900)
            .map(|i| (f64::from(i * 7 % 900) + 0.5) / 900.0)
            .map(|p| (p / (1.0 - p)).ln())
            .collect();
        let bell = Tensor::from_slice(&bell).unsqueeze(1);
        let constant = Tensor::ones([900, 1], (Kind::Double, Device::Cpu)) * 0.1;
        let found = of_each(&Tensor::cat(&[bell, constant], 0), (30, 30)).unwrap();
        assert_eq!(found.whole, [0, 1]);
        assert!(mask_of(&found).iter().all(|&set| set));
        let single = of_each(&Tensor::ones([1, 3], (Kind::Double, Device::Cpu)), (1, 1)).unwrap();
        assert_eq!((mask_of(&single), single.whole), (vec![true], vec![0]));
    }

    #[test]
    fn an_object_of_one_patch_has_no_colors_and_all_is_shown() {
        let mut rows = vec![0.0; 36 * 3];
        rows[14 * 3] = 9.0;
        let one = Tensor::from_slice(&rows).view([36, 3]);
        let found = of_each(&one, (6, 6)).unwrap();
        assert_eq!((mask_of(&found), found.whole), (vec![true; 36], vec![0]));
        let several = of_each(&one.repeat([4, 1]), (6, 6)).unwrap();
        assert_eq!(mask_of(&several).iter().filter(|&&inside| inside).count(), 4);
    }

    #[test]
    fn a_threshold_applies_to_all_images_together() {
        let inside: Vec<bool> = border((6, 6)).iter().map(|border| !border).collect();
        for sign in [1.0, -1.0] {
            let features = Tensor::cat(&[framed(0.0, sign), framed(0.0, sign)], 0);
            let found = of_all(&features, (6, 6), 0.5).unwrap();
            assert_eq!(mask_of(&found), inside.repeat(2));
        }
        let flat = Tensor::ones([16, 2], (Kind::Double, Device::Cpu));
        assert_eq!(of_all(&flat, (4, 4), 0.9).unwrap().whole, [0]);
    }

    #[test]
    fn two_groups_are_divided_in_the_middle() {
        assert_eq!(otsu(&[0.0, 10.0, 1.0, 11.0]), Some(5.5));
        assert_eq!(otsu(&[3.0; 4]), None);
        assert_eq!(otsu(&[f64::NAN, 1.0]), None);
        assert_eq!(otsu(&[]), None);
    }
}
