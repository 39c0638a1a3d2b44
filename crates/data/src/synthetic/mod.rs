//! The synthetic set: ten classes of textured shapes on textured backgrounds.
//!
//! A class is a shape together with the texture family of its surface. Everything else (position,
//! size, rotation, all colors, frequency and direction of the textures, the family of the
//! background, the light) is random and independent of the class. Neither the mean color nor the
//! pixels at fixed positions reveal the class, but the features that do can be learned without
//! labels. The set needs no files and no network, and it has a mask of each object.

mod classes;
mod draw;
mod shape;
mod texture;
mod write;

use image::GrayImage;
use sha2::{Digest, Sha256};

pub use self::classes::class_names;
use self::classes::{CLASS_NAMES, label_of};
pub use self::draw::{Drawing, draw};
pub use self::write::write_folder;
use crate::config::SyntheticConfig;
use crate::error::{Error, Result};
use crate::source::{Payload, Source};

/// Version of the drawings, which must change whenever the images change.
const VERSION: u32 = 1;
/// The synthetic set as a source: images are drawn on request.
#[derive(Debug, Clone)]
pub struct Synthetic {
    config: SyntheticConfig,
}

impl Synthetic {
    /// Creates the set that `config` describes.
    pub fn new(config: SyntheticConfig) -> Self {
        Self { config }
    }

    fn drawing(&self, index: usize) -> Result<Drawing> {
        if index >= self.config.count {
            return Err(Error::Index { index, len: self.config.count });
        }
        Ok(draw(&self.config, index))
    }
}

impl Source for Synthetic {
    fn kind(&self) -> &'static str {
        "synthetic"
    }

    fn len(&self) -> usize {
        self.config.count
    }

    fn name(&self, index: usize) -> String {
        match self.label(index) {
            Some(label) => format!("{}/{index:06}", CLASS_NAMES[label as usize]),
            None => String::new(),
        }
    }

    fn label(&self, index: usize) -> Option<u32> {
        (index < self.config.count).then(|| label_of(index))
    }

    fn class_names(&self) -> &[String] {
        class_names()
    }

    fn load(&self, index: usize) -> Result<Payload> {
        Ok(Payload::Pixels(self.drawing(index)?.image.into()))
    }

    fn fingerprint(&self) -> String {
        let SyntheticConfig { count, size, seed } = self.config;
        let text = format!("synthetic {VERSION} count {count} size {size} seed {seed}");
        Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    fn mask(&self, index: usize) -> Option<GrayImage> {
        self.drawing(index).ok().map(|drawing| drawing.mask)
    }
}

#[cfg(test)]
mod tests {
    use super::classes::NUM_CLASSES;
    use super::*;

    const CONFIG: SyntheticConfig = SyntheticConfig { count: 1000, size: 32, seed: 11 };

    fn distance(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum()
    }

    /// Returns the leave-one-out top-1 accuracy of 20-nearest-neighbor voting.
    fn knn(rows: &[Vec<f32>]) -> f64 {
        let right = (0..rows.len()).filter(|&i| {
            let others = (0..rows.len()).filter(|&j| j != i);
            let mut near: Vec<_> = others.map(|j| (distance(&rows[i], &rows[j]), j)).collect();
            near.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mut votes = [0; NUM_CLASSES];
            near[..20].iter().for_each(|&(_, j)| votes[j % NUM_CLASSES] += 1);
            let best = (0..NUM_CLASSES).max_by_key(|&c| (votes[c], NUM_CLASSES - c));
            best == Some(i % NUM_CLASSES)
        });
        right.count() as f64 / rows.len() as f64
    }

    /// Scales each column to mean 0 and standard deviation 1.
    fn standardize(rows: &mut [Vec<f32>]) {
        let n = rows.len() as f32;
        for d in 0..rows[0].len() {
            let mean = rows.iter().map(|r| r[d]).sum::<f32>() / n;
            let var = rows.iter().map(|r| (r[d] - mean).powi(2)).sum::<f32>() / n;
            rows.iter_mut().for_each(|r| r[d] = (r[d] - mean) / var.sqrt().max(1e-6));
        }
    }

