//! Upsamples color from half to full resolution with libjpeg's "fancy" (triangle) filter: three
//! parts of the nearer sample and one part of the farther one, with alternating rounding as in
//! libjpeg.

use crate::idct::WIDE;

/// Sums of samples in a row, with one extra element at each end.
#[derive(Debug)]
pub(crate) struct Sums {
    /// One element per sample and two more, rounded up.
    values: Vec<u16>,
    /// Number of samples.
    count: usize,
}

impl Sums {
    /// Allocates memory for `count` samples.
    pub(crate) fn new(count: usize) -> Self {
        Self { values: vec![0; count.next_multiple_of(WIDE) + 2], count }
    }

    /// Sets the sums to a single row.
    #[inline(always)]
    pub(crate) fn set(&mut self, row: &[u8]) {
        for (sum, &sample) in self.values[1..].iter_mut().zip(row) {
            *sum = u16::from(sample);
        }
        self.extend();
    }

    /// Sets the sums to three parts of one row and one part of another.
    #[inline(always)]
    pub(crate) fn blend(&mut self, near: &[u8], far: &[u8]) {
        for ((sum, &near), &far) in self.values[1..].iter_mut().zip(near).zip(far) {
            *sum = 3 * u16::from(near) + u16::from(far);
        }
        self.extend();
    }

    /// Repeats the first and the last sample beyond the ends.
    #[inline(always)]
    fn extend(&mut self) {
        self.values[0] = self.values[1];
        self.values[self.count + 1] = self.values[self.count];
    }

    /// Writes twice as many samples, each interpolated with one neighbor, and divides them by
    /// `1 << SHIFT`.
    #[inline(always)]
    pub(crate) fn spread<const SHIFT: u32>(&self, out: &mut [u8]) {
        // Rounding alternates between just below one half and one half.
        let (left, right) = match SHIFT {
            2 => (1, 2),
            _ => (8, 7),
        };
        let pairs = out.as_chunks_mut::<2>().0;
        let [before, here, behind] = [0, 1, 2].map(|start| &self.values[start..]);
        for (((pair, &before), &here), &behind) in
            pairs.iter_mut().zip(before).zip(here).zip(behind)
        {
            let three = 3 * here;
            let (left, right) =
                ((three + before + left) >> SHIFT, (three + behind + right) >> SHIFT);
            // Both samples go into one number, because stores of pairs would be shuffled first.
            *pair = (left | right << 8).to_le_bytes();
        }
    }
}

/// Upsamples vertically: interpolates the row next to `near` on the side of `far`, which is below
/// `near` if `below` is true.
#[inline(always)]
pub(crate) fn blend_rows(near: &[u8], far: &[u8], below: bool, out: &mut [u8]) {
    let half = 1 + u16::from(below);
    for ((out, &near), &far) in out.iter_mut().zip(near).zip(far) {
        *out = ((3 * u16::from(near) + u16::from(far) + half) >> 2) as u8;
    }
}

/// Writes twice as many samples by repeating each one.
#[inline(always)]
pub(crate) fn repeat(row: &[u8], out: &mut [u8]) {
    for (pair, &sample) in out.as_chunks_mut::<2>().0.iter_mut().zip(row) {
        *pair = [sample; 2];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(count: usize, factor: usize) -> Vec<u8> {
        (0..count).map(|i| (i * factor % 256) as u8).collect()
    }

    /// Returns the sample at `i`, or the nearest one.
    fn at(row: &[u16], i: isize) -> u16 {
        row[i.clamp(0, row.len() as isize - 1) as usize]
    }

    #[test]
    fn rows_are_widened_by_the_triangle_filter() {
        for count in [1, 2, 3, 31, 32, 33, 70] {
            let (near, far) = (row(count, 97), row(count, 201));
            let mut sums = Sums::new(count);
            let mut out = vec![0; 2 * count.next_multiple_of(WIDE)];

            sums.set(&near);
            sums.spread::<2>(&mut out);
            let wide: Vec<u16> = near.iter().map(|&v| v.into()).collect();
            for i in 0..count as isize {
                let left = (3 * at(&wide, i) + at(&wide, i - 1) + 1) / 4;
                let right = (3 * at(&wide, i) + at(&wide, i + 1) + 2) / 4;
                let got = [out[2 * i as usize], out[2 * i as usize + 1]].map(u16::from);
                assert_eq!(got, [left, right], "{i} of {count}");
            }

            sums.blend(&near, &far);
            sums.spread::<4>(&mut out);
            let both: Vec<u16> =
                near.iter().zip(&far).map(|(&n, &f)| 3 * u16::from(n) + u16::from(f)).collect();
            for i in 0..count as isize {
                let left = (3 * at(&both, i) + at(&both, i - 1) + 8) / 16;
                let right = (3 * at(&both, i) + at(&both, i + 1) + 7) / 16;
                let got = [out[2 * i as usize], out[2 * i as usize + 1]].map(u16::from);
                assert_eq!(got, [left, right], "{i} of {count}");
            }
        }
    }

    #[test]
    fn rows_between_rows_round_in_turn() {
        let mut out = [0; 3];
        blend_rows(&[0, 10, 255], &[1, 20, 255], false, &mut out);
        assert_eq!(out, [0, 12, 255]);
        blend_rows(&[0, 10, 255], &[2, 20, 255], true, &mut out);
        assert_eq!(out, [1, 13, 255]);
        let mut out = [0; 4];
        repeat(&[7, 8], &mut out);
        assert_eq!(out, [7, 7, 8, 8]);
    }
}
