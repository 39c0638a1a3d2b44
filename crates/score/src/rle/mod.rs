//! Masks as COCO stores them: the lengths of alternating runs of 0 and 1, down the columns.

mod polygon;
mod text;

use crate::{BBox, MaskError};

/// A mask of `height` x `width` pixels as run lengths.
///
/// The runs alternate between 0 and 1 and start with 0, so the first length may be zero. They run
/// down the first column, then down the second, and so on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rle {
    height: u32,
    width: u32,
    counts: Vec<u32>,
}

impl Rle {
    /// Creates a mask from run lengths, which are kept as they are, including empty runs.
    ///
    /// # Errors
    /// Returns [`MaskError::Counts`] if they do not add up to the number of pixels, and
    /// [`MaskError::TooLarge`] if that number exceeds `u32`.
    pub fn new(height: u32, width: u32, counts: Vec<u32>) -> Result<Self, MaskError> {
        let pixels = pixels(height, width)?;
        let sum: u64 = counts.iter().copied().map(u64::from).sum();
        if sum != u64::from(pixels) {
            return Err(MaskError::Counts { height, width, sum });
        }
        Ok(Self { height, width, counts })
    }

    /// Creates a mask from pixels in row-major order.
    ///
    /// # Errors
    /// Returns [`MaskError::Pixels`] if there are not `height * width` of them, and
    /// [`MaskError::TooLarge`] if that number exceeds `u32`.
    pub fn from_mask(height: u32, width: u32, mask: &[bool]) -> Result<Self, MaskError> {
        let pixels = pixels(height, width)?;
        if mask.len() != pixels as usize {
            return Err(MaskError::Pixels { height, width, found: mask.len() });
        }
        let (rows, columns) = (height as usize, width as usize);
        let mut counts = Vec::new();
        let (mut value, mut length) = (false, 0);
        for column in 0..columns {
            for row in 0..rows {
                let next = mask[row * columns + column];
                if next != value {
                    counts.push(length);
                    (value, length) = (next, 0);
                }
                length += 1;
            }
        }
        counts.push(length);
        Ok(Self { height, width, counts })
    }

    /// Creates the mask whose ones are these half-open intervals of pixels, which must be sorted
    /// and disjoint.
    fn from_intervals(
        height: u32,
        width: u32,
        intervals: impl IntoIterator<Item = (u32, u32)>,
    ) -> Result<Self, MaskError> {
        let pixels = pixels(height, width)?;
        let mut counts: Vec<u32> = Vec::new();
        let mut end = 0;
        for (first, behind) in intervals {
            match counts.last_mut() {
                // This interval touches the previous one.
                Some(last) if first == end => *last += behind - first,
                _ => counts.extend([first - end, behind - first]),
            }
            end = behind;
        }
        if end < pixels || counts.is_empty() {
            counts.push(pixels - end);
        }
        Ok(Self { height, width, counts })
    }

    /// Returns the pixels in row-major order.
    #[must_use]
    pub fn to_mask(&self) -> Vec<bool> {
        let (rows, columns) = (self.height as usize, self.width as usize);
        let mut mask = vec![false; rows * columns];
        for (first, behind) in self.intervals() {
            for place in first as usize..behind as usize {
                mask[place % rows * columns + place / rows] = true;
            }
        }
        mask
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Returns the number of columns.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Returns the run lengths.
    #[must_use]
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// Returns the number of ones.
    #[must_use]
    pub fn area(&self) -> u64 {
        self.counts.iter().skip(1).step_by(2).copied().map(u64::from).sum()
    }

    /// Returns the smallest box around all ones, or an empty box at the origin if there are none.
    #[must_use]
    pub fn bounding_box(&self) -> BBox {
        let rows = self.height;
        let (mut left, mut top, mut right, mut bottom) = (u32::MAX, u32::MAX, 0, 0);
        for (first, behind) in self.intervals() {
            let last = behind - 1;
            let (start, end) = (first / rows, last / rows);
            // A run that continues into the next column covers the bottom row and the top row.
            let (high, low) = if start < end { (0, rows - 1) } else { (first % rows, last % rows) };
            (left, right) = (left.min(start), right.max(end));
            (top, bottom) = (top.min(high), bottom.max(low));
        }
        if left == u32::MAX {
            return BBox::default();
        }
        BBox {
            x: f64::from(left),
            y: f64::from(top),
            width: f64::from(right - left + 1),
            height: f64::from(bottom - top + 1),
        }
    }

    /// Returns the pixels that are one in any of the masks. A single mask is returned unchanged.
    ///
    /// # Errors
    /// Returns [`MaskError::Sizes`] if the masks differ in size, and [`MaskError::None`] if there
    /// are none.
    pub fn union<'a>(masks: impl IntoIterator<Item = &'a Self>) -> Result<Self, MaskError> {
        Self::fold(masks, Self::or)
    }

