//! The two Gaussian blurs of the published recipes.
//!
//! [`pillow`] approximates the Gaussian by three extended box filters along each axis, with the
//! edge pixel repeated; [`kernel9`] is a plain 9-tap kernel with the edge mirrored.
//!
//! # Source
//! Pillow's `GaussianBlur` (Gwosdek et al., "Theoretical foundations of Gaussian convolution by
//! extended box filtering", equations 7, 11 and 14); `gaussian_blur` of torchvision.

use std::cell::RefCell;

use super::planes::Planes;

/// Box filters along each axis.
const PASSES: usize = 3;
/// Taps on each side of the 9-tap kernel's middle, and values beside a line in memory.
const REACH: usize = 4;
/// Fractional bits of weights.
const WEIGHT_BITS: u32 = 14;
/// Fractional bits between the two passes of the 9-tap kernel.
const MIDDLE_BITS: u32 = 6;

/// What one thread reuses from blur to blur. Values are widened to 16 bits once: the filters then
/// work in 16-bit lanes from the first pass to the last.
#[derive(Default)]
struct Scratch {
    /// Two lines, each with [`REACH`] values more at both ends.
    lines: [Vec<i16>; 2],
    planes: [Vec<i16>; 2],
    sums: Vec<u32>,
}

impl Scratch {
    fn resize(&mut self, width: usize, height: usize) {
        self.lines.iter_mut().for_each(|line| line.resize(width + 2 * REACH, 0));
        self.planes.iter_mut().for_each(|plane| plane.resize(width * height, 0));
        self.sums.resize(width, 0);
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// A box of 2 `radius` + 1 pixels and a share of one more pixel at both ends.
#[derive(Debug, Clone, Copy, PartialEq)]
struct ExtendedBox {
    radius: usize,
    /// Weight of each whole pixel, of 1.
    whole: f64,
    /// Weight of each of the two end pixels.
    end: f64,
}

impl ExtendedBox {
    /// The box whose [`PASSES`]-fold repetition has the standard deviation `sigma`.
    fn new(sigma: f64) -> Self {
        let variance = sigma * sigma / PASSES as f64;
        let length = (12.0 * variance + 1.0).sqrt();
        let radius = ((length - 1.0) / 2.0).floor();
        let next = (radius + 1.0) * (radius + 1.0);
        let fraction = (2.0 * radius + 1.0) * (radius * (radius + 1.0) - 3.0 * variance)
            / (6.0 * (variance - next));
        let whole = 1.0 / (2.0 * (radius + fraction) + 1.0);
        let end = (1.0 - (2.0 * radius + 1.0) * whole) / 2.0;
        Self { radius: radius as usize, whole, end }
    }

    /// Weights (whole, end) with `bits` fractional bits.
    fn fixed(&self, bits: u32) -> (u32, u32) {
        let one = f64::from(1_u32 << bits);
        ((self.whole * one).round() as u32, (self.end * one).round() as u32)
    }

    fn short_weights(&self) -> (i16, i16) {
        let (whole, end) = self.fixed(WEIGHT_BITS);
        (whole as i16, end as i16)
    }
}

/// Pillow's Gaussian blur with standard deviation `sigma` in pixels, in place.
pub fn pillow(planes: &mut Planes, sigma: f64) {
    let kernel = ExtendedBox::new(sigma);
    let (width, height) = (planes.width(), planes.height());
    if width == 0 || height == 0 {
        return;
    }
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(width, height);
        let Scratch { lines: [line, other], planes: [middle, spare], sums } = scratch;
        for plane in planes.channels_mut() {
            for (row, out) in plane.chunks_exact(width).zip(middle.chunks_exact_mut(width)) {
                widen(row, &mut line[REACH..REACH + width]);
                repeat_edges(line);
                box_line(line, &mut other[REACH..REACH + width], &kernel);
                repeat_edges(other);
                box_line(other, &mut line[REACH..REACH + width], &kernel);
                repeat_edges(line);
                box_line(line, out, &kernel);
            }
            box_columns(middle, spare, &kernel, sums);
            box_columns(spare, middle, &kernel, sums);
            box_columns(middle, spare, &kernel, sums);
            narrow(spare, plane);
        }
    });
}

