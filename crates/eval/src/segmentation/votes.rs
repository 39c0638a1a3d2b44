//! The votes of the pixels of similar patches.

use data::dense::IGNORE;
use tch::{Device, Tensor};

use crate::error::{Error, Result};
use crate::nearest::{Index, Similarity};

/// Patches whose pixels vote.
#[derive(Debug)]
pub struct Votes {
    index: Index,
    pixels: Vec<u8>, // [M, P * P]
    area: usize,
    classes: usize,
}

impl Votes {
    /// Patches with features `[M, D]`, whose `pixels` `[M, P * P]` have these classes.
    ///
    /// # Errors
    /// Returns an error if there is no patch, or the numbers differ.
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

    /// Predicts the pixels of patches with features `[N, D]` for each number of neighbors: `[N, P * P]`
    /// each.
    ///
    /// A pixel gets the most frequent class of the pixels at the same place in the `k` nearest patches,
    /// the lowest one if several are. If all of these are ignored, it gets the most frequent class of all
    /// their pixels.
    ///
    /// # Errors
    /// Returns an error if the features have another width.
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

/// Appends the most frequent class of each pixel of some patches.
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

/// The most frequent class, the lowest one if several are; none if nothing is counted.
fn most_frequent(counts: &[u32]) -> Option<u8> {
    let most = counts.iter().copied().max().filter(|&most| most > 0)?;
    counts.iter().position(|&count| count == most).map(|class| class as u8)
}

/// The most frequent class of pixels; 0 if all are ignored, which no patch in memory is.
pub(super) fn majority(pixels: &[u8], classes: usize) -> u8 {
    let mut counts = vec![0_u32; classes];
    for &pixel in pixels {
        if let Some(count) = counts.get_mut(usize::from(pixel)) {
            *count += 1;
        }
    }
    most_frequent(&counts).unwrap_or(0)
}
