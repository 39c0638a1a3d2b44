//! Pictures of multi-crop augmentation.

use augment::{AugmentConfig, CropKey, EvalTransform, GLOBAL_CROPS, MultiCrop};
use data::Dataset;
use data::decode::Image;
use image::RgbImage;

use super::sheet::{Row, enlarge, lay_out, stack, zoom};
use crate::error::{Error, Result};

/// Draws one row per image index and epoch: the center of the image, the two global crops, and the
/// local crops, as in training with `seed`. Of images with more than three channels, the first
/// three are shown.
///
/// # Errors
/// Returns an error if `rows` is empty or an image cannot be read.
pub fn crop_sheet(
    dataset: &Dataset,
    rows: &[(usize, u64)],
    augment: &AugmentConfig,
    seed: u64,
) -> Result<RgbImage> {
    if rows.is_empty() {
        return Err(Error::Setting { key: "images", problem: "needs at least one".to_owned() });
    }
    let multi_crop = MultiCrop::new(augment);
    let rows = rows.iter().map(|&(index, epoch)| {
        let key = CropKey { seed, epoch, sample: index as u64 };
        row(&dataset.image(index)?, &multi_crop, augment, key)
    });
    Ok(lay_out(&rows.collect::<Result<Vec<_>>>()?))
}

fn row(
    image: &Image,
    multi_crop: &MultiCrop,
    augment: &AugmentConfig,
    key: CropKey,
) -> Result<Row> {
    let (global_side, local_side) = (augment.global_crops_size, augment.local_crops_size);
    let bytes = |side: u32| image.channels() * side as usize * side as usize;
    let mut globals = vec![vec![0; bytes(global_side)]; GLOBAL_CROPS];
    let mut locals = vec![vec![0; bytes(local_side)]; augment.local_crops_number];
    let mut global_out: Vec<&mut [u8]> = globals.iter_mut().map(Vec::as_mut_slice).collect();
    let mut local_out: Vec<&mut [u8]> = locals.iter_mut().map(Vec::as_mut_slice).collect();
    multi_crop.apply(image.into(), key, &mut global_out, &mut local_out)?;
    let shown = |crops: Vec<Vec<u8>>, side: u32| -> Vec<RgbImage> {
        let crops = crops.into_iter().filter_map(|c| Image::new(c, side, side, image.channels()));
        crops.map(|crop| crop.to_rgb()).collect()
    };
    let (globals, locals) = (shown(globals, global_side), shown(locals, local_side));
    let original = EvalTransform { resize: global_side, crop: global_side };
    let original = original.apply(image.into())?.to_rgb();
    let factor = zoom(global_side);
    let enlarged = |cell: &RgbImage| enlarge(cell, factor);
    let mut cells: Vec<RgbImage> =
        std::iter::once(&original).chain(&globals).map(enlarged).collect();
    cells.extend(stack(locals.iter().map(enlarged).collect(), global_side * factor));
    Ok(Row { cells, ..Row::default() })
}