    /// Returns the pixels that are one in all of the masks. A single mask is returned unchanged.
    ///
    /// # Errors
    /// Fails like [`Rle::union`].
    pub fn intersection<'a>(masks: impl IntoIterator<Item = &'a Self>) -> Result<Self, MaskError> {
        Self::fold(masks, |a, b| Self::from_intervals(a.height, a.width, common(a, b)))
    }

    fn fold<'a>(
        masks: impl IntoIterator<Item = &'a Self>,
        combine: impl Fn(&Self, &Self) -> Result<Self, MaskError>,
    ) -> Result<Self, MaskError> {
        let mut masks = masks.into_iter();
        let first = masks.next().ok_or(MaskError::None)?;
        masks.try_fold(first.clone(), |sum, mask| {
            sum.check_size(mask.height, mask.width)?;
            combine(&sum, mask)
        })
    }

    fn or(&self, other: &Self) -> Result<Self, MaskError> {
        let mut all: Vec<_> = self.intervals().chain(other.intervals()).collect();
        all.sort_unstable();
        // Merge the intervals that overlap or touch.
        let mut disjoint: Vec<(u32, u32)> = Vec::with_capacity(all.len());
        for (first, behind) in all {
            match disjoint.last_mut() {
                Some(last) if first <= last.1 => last.1 = last.1.max(behind),
                _ => disjoint.push((first, behind)),
            }
        }
        Self::from_intervals(self.height, self.width, disjoint)
    }

    /// Returns the intersection over union with a mask of the ground truth, or zero if they do not
    /// overlap. If `truth` is a crowd, the intersection is divided by the area of `self` instead of
    /// the union.
    ///
    /// # Errors
    /// Returns [`MaskError::Sizes`] if the masks differ in size.
    pub fn iou(&self, truth: &Self, crowd: bool) -> Result<f64, MaskError> {
        self.check_size(truth.height, truth.width)?;
        Ok(self.overlap(truth, crowd))
    }

    /// Same as [`Rle::iou`], for masks that are known to have the same size.
    pub(crate) fn overlap(&self, truth: &Self, crowd: bool) -> f64 {
        let common: u64 = common(self, truth).map(|(a, b)| u64::from(b - a)).sum();
        let whole = if crowd { self.area() } else { self.area() + truth.area() - common };
        if common == 0 { 0.0 } else { common as f64 / whole as f64 }
    }

    /// Checks that the mask has this size.
    ///
    /// # Errors
    /// Returns [`MaskError::Sizes`] if it has another.
    pub fn check_size(&self, height: u32, width: u32) -> Result<(), MaskError> {
        if (self.height, self.width) == (height, width) {
            return Ok(());
        }
        Err(MaskError::Sizes { expected: [height, width], found: [self.height, self.width] })
    }

    /// Returns the nonempty runs of ones as half-open intervals of pixels.
    fn intervals(&self) -> impl Iterator<Item = (u32, u32)> {
        let mut end = 0;
        let runs = self.counts.iter().map(move |&count| {
            let start = end;
            end += count;
            (start, end)
        });
        runs.skip(1).step_by(2).filter(|(first, behind)| first < behind)
    }
}

/// Returns the intersections of the intervals of two masks.
fn common(a: &Rle, b: &Rle) -> impl Iterator<Item = (u32, u32)> {
    let (mut a, mut b) = (a.intervals().peekable(), b.intervals().peekable());
    let mut next = move || {
        let ((a_first, a_behind), (b_first, b_behind)) = (*a.peek()?, *b.peek()?);
        if a_behind <= b_behind {
            a.next();
        } else {
            b.next();
        }
        Some((a_first.max(b_first), a_behind.min(b_behind)))
    };
    std::iter::from_fn(move || {
        loop {
            let (first, behind) = next()?;
            if first < behind {
                return Some((first, behind));
            }
        }
    })
}