fn widen(from: &[u8], to: &mut [i16]) {
    from.iter().zip(to).for_each(|(&v, out)| *out = i16::from(v));
}

fn narrow(from: &[i16], to: &mut [u8]) {
    from.iter().zip(to).for_each(|(&v, out)| *out = v as u8);
}

/// Writes the first and the last value of a line into the places beside it.
fn repeat_edges(line: &mut [i16]) {
    let end = line.len() - REACH;
    let (first, last) = (line[REACH], line[end - 1]);
    line[..REACH].fill(first);
    line[end..].fill(last);
}

/// One box filter along a line with its edges repeated. Boxes of 1 and 3 pixels, which a sigma of
/// up to 2.4 needs, are plain sums without a running total, so that they vectorise.
fn box_line(line: &[i16], out: &mut [i16], kernel: &ExtendedBox) {
    let n = out.len();
    let shifted: [&[i16]; 5] = std::array::from_fn(|i| &line[REACH - 2 + i..REACH - 2 + i + n]);
    match kernel.radius {
        0 => weigh::<0>(shifted, out, kernel.short_weights()),
        1 => weigh::<1>(shifted, out, kernel.short_weights()),
        _ => long_line(shifted[2], out, kernel),
    }
}

/// A product of 16-bit factors, for which there are SIMD instructions.
#[inline(always)]
fn product(a: i16, b: i16) -> i32 {
    i32::from(a) * i32::from(b)
}

/// The nearest integer to a number with `BITS` fractional bits.
#[inline(always)]
fn rounded<const BITS: u32>(sum: i32) -> i16 {
    (sum.wrapping_add(1 << (BITS - 1)) >> BITS) as i16
}

/// A box of 1 (`RADIUS` 0) or 3 (`RADIUS` 1) values around the middle one of `rows` and the ends
/// beside it. The rows are neighbours in either direction: shifted lines or lines of an image.
///
/// Values are at most 255, so nothing overflows; the sums wrap all the same, here and in
/// [`weigh_nine`], because a check for overflow would keep the loop from vectorising.
fn weigh<const RADIUS: usize>(rows: [&[i16]; 5], out: &mut [i16], weights: (i16, i16)) {
    let n = out.len();
    let [far_before, before, middle, after, far_after] = rows.map(|row| &row[..n]);
    for i in 0..n {
        let beside = before[i].wrapping_add(after[i]);
        let (whole, ends) = if RADIUS == 0 {
            (middle[i], beside)
        } else {
            (middle[i].wrapping_add(beside), far_before[i].wrapping_add(far_after[i]))
        };
        let sum = product(whole, weights.0).wrapping_add(product(ends, weights.1));
        out[i] = rounded::<WEIGHT_BITS>(sum);
    }
}

/// Any radius, with a running sum.
fn long_line(from: &[i16], to: &mut [i16], kernel: &ExtendedBox) {
    let weights = kernel.fixed(24);
    let radius = kernel.radius as isize;
    let last = from.len() as isize - 1;
    let at = |x: isize| from[x.clamp(0, last) as usize] as u32;
    let mut sum: u32 = (-radius - 1..radius).map(at).sum();
    for (x, out) in to.iter_mut().enumerate() {
        let x = x as isize;
        sum = sum + at(x + radius) - at(x - radius - 1);
        *out = long_weigh(sum, at(x - radius - 1) + at(x + radius + 1), weights);
    }
}

#[inline(always)]
fn long_weigh(whole: u32, ends: u32, weights: (u32, u32)) -> i16 {
    let sum = whole.wrapping_mul(weights.0).wrapping_add(ends.wrapping_mul(weights.1));
    (sum.wrapping_add(1 << 23) >> 24) as i16
}

/// One box filter along the columns of a plane with rows of `sums.len()` values, row by row.
fn box_columns(from: &[i16], to: &mut [i16], kernel: &ExtendedBox, sums: &mut [u32]) {
    let width = sums.len();
    if kernel.radius > 1 {
        return long_columns(from, to, kernel, sums);
    }
    for (y, out) in to.chunks_exact_mut(width).enumerate() {
        let rows = std::array::from_fn(|i| row_at(from, width, (y + i) as isize - 2));
        if kernel.radius == 0 {
            weigh::<0>(rows, out, kernel.short_weights());
        } else {
            weigh::<1>(rows, out, kernel.short_weights());
        }
    }
}

