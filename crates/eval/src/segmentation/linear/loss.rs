//! The loss of a segmentation head: cross-entropy of logits that are upsampled to the size of the
//! labels.

use std::f32::consts::{LN_2, LOG2_E};

use data::dense::IGNORE;
use rayon::prelude::*;
use tch::{Device, Kind, Reduction, Tensor};

use crate::error::Result;

/// Number of classes that are processed at once.
const LANES: usize = 16;
/// Logit of the classes that pad the last group of [`LANES`], whose probability is 0.
const NO_CLASS: f32 = -1e30;

/// Computes the mean cross-entropy of `logits` `[B, K, h, w]`, upsampled to the size of `labels`
/// `[B, H, W]` (uint8), over the pixels that are not ignored, and its gradient with respect to the
/// logits. The upsampling is bilinear with `align_corners=False`, as in
/// `torch.nn.functional.interpolate`.
///
/// The upsampled logits of a batch are hundreds of megabytes, so they are never stored as a whole.
pub(super) fn loss_and_gradient(logits: &Tensor, labels: &Tensor) -> Result<(f64, Tensor)> {
    let pixels = labels.f_ne(i64::from(IGNORE))?.f_sum(Kind::Int64)?.f_to_kind(Kind::Double)?;
    let on_cpu = logits.device() == Device::Cpu && logits.kind() == Kind::Float;
    let (sum, gradient) =
        if on_cpu { by_pixels(logits, labels)? } else { by_operators(logits, labels)? };
    let gradient = gradient.f_div(&pixels)?.f_to_kind(logits.kind())?;
    Ok((sum / f64::try_from(pixels)?, gradient))
}

/// Computes the sum of the loss over all pixels, and its gradient, with operators of libtorch,
/// image by image. Bilinear interpolation is a matrix product along each side.
fn by_operators(logits: &Tensor, labels: &Tensor) -> Result<(f64, Tensor)> {
    let (small, size) = (logits.size(), labels.size());
    let [rows, columns] =
        [(small[2], size[1]), (small[3], size[2])].map(|(from, to)| enlarging(from, to, logits));
    let (rows, columns) = (rows?.f_tr()?, columns?);
    let leaf = logits.f_detach()?.set_requires_grad(true);
    let mut sum = Tensor::zeros([], (Kind::Double, logits.device()));
    for image in 0..small[0] {
        let enlarged = rows.f_matmul(&leaf.f_get(image)?.f_matmul(&columns)?)?; // [K, H, W]
        let target = labels.f_get(image)?.f_unsqueeze(0)?.f_to_kind(Kind::Int64)?;
        let loss = enlarged.f_unsqueeze(0)?.f_cross_entropy_loss(
            &target,
            None::<&Tensor>,
            Reduction::Sum,
            i64::from(IGNORE),
            0.0,
        )?;
        loss.f_backward()?;
        sum += loss.f_detach()?;
    }
    Ok((f64::try_from(sum)?, leaf.grad()))
}

/// Returns the matrix `[from, to]` that interpolates linearly from `from` to `to` values.
fn enlarging(from: i64, to: i64, like: &Tensor) -> Result<Tensor> {
    let each = Tensor::f_eye(from, (like.kind(), like.device()))?.f_view([1, from, from, 1])?;
    Ok(each.f_upsample_bilinear2d([to, 1], false, None, None)?.f_view([from, to])?)
}

/// Computes the same as [`by_operators`] for fp32 on the CPU, pixel by pixel.
fn by_pixels(logits: &Tensor, labels: &Tensor) -> Result<(f64, Tensor)> {
    let (small, size) = (logits.size(), labels.size());
    let classes = small[1] as usize;
    let sizes = Sizes {
        rows: between(small[2] as usize, size[1] as usize),
        columns: between(small[3] as usize, size[2] as usize),
        width: small[3] as usize,
        classes: classes.next_multiple_of(LANES),
    };
    let padding = (sizes.classes - classes) as i64;
    let last = logits.f_detach()?.f_permute([0, 2, 3, 1])?; // [B, K, h, w] -> [B, h, w, K]
    let padded = last.f_pad([0, padding], "constant", f64::from(NO_CLASS))?;
    let maps = Vec::<f32>::try_from(padded.f_contiguous()?.f_view(-1)?)?;
    let pixels = Vec::<u8>::try_from(labels.f_contiguous()?.f_view(-1)?)?;
    if pixels.iter().any(|&label| label != IGNORE && usize::from(label) >= classes) {
        return by_operators(logits, labels); // which says what is wrong
    }
    let images = maps
        .par_chunks_exact((small[2] * small[3]) as usize * sizes.classes)
        .zip(pixels.par_chunks_exact((size[1] * size[2]) as usize));
    let loss = |(map, labels)| {
        simd::dispatch(
            #[inline(always)]
            || of_image(&sizes, map, labels),
        )
    };
    let results: Vec<(f64, Vec<f32>)> = images.map(loss).collect();
    let sum = results.iter().map(|(sum, _)| sum).sum();
    let gradients: Vec<f32> = results.into_iter().flat_map(|(_, gradient)| gradient).collect();
    let shape = [small[0], small[2], small[3], sizes.classes as i64];
    let gradient = Tensor::f_from_slice(&gradients)?.f_view(shape)?.f_narrow(3, 0, small[1])?;
    Ok((sum, gradient.f_permute([0, 3, 1, 2])?))
}