/// Returns the number of pixels, which must fit the type of a run length.
fn pixels(height: u32, width: u32) -> Result<u32, MaskError> {
    height.checked_mul(width).ok_or(MaskError::TooLarge { height, width })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Creates a mask from rows of text, where `#` is a one.
    fn mask(rows: &[&str]) -> Rle {
        let pixels: Vec<bool> =
            rows.iter().flat_map(|row| row.bytes()).map(|b| b == b'#').collect();
        Rle::from_mask(rows.len() as u32, rows[0].len() as u32, &pixels).unwrap()
    }

    #[test]
    fn runs_go_down_the_columns() {
        let shape = mask(&[".##", ".#.", "#.."]);
        assert_eq!(shape.counts(), [2, 3, 1, 1, 2]);
        assert_eq!(mask(&["##", "##"]).counts(), [0, 4]);
        assert_eq!(mask(&["..", ".."]).counts(), [4]);
        assert_eq!(shape.area(), 4);
        assert_eq!(shape.bounding_box(), BBox { x: 0.0, y: 0.0, width: 3.0, height: 3.0 });
        let dot = mask(&["...", "..#"]).bounding_box();
        assert_eq!(dot, BBox { x: 2.0, y: 1.0, width: 1.0, height: 1.0 });
        assert_eq!(mask(&["..", ".."]).bounding_box(), BBox::default());
    }

    #[test]
    fn empty_runs_are_kept_and_count_nothing() {
        let odd = Rle::new(2, 2, vec![1, 0, 0, 2, 0, 0, 1, 0]).unwrap();
        assert_eq!((odd.area(), odd.counts().len()), (2, 8));
        assert_eq!(odd.bounding_box(), BBox { x: 0.0, y: 0.0, width: 2.0, height: 2.0 });
        let plain = mask(&[".#", "#."]);
        assert_eq!(odd.to_mask(), plain.to_mask());
        assert_eq!(odd.iou(&plain, false).unwrap(), 1.0);
        assert_eq!(Rle::union([&odd, &plain]).unwrap(), plain);
        assert_eq!(Rle::union([&odd]).unwrap(), odd);
    }

    #[test]
    fn what_is_no_mask_is_refused() {
        let sum = Rle::new(2, 3, vec![1, 4]).unwrap_err();
        assert!(matches!(sum, MaskError::Counts { height: 2, width: 3, sum: 5 }), "{sum}");
        let many = Rle::new(2, 3, vec![u32::MAX, u32::MAX]).unwrap_err();
        assert!(matches!(many, MaskError::Counts { sum: 8_589_934_590, .. }), "{many}");
        let few = Rle::from_mask(2, 3, &[true; 5]).unwrap_err();
        assert!(matches!(few, MaskError::Pixels { found: 5, .. }), "{few}");
        let large = Rle::new(1 << 16, 1 << 16, vec![0]).unwrap_err();
        assert!(matches!(large, MaskError::TooLarge { .. }), "{large}");
        let other = mask(&["#."]).iou(&mask(&["#", "."]), false).unwrap_err();
        assert!(matches!(other, MaskError::Sizes { .. }), "{other}");
        assert!(matches!(Rle::union([]).unwrap_err(), MaskError::None));
    }

    proptest! {
        #[test]
        fn sets_of_pixels_are_what_they_are(
            (height, width, a, b) in (1_u32..9, 1_u32..9).prop_flat_map(|(height, width)| {
                let pixels = prop::collection::vec(any::<bool>(), (height * width) as usize);
                (Just(height), Just(width), pixels.clone(), pixels)
            })
        ) {
            let [ra, rb] = [&a, &b].map(|m| Rle::from_mask(height, width, m).unwrap());
            prop_assert_eq!(&ra.to_mask(), &a);
            let both = |f: fn(bool, bool) -> bool| -> Vec<bool> {
                a.iter().zip(&b).map(|(&a, &b)| f(a, b)).collect()
            };
            let or = Rle::from_mask(height, width, &both(|a, b| a || b)).unwrap();
            let and = Rle::from_mask(height, width, &both(|a, b| a && b)).unwrap();
            prop_assert_eq!(&Rle::union([&ra, &rb]).unwrap(), &or);
            prop_assert_eq!(&Rle::intersection([&ra, &rb]).unwrap(), &and);
            let ratio = |whole: u64| match and.area() {
                0 => 0.0,
                common => common as f64 / whole as f64,
            };
            prop_assert_eq!(ra.iou(&rb, false).unwrap(), ratio(or.area()));
            prop_assert_eq!(ra.iou(&rb, true).unwrap(), ratio(ra.area()));
        }
    }
}
