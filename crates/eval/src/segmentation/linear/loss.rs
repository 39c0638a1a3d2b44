//! The loss of a segmentation head: cross-entropy of logits that are upsampled to the size of the
//! labels.

use std::f32::consts::{LN_2, LOG2_E};

use data::dense::IGNORE;
use rayon::prelude::*;
use simd::pulp::{Arch, Simd, WithSimd};
use tch::{Device, Kind, Reduction, Tensor};

use crate::error::Result;

/// Number of pixels that are processed at once.
const LANES: usize = 16;
/// A value of each of these pixels.
type Lanes = [f32; LANES];

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
        rows: runs(&between(small[2] as usize, size[1] as usize)),
        columns: runs(&between(small[3] as usize, size[2] as usize)),
        pixels: size[2] as usize,
        width: small[3] as usize,
        classes,
    };
    let last = logits.f_detach()?.f_permute([0, 2, 3, 1])?; // [B, K, h, w] -> [B, h, w, K]
    let maps = Vec::<f32>::try_from(last.f_contiguous()?.f_view(-1)?)?;
    let pixels = Vec::<u8>::try_from(labels.f_contiguous()?.f_view(-1)?)?;
    if pixels.iter().any(|&label| label != IGNORE && usize::from(label) >= classes) {
        return by_operators(logits, labels); // which says what is wrong
    }
    let images = maps
        .par_chunks_exact((small[2] * small[3]) as usize * classes)
        .zip(pixels.par_chunks_exact((size[1] * size[2]) as usize));
    let sizes = &sizes;
    let loss = |(map, labels)| Arch::new().dispatch(OfImage { sizes, map, labels });
    let results: Vec<(f64, Vec<f32>)> = images.map(loss).collect();
    let sum = results.iter().map(|(sum, _)| sum).sum();
    let gradients: Vec<f32> = results.into_iter().flat_map(|(_, gradient)| gradient).collect();
    let gradient = Tensor::f_from_slice(&gradients)?.f_view([small[0], small[2], small[3], -1])?;
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

/// Consecutive pixels of a side that are interpolated between the same two patches.
struct Run {
    /// Index of the first pixel.
    start: usize,
    /// Number of pixels, at most [`LANES`].
    len: usize,
    /// The two patches.
    patches: [usize; 2],
    /// Shares of the patches in each pixel; those of the lanes without a pixel are 0.
    shares: [Lanes; 2],
}

/// Splits the pixels of a side into runs.
fn runs(side: &[Between]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (start, at) in side.iter().enumerate() {
        let patches = [at.first, at.second];
        let fits = |run: &Run| run.patches == patches && run.len < LANES;
        if !runs.last().is_some_and(fits) {
            runs.push(Run { start, len: 0, patches, shares: [[0.0; LANES]; 2] });
        }
        if let Some(run) = runs.last_mut() {
            [run.shares[0][run.len], run.shares[1][run.len]] = [1.0 - at.share, at.share];
            run.len += 1;
        }
    }
    runs
}

/// What all images share.
struct Sizes {
    rows: Vec<Run>,
    columns: Vec<Run>,
    /// Number of pixels in a row.
    pixels: usize,
    /// Number of patches in a row.
    width: usize,
    classes: usize,
}

/// The arguments of [`of_image`].
struct OfImage<'a> {
    sizes: &'a Sizes,
    map: &'a [f32],
    labels: &'a [u8],
}

impl WithSimd for OfImage<'_> {
    type Output = (f64, Vec<f32>);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        of_image(simd, self.sizes, self.map, self.labels)
    }
}

