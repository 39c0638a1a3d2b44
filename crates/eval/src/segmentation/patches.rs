//! Pixel labels grouped by patch.

use data::dense::{IGNORE, LabelMap};

/// Pixel labels of an image, grouped by patch. The image sides must be multiples of the patch size.
#[derive(Debug, Clone)]
pub(super) struct PatchLabels {
    /// `[N, P * P]`; patches and their pixels are in row-major order.
    pub(super) pixels: Vec<u8>,
    /// `P * P`.
    pub(super) area: usize,
}

impl PatchLabels {
    /// Splits labels into square patches with this side in pixels.
    pub(super) fn new(labels: &LabelMap, patch: usize) -> Self {
        let (width, height) = (labels.width as usize, labels.height as usize);
        let mut pixels = Vec::with_capacity(labels.ids.len());
        for top in (0..height / patch * patch).step_by(patch) {
            for left in (0..width / patch * patch).step_by(patch) {
                for y in top..top + patch {
                    let start = y * width + left;
                    pixels.extend_from_slice(&labels.ids[start..start + patch]);
                }
            }
        }
        Self { pixels, area: patch * patch }
    }

    /// Returns the number of patches.
    pub(super) fn len(&self) -> usize {
        self.pixels.len() / self.area
    }

    /// Counts the pixels of each class in each patch, `[N, K]`. Ignored pixels count as class 0 if
    /// `ignored_are_zero`, and not at all otherwise.
    pub(super) fn counts(&self, classes: usize, ignored_are_zero: bool) -> Vec<u32> {
        let mut counts = vec![0; self.len() * classes];
        for (counts, pixels) in
            counts.chunks_exact_mut(classes).zip(self.pixels.chunks_exact(self.area))
        {
            for &class in pixels {
                match class {
                    IGNORE if ignored_are_zero => counts[0] += 1,
                    IGNORE => {}
                    class => counts[usize::from(class)] += 1,
                }
            }
        }
        counts
    }

    /// Returns the pixels of the patches with these indices.
    pub(super) fn chosen<'a>(&'a self, patches: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
        patches.iter().map(|&patch| &self.pixels[patch * self.area..(patch + 1) * self.area])
    }
}

/// Joins patches `[N, P * P]` of an image, `columns` per row, to the pixels of the image.
pub(super) fn join(patches: &[u8], patch: usize, columns: usize) -> Vec<u8> {
    let (area, width) = (patch * patch, columns * patch);
    let mut image = vec![0; patches.len()];
    for (index, pixels) in patches.chunks_exact(area).enumerate() {
        let (row, column) = (index / columns, index % columns);
        for (y, line) in pixels.chunks_exact(patch).enumerate() {
            let start = (row * patch + y) * width + column * patch;
            image[start..start + patch].copy_from_slice(line);
        }
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_are_cut_and_joined() {
        let ids: Vec<u8> = (0..24).collect();
        let labels = LabelMap { width: 6, height: 4, ids: ids.clone() };
        let patches = PatchLabels::new(&labels, 2);
        assert_eq!(patches.len(), 6);
        assert_eq!(patches.pixels[4..8], [2, 3, 8, 9]);
        assert_eq!(patches.chosen(&[3]).next().unwrap(), [12, 13, 18, 19]);
        assert_eq!(join(&patches.pixels, 2, 3), ids);
    }

    #[test]
    fn ignored_pixels_do_not_count_unless_asked() {
        let labels = LabelMap { width: 2, height: 2, ids: vec![1, IGNORE, IGNORE, 1] };
        let patches = PatchLabels::new(&labels, 2);
        assert_eq!(patches.counts(3, false), [0, 2, 0]);
        assert_eq!(patches.counts(3, true), [2, 2, 0]);
    }
}