    fn pixels() -> Vec<Vec<f32>> {
        let images = (0..CONFIG.count).map(|i| draw(&CONFIG, i).image);
        images.map(|image| image.iter().map(|&v| f32::from(v)).collect()).collect()
    }

    #[test]
    fn neither_mean_color_nor_raw_pixels_tell_the_class() {
        let mut rows = pixels();
        let mut means: Vec<Vec<f32>> = rows
            .iter()
            .map(|row| (0..3).map(|c| row[c..].iter().step_by(3).sum::<f32>() / 1024.0).collect())
            .collect();
        standardize(&mut means);
        let by_color = knn(&means);
        assert!(by_color < 0.16, "mean color: {by_color}");
        let (seen, unseen) = means.split_at(500);
        let mut centers = vec![vec![0.0; 3]; NUM_CLASSES];
        for (i, row) in seen.iter().enumerate() {
            (0..3).for_each(|c| centers[i % NUM_CLASSES][c] += row[c] / 50.0);
        }
        let nearest = unseen.iter().enumerate().filter(|(i, row)| {
            let order = |a: &usize, b: &usize| {
                distance(&centers[*a], row).total_cmp(&distance(&centers[*b], row))
            };
            (0..NUM_CLASSES).min_by(order) == Some(i % NUM_CLASSES)
        });
        let by_center = nearest.count() as f64 / 500.0;
        assert!(by_center < 0.16, "nearest class mean: {by_center}");
        standardize(&mut rows);
        let by_pixels = knn(&rows);
        println!("mean color {by_color}, class mean {by_center}, pixels {by_pixels}");
        assert!(by_pixels < 0.3, "pixels: {by_pixels}");
    }

    #[test]
    fn a_drawing_is_a_function_of_seed_and_index() {
        let again = draw(&SyntheticConfig { count: 5, ..CONFIG }, 17);
        assert_eq!(draw(&CONFIG, 17), again);
        assert_ne!(draw(&CONFIG, 27).image, again.image);
        assert_ne!(draw(&SyntheticConfig { seed: 12, ..CONFIG }, 17).image, again.image);
    }

    #[test]
    fn masks_cover_what_they_should() {
        let config = SyntheticConfig { size: 64, ..CONFIG };
        let [low, high] = draw::COVERAGE;
        let mut means = [0.0; NUM_CLASSES];
        for index in 0..400 {
            let Drawing { mask, label, .. } = draw(&config, index);
            assert!(mask.iter().all(|&v| v == 0 || v == 255));
            let share = mask.iter().filter(|&&v| v > 0).count() as f64 / 4096.0;
            // The coverage is below the bound if the edge of the image cuts off part of the object.
            assert!((0.75 * low..1.03 * high).contains(&share), "{index}: {share}");
            means[label as usize] += share / 40.0;
        }
        println!("mean coverage by class: {means:.3?}");
        // The size must not reveal the class either.
        let middle = (low + high) / 2.0;
        assert!(means.iter().all(|mean| (mean / middle - 1.0).abs() < 0.2), "{means:?}");
    }

    #[test]
    fn the_source_knows_names_labels_and_masks() {
        let source = Synthetic::new(CONFIG);
        assert_eq!((source.len(), source.label(13)), (1000, Some(3)));
        assert_eq!(source.name(13), "ringed_star/000013");
        assert_eq!((source.name(1000), source.label(1000)), (String::new(), None));
        assert!(source.load(1000).is_err() && source.mask(1000).is_none());
        let Payload::Pixels(image) = source.load(13).unwrap() else { panic!("not drawn") };
        assert_eq!(image, draw(&CONFIG, 13).image);
        assert_eq!(source.mask(13), Some(draw(&CONFIG, 13).mask));
        let other = Synthetic::new(SyntheticConfig { seed: 12, ..CONFIG });
        assert_ne!(source.fingerprint(), other.fingerprint());
        assert_eq!(source.fingerprint().len(), 16);
    }
}
