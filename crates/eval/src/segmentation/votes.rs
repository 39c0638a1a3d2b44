//! Predicts pixel classes by votes of similar patches.

use data::dense::IGNORE;
use tch::{Device, Tensor};

use crate::error::{Error, Result};
use crate::nearest::{Index, Similarity};

/// Labeled patches whose pixels vote.
#[derive(Debug)]
pub struct Votes {
    index: Index,
    pixels: Vec<u8>, // [M, P * P]
    area: usize,
    classes: usize,
}

impl Votes {
    /// Creates the voters from patches with features `[M, D]` and pixel classes `[M, P * P]`.
    ///
    /// # Errors
    /// Returns an error if there is no patch, the numbers of patches differ, or a class is out of
    /// range.
    pub fn new(
        features: &Tensor,
        pixels: Vec<u8>,
        classes: usize,
        similarity: Similarity,
    ) -> Result<Self> {
        let index = Index::new(features, similarity)?;
        let (count, area) = (index.len(), pixels.len() / index.len());
        if area == 0
            || area * count != pixels.len()
            || pixels.iter().any(|&p| p != IGNORE && usize::from(p) >= classes)
        {
            let expected = "[M, P * P], with classes below K";
            return Err(Error::Shape { what: "pixels", expected, got: vec![pixels.len() as i64] });
        }
        Ok(Self { index, pixels, area, classes })
    }

    /// Predicts the pixel classes of patches with features `[N, D]`; returns `[N, P * P]` for each
    /// number of neighbors in `k`.
    ///
    /// A pixel gets the most frequent class among the pixels at the same position in the `k`
    /// nearest patches, the lowest one among equals. If all of those are ignored, it gets the most
    /// frequent class of all pixels of these patches.
    ///
    /// # Errors
    /// Returns an error if the features have another width than those of the voters.
    pub fn predict(&self, features: &Tensor, k: &[usize]) -> Result<Vec<Vec<u8>>> {
        let most = k.iter().copied().max().unwrap_or(1);
        let found = self.index.nearest(features, most)?.indices;
        let neighbors = found.size()[1] as usize;
        let found = found.flatten(0, -1).f_to_device(Device::Cpu)?;
        let found = Vec::<i64>::try_from(found.contiguous())?;
        let patch =
            |&row: &i64| &self.pixels[row as usize * self.area..(row as usize + 1) * self.area];
        let mut predicted = vec![Vec::with_capacity(found.len() / neighbors * self.area); k.len()];
        for found in found.chunks_exact(neighbors) {
            let nearest: Vec<&[u8]> = found.iter().map(patch).collect();
            for (predicted, &k) in predicted.iter_mut().zip(k) {
                vote(&nearest[..k.min(neighbors)], self.classes, predicted);
            }
        }
        Ok(predicted)
    }
}

/// Appends the most frequent class at each pixel position of the nearest patches.
fn vote(nearest: &[&[u8]], classes: usize, predicted: &mut Vec<u8>) {
    let area = nearest.first().map_or(0, |patch| patch.len());
    let mut counts = vec![0_u32; classes];
    let mut of_all = None;
    for pixel in 0..area {
        counts.fill(0);
        for patch in nearest {
            if let Some(count) = counts.get_mut(usize::from(patch[pixel])) {
                *count += 1;
            }
        }
        let class = most_frequent(&counts)
            .unwrap_or_else(|| *of_all.get_or_insert_with(|| majority(&nearest.concat(), classes)));
        predicted.push(class);
    }
}

/// Returns the most frequent class, the lowest one among equals, or `None` if all counts are zero.
fn most_frequent(counts: &[u32]) -> Option<u8> {
    let most = counts.iter().copied().max().filter(|&most| most > 0)?;
    counts.iter().position(|&count| count == most).map(|class| class as u8)
}

/// Returns the most frequent class of pixels, or 0 if all are ignored, which no patch in memory is.
pub(super) fn majority(pixels: &[u8], classes: usize) -> u8 {
    let mut counts = vec![0_u32; classes];
    for &pixel in pixels {
        if let Some(count) = counts.get_mut(usize::from(pixel)) {
            *count += 1;
        }
    }
    most_frequent(&counts).unwrap_or(0)
}