/// A value of an upsampled side: `(1 - share)` of the value at `first` plus `share` of the one at
/// `second`.
struct Between {
    first: usize,
    second: usize,
    share: f32,
}

/// Returns how `from` values are interpolated to `to` values.
fn between(from: usize, to: usize) -> Vec<Between> {
    let scale = from as f32 / to as f32;
    let value = |i| {
        let place = (scale * (i as f32 + 0.5) - 0.5).max(0.0);
        let first = (place as usize).min(from - 1);
        Between { first, second: (first + 1).min(from - 1), share: place - first as f32 }
    };
    (0..to).map(value).collect()
}

/// What all images share. `classes` is a multiple of [`LANES`].
struct Sizes {
    rows: Vec<Between>,
    columns: Vec<Between>,
    width: usize,
    classes: usize,
}

/// Computes the sum of the loss over the pixels of an image, and its gradient `[h, w, classes]`.
///
/// - `map`: logits `[h, w, classes]`
/// - `labels`: `[H, W]`
#[inline(always)]
fn of_image(sizes: &Sizes, map: &[f32], labels: &[u8]) -> (f64, Vec<f32>) {
    let length = sizes.width * sizes.classes;
    let mut gradient = vec![0.0; map.len()];
    let mut row = Row::new(sizes);
    for (labels, at) in labels.chunks_exact(sizes.columns.len()).zip(&sizes.rows) {
        let [first, second] = [at.first, at.second].map(|i| i * length..(i + 1) * length);
        mix(&mut row.logits, &map[first.clone()], &map[second.clone()], at.share);
        row.add(sizes, labels);
        add(&mut row.gradient, &row.truth, -1.0);
        add(&mut gradient[first], &row.gradient, 1.0 - at.share);
        add(&mut gradient[second], &row.gradient, at.share);
    }
    (row.loss + row.product.ln(), gradient)
}

/// A row of an upsampled image, before it is upsampled along the row.
struct Row {
    logits: Vec<f32>,   // [w, classes]
    gradient: Vec<f32>, // [w, classes], the part from the probabilities
    truth: Vec<f32>,    // [w, classes], the part from the labels
    pixel: Vec<f32>,    // [classes]
    /// Loss of all rows so far, except for the logarithm of `product`. Logarithms are slow.
    loss: f64,
    product: f64,
}

impl Row {
    fn new(sizes: &Sizes) -> Self {
        let zeros = || vec![0.0; sizes.width * sizes.classes];
        let (logits, gradient, truth) = (zeros(), zeros(), zeros());
        let pixel = vec![0.0; sizes.classes];
        Self { logits, gradient, truth, pixel, loss: 0.0, product: 1.0 }
    }

    /// Adds the loss of a row of pixels, and sets the gradients of the row.
    #[inline(always)]
    fn add(&mut self, sizes: &Sizes, labels: &[u8]) {
        let classes = sizes.classes;
        self.gradient.fill(0.0);
        self.truth.fill(0.0);
        for (&label, at) in labels.iter().zip(&sizes.columns) {
            if label == IGNORE {
                continue;
            }
            let [first, second] = [at.first, at.second].map(|i| i * classes..(i + 1) * classes);
            let most = mix(
                &mut self.pixel,
                &self.logits[first.clone()],
                &self.logits[second.clone()],
                at.share,
            );
            let label = usize::from(label);
            let own = self.pixel[label];
            let sum = exponentials(&mut self.pixel, most);
            self.loss += f64::from(most - own);
            self.product *= f64::from(sum);
            if !(1e-200..1e200).contains(&self.product) {
                self.loss += self.product.ln();
                self.product = 1.0;
            }
            self.truth[first.start + label] += 1.0 - at.share;
            self.truth[second.start + label] += at.share;
            add(&mut self.gradient[first], &self.pixel, (1.0 - at.share) / sum);
            add(&mut self.gradient[second], &self.pixel, at.share / sum);
        }
    }
}