/// Computes the sum of the loss over the pixels of an image, and its gradient `[h, w, K]`.
///
/// - `map`: logits `[h, w, K]`
/// - `labels`: `[H, W]`
#[inline(always)]
fn of_image<S: Simd>(simd: S, sizes: &Sizes, map: &[f32], labels: &[u8]) -> (f64, Vec<f32>) {
    let mut gradient = vec![0.0; map.len()];
    let mut block = Block::new(sizes.classes);
    for rows in &sizes.rows {
        for columns in &sizes.columns {
            let patch = |row: usize, column: usize| (row * sizes.width + column) * sizes.classes;
            let [top, bottom] = rows.patches;
            let [left, right] = columns.patches;
            let corners =
                [patch(top, left), patch(top, right), patch(bottom, left), patch(bottom, right)];
            block.begin();
            for row in 0..rows.len {
                let start = (rows.start + row) * sizes.pixels + columns.start;
                let labels = &labels[start..start + columns.len];
                let shares = [rows.shares[0][row], rows.shares[1][row]];
                block.add(simd, (columns, labels), shares, corners.map(|at| &map[at..]));
            }
            block.finish(simd, columns, corners, &mut gradient);
        }
    }
    (block.loss + block.product.ln(), gradient)
}

/// The pixels between four patches, and the loss of all pixels so far.
struct Block {
    /// Logits of a row of pixels, then their exponentials, `[K, LANES]`.
    values: Vec<f32>,
    /// Gradient with respect to the logits, summed over the rows, `[K, LANES]`.
    all: Vec<f32>,
    /// The same, weighted by the share of the lower patches.
    lower: Vec<f32>,
    /// The loss except for the logarithm of `product`. Logarithms are slow.
    loss: f64,
    product: f64,
}

impl Block {
    fn new(classes: usize) -> Self {
        let zeros = || vec![0.0; classes * LANES];
        Self { values: zeros(), all: zeros(), lower: zeros(), loss: 0.0, product: 1.0 }
    }

    #[inline(always)]
    fn begin(&mut self) {
        self.all.fill(0.0);
        self.lower.fill(0.0);
    }

    /// Adds the loss and the gradients of a row of pixels. `shares` are those of the upper and the
    /// lower patches, and `corners` the logits of the patches, row by row.
    #[inline(always)]
    fn add<S: Simd>(
        &mut self,
        simd: S,
        (columns, labels): (&Run, &[u8]),
        shares: [f32; 2],
        corners: [&[f32]; 4],
    ) {
        let counted = || labels.iter().enumerate().filter(|(_, label)| **label != IGNORE);
        if counted().next().is_none() {
            return;
        }
        let most = interpolate(simd, &mut self.values, &columns.shares, shares, corners);
        for (lane, &label) in counted() {
            self.loss += f64::from(most[lane] - self.values[usize::from(label) * LANES + lane]);
        }
        let sums = exponentials(simd, &mut self.values, &most);
        let mut scale = [0.0; LANES];
        for (lane, &label) in counted() {
            scale[lane] = 1.0 / sums[lane];
            self.product *= f64::from(sums[lane]);
            self.all[usize::from(label) * LANES + lane] -= 1.0;
            self.lower[usize::from(label) * LANES + lane] -= shares[1];
        }
        if !(1e-200..1e200).contains(&self.product) {
            self.loss += self.product.ln();
            self.product = 1.0;
        }
        let (scale, share) = (S::as_simd_f32s(&scale).0, simd.splat_f32s(shares[1]));
        let (all, lower) =
            (S::as_mut_simd_f32s(&mut self.all).0, S::as_mut_simd_f32s(&mut self.lower).0);
        let gradients = S::as_simd_f32s(&self.values).0.iter().zip(scale.iter().cycle());
        for ((value, scale), (all, lower)) in gradients.zip(all.iter_mut().zip(lower)) {
            let gradient = simd.mul_f32s(*value, *scale);
            *all = simd.add_f32s(*all, gradient);
            *lower = simd.mul_add_e_f32s(gradient, share, *lower);
        }
    }

