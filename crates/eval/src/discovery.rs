//! Unsupervised object discovery: MaskCut on the attention features of a network.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use data::decode::{Image, PixelFormat, decode_as};
use data::dense::in_order;
use data::loader::BrokenImage;
use objects::maskcut::Round;
use objects::{CrfOptions, Grid, Mask, MaskCutOptions, Picture, maskcut};
use tch::Tensor;

use crate::error::{Error, Result, unreadable};
use crate::features::{heads_side_by_side, to_array};
use crate::frozen::Frozen;
use crate::pictures::{Row, as_high_as_a_cell, with_masks};
use crate::spectrum::Moment;

/// The vectors of the last block's attention that describe a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttentionFeature {
    /// The queries.
    Query,
    /// The keys, as in MaskCut and TokenCut.
    #[default]
    Key,
    /// The values.
    Value,
}

/// How objects are found.
#[derive(Debug, Clone)]
pub struct DiscoveryOptions<'a> {
    /// The network, whose input must have three channels.
    pub frozen: Frozen<'a>,
    /// The vectors that describe a patch.
    pub feature: AttentionFeature,
    /// Side of the square to which images are resized, in pixels; 480 in MaskCut.
    pub side: usize,
    /// Options for turning patch features into masks.
    pub maskcut: MaskCutOptions,
    /// Options for refining masks to the edges of the image; `None` = no refinement.
    pub crf: Option<CrfOptions>,
}

/// The objects of an image.
#[derive(Debug)]
pub struct Found {
    /// Position of the image among the given files.
    pub index: usize,
    /// The image.
    pub image: Image,
    /// Masks of the size of the image, in the order of discovery.
    pub masks: Vec<Mask>,
    /// All rounds of MaskCut, on the grid of patches.
    pub rounds: Vec<Round>,
}

/// What [`discover`] returns besides the objects.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Discovered {
    /// Images that cannot be read, which are left out.
    pub broken: Vec<BrokenImage>,
    /// The second moment of the vectors of all patches.
    pub patches: Moment,
}

/// Finds the objects of each image, and passes the images to `take` one by one.
///
/// # Errors
/// Returns an error if the network does not take RGB images, no image is readable, or the options
/// are invalid, and the first error of `take`.
///
/// # Source
/// CutLER's maskcut.py and crf.py.
///
/// # Deviations
/// The eigenvector has a fixed sign, so that the rule about corners always applies (see
/// [`mod@objects::maskcut`]). A resize that shrinks the height more than the width starts with the
/// width, as in Pillow before version 13.
pub fn discover<E: From<Error> + From<data::Error>>(
    files: &[PathBuf],
    options: &DiscoveryOptions<'_>,
    take: &mut dyn FnMut(Found) -> std::result::Result<(), E>,
) -> std::result::Result<Discovered, E> {
    let channels = options.frozen.normalize.mean.len();
    if channels != 3 {
        let problem =
            format!("the network takes {channels} channels, but MaskCut needs RGB images");
        return Err(Error::Setting { key: "weights", problem }.into());
    }
    let patch = usize::try_from(options.frozen.network.config().patch_size).unwrap_or_default();
    let workers = available_parallelism().map_or(1, usize::from);
    let (mut done, side) = (Discovered::default(), options.side);
    let make = |index: usize| prepared(&files[index], side, patch);
    in_order(0..files.len(), workers, make, |index, prepared| {
        let (image, picture) = match prepared {
            Ok(prepared) => prepared,
            // An invalid option is invalid for all images.
            Err(error @ Error::Objects(objects::Error::Option { .. })) => return Err(error.into()),
            Err(error) => {
                let name = files[index].display().to_string();
                done.broken.push(BrokenImage { index, name, reason: base::error_chain(&error) });
                return Ok(());
            }
        };
        let vectors = attention_features(&picture, options)?;
        done.patches.add(&vectors)?;
        let features = to_array(&vectors)?;
        let found = maskcut(features.view(), picture.patches, &options.maskcut);
        let found = found.map_err(Error::from)?;
        let masks = picture.finish(&found, options.crf.as_ref()).map_err(Error::from)?;
        take(Found { index, image, masks, rounds: found.rounds })
    })?;
    match &done.broken[..] {
        [first, ..] if done.broken.len() == files.len() => {
            let first = format!("{}: {}", first.name, first.reason);
            Err(Error::NoImages { asked: files.len(), first }.into())
        }
        _ => Ok(done),
    }
}

/// Reads an image and prepares it for the network.
fn prepared(file: &Path, side: usize, patch: usize) -> Result<(Image, Picture)> {
    let bytes = fs::read(file).map_err(unreadable(file))?;
    let image = decode_as(&bytes, &PixelFormat::RGB).map_err(data::Error::from)?.image;
    let size = Grid::new(image.height() as usize, image.width() as usize);
    let picture = Picture::prepare(image.data(), size, side, patch)?;
    Ok((image, picture))
}

/// Returns the vectors of all patches, `[N, D]`, with heads concatenated.
fn attention_features(picture: &Picture, options: &DiscoveryOptions<'_>) -> Result<Tensor> {
    let Grid { height, width } = picture.input_size;
    let input = options.frozen.input(&picture.input, [1, height, width])?;
    let [query, key, value] = options.frozen.forward(|network| Ok(network.last_qkv(&input)?))?;
    let vectors = match options.feature {
        AttentionFeature::Query => query,
        AttentionFeature::Key => key,
        AttentionFeature::Value => value,
    };
    Ok(heads_side_by_side(&vectors, options.frozen.network.config()))
}

/// Returns a row with the images as cells.
#[must_use]
pub fn image_row(found: &[Found]) -> Row {
    let cells = found.iter().map(|found| as_high_as_a_cell(&found.image.to_rgb())).collect();
    Row { cells, ..Row::default() }
}

/// Returns a row with the images, overlaid with their masks in colors, as cells.
#[must_use]
pub fn mask_row(label: &str, found: &[Found]) -> Row {
    let tinted = |found: &Found| with_masks(found.image.to_rgb(), &found.masks);
    Row::new(label, found.iter().map(|found| as_high_as_a_cell(&tinted(found))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_a_cell_per_image() {
        let image = Image::new(vec![100; 3 * 40 * 20], 40, 20, 3).unwrap();
        let mask = Mask::new(Grid::new(20, 40), vec![true; 800]).unwrap();
        let found = [Found { index: 0, image, masks: vec![mask], rounds: Vec::new() }];
        let (plain, tinted) = (image_row(&found), mask_row("runs/a", &found));
        assert_eq!((plain.cells.len(), tinted.cells.len()), (1, 1));
        assert_eq!(plain.cells[0].dimensions(), tinted.cells[0].dimensions());
        assert_eq!(tinted.cells[0].get_pixel(5, 5).0, [165, 80, 75]);
        assert_eq!(tinted.label, "runs/a");
    }
}