/// Sets `out` to `(1 - share) * first + share * second`, and returns the largest value. All lengths
/// are equal multiples of [`LANES`].
#[inline(always)]
fn mix(out: &mut [f32], first: &[f32], second: &[f32], share: f32) -> f32 {
    let mut most = [NO_CLASS; LANES];
    let inputs = lanes(first).iter().zip(lanes(second));
    for (out, (first, second)) in lanes_mut(out).iter_mut().zip(inputs) {
        let (first, second, mut mixed) = (*first, *second, [0.0; LANES]);
        for i in 0..LANES {
            mixed[i] = (1.0 - share) * first[i] + share * second[i];
            most[i] = if most[i] > mixed[i] { most[i] } else { mixed[i] };
        }
        *out = mixed;
    }
    reduce(most, |a, b| if a > b { a } else { b })
}

/// Returns the values in arrays, whose fixed length lets the compiler use vectors.
#[inline(always)]
fn lanes(values: &[f32]) -> &[[f32; LANES]] {
    values.as_chunks().0
}

#[inline(always)]
fn lanes_mut(values: &mut [f32]) -> &mut [[f32; LANES]] {
    values.as_chunks_mut().0
}

/// Combines all lanes in halves, which needs four operations on vectors.
#[inline(always)]
fn reduce(mut lanes: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = combine(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// Adds `factor * values` to `to`. Both lengths are equal multiples of [`LANES`].
#[inline(always)]
fn add(to: &mut [f32], values: &[f32], factor: f32) {
    for (to, values) in lanes_mut(to).iter_mut().zip(lanes(values)) {
        let (values, mut sum) = (*values, *to);
        for i in 0..LANES {
            sum[i] += factor * values[i];
        }
        *to = sum;
    }
}

/// Replaces each value by `exp(value - most)`, and returns the sum. Values that are not finite stay
/// so. The relative error is below 1e-5.
#[inline(always)]
fn exponentials(values: &mut [f32], most: f32) -> f32 {
    /// Added to a number, it moves the integer part into the lowest bits.
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23
    /// Coefficients of 2^x on [-0.5, 0.5], from the highest (Cephes, exp2f).
    const POWERS: [f32; 6] =
        [1.535_336_2e-4, 1.339_887_4e-3, 9.618_437e-3, 5.550_332_5e-2, 0.240_226_48, LN_2];
    let mut sums = [0.0; LANES];
    for values in lanes_mut(values) {
        for i in 0..LANES {
            let x = (values[i] - most) * LOG2_E;
            let x = if x < -126.0 { -126.0 } else { x };
            let shifted = x + ROUND;
            let fraction = x - (shifted - ROUND);
            let power = POWERS.iter().fold(0.0, |sum, power| (sum + power) * fraction) + 1.0;
            let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
            values[i] = power * f32::from_bits(exponent << 23);
            sums[i] += values[i];
        }
    }
    reduce(sums, |a, b| a + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits `[B, K, h, w]`, and labels `[B, H, W]` of which a tenth is ignored.
    fn batch(shape: [i64; 4], size: [i64; 2]) -> (Tensor, Tensor) {
        tch::manual_seed(shape[1]);
        let logits = Tensor::randn(shape, (Kind::Float, Device::Cpu)) * 5;
        let options = (Kind::Uint8, Device::Cpu);
        let labels = Tensor::randint(shape[1], [shape[0], size[0], size[1]], options);
        let ignored = Tensor::rand_like(&labels.to_kind(Kind::Float)).lt(0.1);
        (logits, labels.masked_fill(&ignored, i64::from(IGNORE)))
    }

    #[test]
    fn both_ways_agree() {
        for (shape, size) in [
            ([2, 3, 4, 5], [64, 80]),
            ([1, 16, 7, 3], [7, 3]),
            ([3, 21, 6, 6], [50, 37]),
            ([1, 150, 1, 4], [9, 30]),
            ([2, 2, 9, 8], [5, 4]),
        ] {
            let (logits, labels) = batch(shape, size);
            let (loss, gradient) = by_pixels(&logits, &labels).unwrap();
            let (expected, exact) = by_operators(&logits.to_kind(Kind::Double), &labels).unwrap();
            assert!((loss / expected - 1.0).abs() < 1e-5, "{shape:?}: {loss}, {expected}");
            assert_eq!(gradient.size(), shape);
            let error = (gradient.to_kind(Kind::Double) - &exact).abs().max() / exact.abs().max();
            assert!(error.double_value(&[]) < 1e-5, "{shape:?}: {error}");
        }
    }

    #[test]
    fn a_logit_that_is_not_finite_reaches_the_loss() {
        for bad in [f64::NAN, f64::INFINITY] {
            let (logits, labels) = batch([1, 4, 3, 3], [12, 12]);
            let _ = logits.get(0).get(1).get(1).get(1).fill_(bad);
            assert!(!loss_and_gradient(&logits, &labels).unwrap().0.is_finite(), "{bad}");
        }
    }
}