    /// Adds the gradients of the pixels to those of the four patches.
    #[inline(always)]
    fn finish<S: Simd>(&self, simd: S, columns: &Run, corners: [usize; 4], gradient: &mut [f32]) {
        let [left, right] = [0, 1].map(|side| S::as_simd_f32s(&columns.shares[side]).0);
        let per_class = left.len();
        let [all, lower] = [&self.all, &self.lower].map(|sums| S::as_simd_f32s(sums).0);
        let classes = all.chunks_exact(per_class).zip(lower.chunks_exact(per_class));
        for (class, (all, lower)) in classes.enumerate() {
            let mut parts = [simd.splat_f32s(0.0); 4];
            for i in 0..per_class {
                let upper = simd.sub_f32s(all[i], lower[i]);
                parts[0] = simd.mul_add_e_f32s(left[i], upper, parts[0]);
                parts[1] = simd.mul_add_e_f32s(right[i], upper, parts[1]);
                parts[2] = simd.mul_add_e_f32s(left[i], lower[i], parts[2]);
                parts[3] = simd.mul_add_e_f32s(right[i], lower[i], parts[3]);
            }
            for part in 0..4 {
                gradient[corners[part] + class] += simd.reduce_sum_f32s(parts[part]);
            }
        }
    }
}

/// Sets `values` to the logits of a row of pixels, `[K, LANES]`, and returns the largest logit of
/// each pixel.
#[inline(always)]
fn interpolate<S: Simd>(
    simd: S,
    values: &mut [f32],
    columns: &[Lanes; 2],
    [upper, lower]: [f32; 2],
    corners: [&[f32]; 4],
) -> Lanes {
    let mut most = [f32::NEG_INFINITY; LANES];
    let largest = S::as_mut_simd_f32s(&mut most).0;
    let [before, after] = [0, 1].map(|side| S::as_simd_f32s(&columns[side]).0);
    let corners = corners.map(|corner| &corner[..values.len() / LANES]);
    let classes = S::as_mut_simd_f32s(values).0.chunks_exact_mut(before.len());
    for (class, values) in classes.enumerate() {
        let left = simd.splat_f32s(upper * corners[0][class] + lower * corners[2][class]);
        let right = simd.splat_f32s(upper * corners[1][class] + lower * corners[3][class]);
        for i in 0..before.len() {
            let value = simd.mul_add_e_f32s(after[i], right, simd.mul_f32s(before[i], left));
            largest[i] = simd.max_f32s(largest[i], value);
            values[i] = value;
        }
    }
    most
}

/// Added to a number, it moves the integer part into the lowest bits.
const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23
/// Coefficients of 2^x on [-0.5, 0.5], from the highest (Cephes, exp2f).
const POWERS: [f32; 7] =
    [1.535_336_2e-4, 1.339_887_4e-3, 9.618_437e-3, 5.550_332_5e-2, 0.240_226_48, LN_2, 1.0];

/// Replaces each of `values`, `[K, LANES]`, by `exp(value - most)`, and returns the sums over all
/// classes. Values that are not finite stay so. The relative error is below 1e-5.
#[inline(always)]
fn exponentials<S: Simd>(simd: S, values: &mut [f32], most: &Lanes) -> Lanes {
    let mut sums = [0.0; LANES];
    let (most, total) = (S::as_simd_f32s(most).0, S::as_mut_simd_f32s(&mut sums).0);
    let [log2_e, least, round] = [LOG2_E, -126.0, ROUND].map(|x| simd.splat_f32s(x));
    let bias = simd.splat_u32s(127_u32.wrapping_sub(ROUND.to_bits()));
    let bits = simd.splat_u32s(23);
    for values in S::as_mut_simd_f32s(values).0.chunks_exact_mut(most.len()) {
        for i in 0..most.len() {
            let x = simd.mul_f32s(simd.sub_f32s(values[i], most[i]), log2_e);
            // In this order, what is not a number stays so.
            let x = simd.max_f32s(least, x);
            let shifted = simd.add_f32s(x, round);
            let fraction = simd.sub_f32s(x, simd.sub_f32s(shifted, round));
            let mut power = simd.splat_f32s(POWERS[0]);
            for coefficient in &POWERS[1..] {
                power = simd.mul_add_e_f32s(power, fraction, simd.splat_f32s(*coefficient));
            }
            let exponent = simd.add_u32s(simd.transmute_u32s_f32s(shifted), bias);
            let exponent = simd.wrapping_dyn_shl_u32s(exponent, bits);
            values[i] = simd.mul_f32s(power, simd.transmute_f32s_u32s(exponent));
            total[i] = simd.add_f32s(total[i], values[i]);
        }
    }
    sums
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