/// Row `y` of a plane; rows beyond an edge are the edge's.
fn row_at(plane: &[i16], width: usize, y: isize) -> &[i16] {
    let last = (plane.len() / width) as isize - 1;
    let start = y.clamp(0, last) as usize * width;
    &plane[start..start + width]
}

/// Any radius, with a running sum for each column.
fn long_columns(from: &[i16], to: &mut [i16], kernel: &ExtendedBox, sums: &mut [u32]) {
    let (width, radius) = (sums.len(), kernel.radius as isize);
    let weights = kernel.fixed(24);
    sums.fill(0);
    for y in -radius - 1..radius {
        for (sum, &v) in sums.iter_mut().zip(row_at(from, width, y)) {
            *sum += v as u32;
        }
    }
    for (y, out) in to.chunks_exact_mut(width).enumerate() {
        let row = |offset: isize| row_at(from, width, y as isize + offset);
        let (gone, come, next) = (row(-radius - 1), row(radius), row(radius + 1));
        for ((((out, sum), &gone), &come), &next) in
            out.iter_mut().zip(sums.iter_mut()).zip(gone).zip(come).zip(next)
        {
            *sum = sum.wrapping_add(come as u32).wrapping_sub(gone as u32);
            *out = long_weigh(*sum, gone.wrapping_add(next) as u32, weights);
        }
    }
}

/// torchvision's Gaussian blur with 9 taps and standard deviation `sigma` in pixels, in place.
///
/// # Deviations
/// Fixed point instead of 32-bit floats: about one value in fifty differs by one level. Images
/// with a side below 5 pixels, which torchvision refuses, are mirrored more than once.
pub fn kernel9(planes: &mut Planes, sigma: f64) {
    let (width, height) = (planes.width(), planes.height());
    if width == 0 || height == 0 {
        return;
    }
    let taps = taps(sigma);
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(width, height);
        let Scratch { lines: [line, other], planes: [middle, _], .. } = scratch;
        for plane in planes.channels_mut() {
            for (row, out) in plane.chunks_exact(width).zip(middle.chunks_exact_mut(width)) {
                widen(row, &mut line[REACH..REACH + width]);
                mirror_edges(line);
                let shifted = std::array::from_fn(|i| &line[i..i + width]);
                weigh_nine::<{ WEIGHT_BITS - MIDDLE_BITS }>(shifted, out, &taps);
            }
            for (y, out) in plane.chunks_exact_mut(width).enumerate() {
                let rows = std::array::from_fn(|i| {
                    let start = mirror((y + i) as isize - REACH as isize, height) * width;
                    &middle[start..start + width]
                });
                weigh_nine::<{ WEIGHT_BITS + MIDDLE_BITS }>(rows, &mut other[..width], &taps);
                narrow(other, out);
            }
        }
    });
}

/// Weights of the middle and of the pairs at distance 1 to 4; together they make one.
fn taps(sigma: f64) -> [i16; REACH + 1] {
    let weight = |x: usize| (-0.5 * (x as f64 / sigma).powi(2)).exp();
    let sum = 1.0 + 2.0 * (1..=REACH).map(weight).sum::<f64>();
    let one = f64::from(1_u32 << WEIGHT_BITS);
    let mut taps: [i16; REACH + 1] =
        std::array::from_fn(|x| (weight(x) / sum * one).round() as i16);
    // What rounding lost goes to the middle, so that a flat image stays as it is.
    taps[0] = (1 << WEIGHT_BITS) - 2 * taps[1..].iter().sum::<i16>();
    taps
}

/// Index of a line of `n` values, mirrored at the edges without repeating them.
fn mirror(x: isize, n: usize) -> usize {
    if n == 1 {
        return 0;
    }
    let period = 2 * (n as isize - 1);
    let x = x.rem_euclid(period);
    x.min(period - x) as usize
}

/// Writes the mirrored values into the places beside a line.
fn mirror_edges(line: &mut [i16]) {
    let n = line.len() - 2 * REACH;
    for i in 0..REACH {
        line[i] = line[REACH + mirror(i as isize - REACH as isize, n)];
        line[REACH + n + i] = line[REACH + mirror((n + i) as isize, n)];
    }
}

