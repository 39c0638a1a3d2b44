//! Extended box filters of any length, with running sums. Only a sigma above 2.4 needs them, which
//! no published recipe uses, so this code is short and simple, unlike the fast code in `boxes`.

use super::extended_box::ExtendedBox;

/// Number of fractional bits of a weight.
const WEIGHT_BITS: u32 = 24;

/// Runs three passes along each axis of a plane with rows of `width` bytes, in place.
pub(super) fn blur(plane: &mut [u8], width: usize, kernel: &ExtendedBox) {
    let height = plane.len() / width;
    let mut line = Vec::new();
    for _ in 0..3 {
        for row in plane.chunks_exact_mut(width) {
            line.clear();
            line.extend_from_slice(row);
            filter(&line, row.iter_mut(), kernel);
        }
    }
    for _ in 0..3 {
        for x in 0..width {
            line.clear();
            line.extend((0..height).map(|y| plane[y * width + x]));
            filter(&line, plane[x..].iter_mut().step_by(width), kernel);
        }
    }
}

/// Runs one pass along a line, whose edges are repeated.
fn filter<'a>(from: &[u8], to: impl Iterator<Item = &'a mut u8>, kernel: &ExtendedBox) {
    let one = f64::from(1_u32 << WEIGHT_BITS);
    let (whole, end) = ((kernel.whole * one).round() as u64, (kernel.end * one).round() as u64);
    let (radius, last) = (kernel.radius as isize, from.len() as isize - 1);
    let at = |x: isize| u64::from(from[x.clamp(0, last) as usize]);
    let mut sum: u64 = (-radius - 1..radius).map(at).sum();
    for (x, out) in to.enumerate() {
        let (before, after) = (x as isize - radius - 1, x as isize + radius + 1);
        sum = sum + at(after - 1) - at(before);
        let level = sum * whole + (at(before) + at(after)) * end + (1 << (WEIGHT_BITS - 1));
        *out = (level >> WEIGHT_BITS) as u8;
    }
}
