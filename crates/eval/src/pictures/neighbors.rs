//! Images and their nearest neighbors in feature space.

use augment::EvalTransform;
use data::Dataset;
use image::{Rgb, RgbImage};
use tch::Tensor;

use crate::error::{Error, Result};
use crate::features::check_images;
use crate::nearest::{Index, Similarity};

/// Side of the cells, in pixels.
const SIDE: u32 = 120;
/// Width of a frame, in pixels.
const FRAME: u32 = 4;
const SAME_CLASS: Rgb<u8> = Rgb([40, 170, 80]);
const OTHER_CLASS: Rgb<u8> = Rgb([230, 60, 50]);

/// Features of images of a set, which are compared with each other.
#[derive(Debug, Clone, Copy)]
pub struct Embedded<'a> {
    /// The set.
    pub dataset: &'a Dataset,
    /// The indices of the images in the set.
    pub indices: &'a [usize],
    /// Class of each image, if it has one.
    pub labels: &'a [Option<u32>],
    /// Features of the images, `[n, D]`.
    pub features: &'a Tensor,
}

/// Draws cells for each of `queries`, which are indices in the set: the image, followed by the
/// `count` images with the largest cosine similarity, in descending order. If classes are known,
/// each neighbor has a frame: green if it is of the query's class, red otherwise.
///
/// # Errors
/// Returns an error if a query has no features, if features are not finite, or if an image cannot be read.
pub fn neighbor_cells(
    embedded: &Embedded<'_>,
    queries: &[usize],
    count: usize,
) -> Result<Vec<Vec<RgbImage>>> {
    check_images(embedded.features, "shown")?;
    let index = Index::new(embedded.features, Similarity::Cosine)?;
    queries.iter().map(|&query| cells(embedded, &index, query, count)).collect()
}

fn cells(
    embedded: &Embedded<'_>,
    index: &Index,
    query: usize,
    count: usize,
) -> Result<Vec<RgbImage>> {
    let Some(place) = embedded.indices.iter().position(|&index| index == query) else {
        let problem = format!("image {query} of the set has no features");
        return Err(Error::Setting { key: "queries", problem });
    };
    let own = embedded.features.narrow(0, place as i64, 1);
    // The image itself is usually among its neighbors, but not always first, because others may be
    // equal.
    let found = index.nearest(&own, count + 1)?;
    let found = Vec::<i64>::try_from(&found.indices.flatten(0, -1))?;
    let found = found.into_iter().map(|row| row as usize).filter(|&row| row != place).take(count);
    let mut cells = vec![shown(embedded.dataset, query)?];
    for row in found {
        let cell = shown(embedded.dataset, embedded.indices[row])?;
        cells.push(match (embedded.labels[place], embedded.labels[row]) {
            (Some(own), Some(other)) => {
                framed(cell, if own == other { SAME_CLASS } else { OTHER_CLASS })
            }
            _ => cell,
        });
    }
    Ok(cells)
}

fn shown(dataset: &Dataset, index: usize) -> Result<RgbImage> {
    let transform = EvalTransform { resize: SIDE, crop: SIDE };
    Ok(transform.apply((&dataset.image(index)?).into())?.to_rgb())
}

fn framed(mut cell: RgbImage, color: Rgb<u8>) -> RgbImage {
    let (width, height) = cell.dimensions();
    let inside = |at: u32, side: u32| (FRAME..side.saturating_sub(FRAME)).contains(&at);
    for (x, y, pixel) in cell.enumerate_pixels_mut() {
        if !inside(x, width) || !inside(y, height) {
            *pixel = color;
        }
    }
    cell
}