/// The symmetric 9-tap sum over neighbouring rows, less `DROP` fractional bits.
///
/// Sums of pairs stay in 16 bits: at most 2 * 255 * 2^6 = 32640.
fn weigh_nine<const DROP: u32>(rows: [&[i16]; 9], out: &mut [i16], taps: &[i16; REACH + 1]) {
    let n = out.len();
    let [a, b, c, d, middle, e, f, g, h] = rows.map(|row| &row[..n]);
    let &[w0, w1, w2, w3, w4] = taps;
    for i in 0..n {
        let sum = product(middle[i], w0)
            .wrapping_add(product(d[i].wrapping_add(e[i]), w1))
            .wrapping_add(product(c[i].wrapping_add(f[i]), w2))
            .wrapping_add(product(b[i].wrapping_add(g[i]), w3))
            .wrapping_add(product(a[i].wrapping_add(h[i]), w4));
        out[i] = rounded::<DROP>(sum);
    }
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_box_is_pillows() {
        // sigma 2: length sqrt 17, radius 1, fraction 3/8.
        let kernel = ExtendedBox::new(2.0);
        assert_eq!(kernel.radius, 1);
        assert!((kernel.whole - 1.0 / 3.75).abs() < 1e-12, "{kernel:?}");
        assert!((kernel.end - 0.1).abs() < 1e-12, "{kernel:?}");
        assert_eq!(ExtendedBox::new(0.1).radius, 0);
        assert_eq!(ExtendedBox::new(5.0).radius, 4);
    }

    #[test]
    fn short_and_long_lines_agree() {
        let from: Vec<i16> = (0..40).map(|i| i * i * 7 % 251).collect();
        for sigma in [0.3, 1.0, 1.5, 2.0] {
            let kernel = ExtendedBox::new(sigma);
            for n in [1, 2, 3, 4, 5, 6, 40] {
                let (mut short, mut long) = (vec![0; n], vec![0; n]);
                let mut line = vec![0; n + 2 * REACH];
                line[REACH..REACH + n].copy_from_slice(&from[..n]);
                repeat_edges(&mut line);
                box_line(&line, &mut short, &kernel);
                long_line(&from[..n], &mut long, &kernel);
                let worst = short.iter().zip(&long).map(|(a, b)| a.abs_diff(*b)).max();
                assert!(worst <= Some(1), "sigma {sigma}, {n}: {short:?} {long:?}");
            }
        }
    }

    #[test]
    fn mirrors_do_not_repeat_the_edge() {
        let around: Vec<usize> = (-4..9).map(|x| mirror(x, 5)).collect();
        assert_eq!(around, [4, 3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1, 0]);
        assert_eq!((mirror(-4, 2), mirror(3, 1)), (0, 0));
    }

    proptest! {
        #[test]
        fn a_flat_image_of_any_size_stays(
            (width, height) in (1_u32..12, 1_u32..12), value: u8, sigma in 0.1_f64..6.0,
        ) {
            let image = RgbImage::from_pixel(width, height, Rgb([value, 255, 0]));
            for blur in [pillow, kernel9] {
                let mut planes = Planes::from_rgb(&image);
                blur(&mut planes, sigma);
                prop_assert_eq!(&planes.to_rgb(), &image);
            }
        }
    }

    #[test]
    fn a_point_spreads_by_sigma() {
        let image =
            RgbImage::from_fn(41, 41, |x, y| Rgb([if (x, y) == (20, 20) { 255 } else { 0 }; 3]));
        for (blur, sigma) in [(pillow as fn(&mut Planes, f64), 1.2), (kernel9, 1.2), (pillow, 1.9)]
        {
            let mut planes = Planes::from_rgb(&image);
            blur(&mut planes, sigma);
            let row = &planes.channels()[0][20 * 41..21 * 41];
            let total: f64 = row.iter().map(|&v| f64::from(v)).sum();
            let spread: f64 = row
                .iter()
                .enumerate()
                .map(|(x, &v)| (x as f64 - 20.0).powi(2) * f64::from(v))
                .sum();
            assert!(((spread / total).sqrt() - sigma).abs() < 0.15, "{sigma}: {row:?}");
        }
    }
}
