//! Patch features of images as maps `[B, D, h, w]`.

use augment::resize::resize;
use data::decode::Image;
use data::dense::LabelMap;
use model::{Mode, VisionTransformer};
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::frozen::Frozen;

/// The blocks whose patch tokens are used, each after the final norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layers {
    /// This many last blocks.
    Last(i64),
    /// Four blocks at a third, a half, two thirds, and the end of the depth, as in iBOT. For a
    /// depth of 12, their indices are 3, 5, 7, and 11.
    FourSpread,
    /// Four blocks at the ends of the quarters of the depth, as in DINOv2's depth heads. Their
    /// indices are 2, 5, 8, and 11 for a depth of 12, but 4, 11, 17, and 23 for a depth of 24.
    FourQuarters,
}

impl Layers {
    /// Returns the indices of the blocks for a network of this depth, counted from 0, in ascending
    /// order.
    fn indices(self, depth: i64) -> Vec<i64> {
        let mut indices: Vec<i64> = match self {
            Self::Last(count) => (depth - count.clamp(1, depth)..depth).collect(),
            Self::FourSpread => {
                [depth / 3, depth / 2, depth * 2 / 3, depth].map(|after| after.max(1) - 1).to_vec()
            }
            Self::FourQuarters if depth == 24 => vec![4, 11, 17, 23],
            Self::FourQuarters => {
                [depth / 4, depth / 2, depth * 3 / 4, depth].map(|after| after.max(1) - 1).to_vec()
            }
        };
        indices.dedup();
        indices
    }
}

/// A network that turns images into maps of patch features.
pub trait DenseExtractor {
    /// Computes the features `[B, D, h, w]` of normalized images `[B, C, H, W]` in fp32, without
    /// gradients. With `class_token`, the class token of each block follows its patch features
    /// along `D`, repeated at every patch.
    ///
    /// # Errors
    /// Returns an error if the model does not accept the images.
    fn maps(&self, images: &Tensor, layers: Layers, class_token: bool) -> Result<Tensor>;

    /// Returns the side of a patch in pixels; image sides must be multiples of it.
    fn patch_size(&self) -> u32;
}

impl DenseExtractor for VisionTransformer {
    fn maps(&self, images: &Tensor, layers: Layers, class_token: bool) -> Result<Tensor> {
        let indices = layers.indices(self.depth());
        let first = indices.first().copied().unwrap_or(0);
        let tokens = tch::no_grad(|| match layers {
            Layers::Last(1) => self.forward(images, Mode::Eval).map(|tokens| vec![tokens]),
            _ => self.intermediate_layers(images, self.depth() - first),
        })?;
        let chosen = (first..).zip(tokens).filter(|(index, _)| indices.contains(index));
        let mut maps: Vec<Tensor> = Vec::new();
        for (_, tokens) in chosen {
            let ((h, w), size) = (tokens.grid, tokens.patches.size());
            // [B, N, D] -> [B, D, N] -> [B, D, h, w]
            let patches = tokens.patches.to_kind(Kind::Float).transpose(1, 2);
            maps.push(patches.reshape([size[0], size[2], h, w]));
            if class_token {
                let class = tokens.cls.to_kind(Kind::Float).unsqueeze(-1).unsqueeze(-1);
                maps.push(class.expand([-1, -1, h, w], false)); // [B, D] -> [B, D, h, w]
            }
        }
        Ok(Tensor::f_cat(&maps, 1)?)
    }

    fn patch_size(&self) -> u32 {
        self.config().patch_size as u32
    }
}

/// A frozen network whose patch tokens are used.
#[derive(Clone, Copy)]
pub struct DenseNetwork<'a> {
    /// The network.
    pub frozen: Frozen<'a, dyn DenseExtractor + 'a>,
    /// The blocks whose patch tokens are used.
    pub layers: Layers,
    /// Whether class tokens are also used.
    pub class_token: bool,
}

impl std::fmt::Debug for DenseNetwork<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DenseNetwork").field("layers", &self.layers).finish_non_exhaustive()
    }
}

impl DenseNetwork<'_> {
    /// Normalizes images of equal size to `[B, C, H, W]` on the device.
    ///
    /// # Errors
    /// Returns an error if sizes differ, or if the number of channels does not match the
    /// normalization.
    pub fn input(&self, images: &[&Image]) -> Result<Tensor> {
        let (width, height) = images.first().map_or((0, 0), |image| image.dimensions());
        let mut pixels = Vec::with_capacity(images.iter().map(|image| image.data().len()).sum());
        images.iter().for_each(|image| pixels.extend_from_slice(image.data()));
        let shape = [images.len(), height as usize, width as usize];
        self.frozen.input(&pixels, shape)
    }

    /// Computes the features `[B, D, h, w]` of normalized images `[B, C, H, W]` of any size. Images
    /// are padded on the right and bottom to whole patches with zeros, the mean color.
    ///
    /// # Errors
    /// Returns an error if the model does not accept the images.
    pub fn maps(&self, input: &Tensor) -> Result<Tensor> {
        let patch = i64::from(self.frozen.network.patch_size());
        let size = input.size();
        let &[_, _, height, width] = size.as_slice() else {
            return Err(Error::Shape { what: "images", expected: "[B, C, H, W]", got: size });
        };
        let missing = |side: i64| (patch - side % patch) % patch;
        let input = match (missing(height), missing(width)) {
            (0, 0) => input.shallow_clone(),
            (bottom, right) => input.f_constant_pad_nd([0, right, 0, bottom])?,
        };
        self.frozen.forward(|network| network.maps(&input, self.layers, self.class_token))
    }

    /// Returns the color that becomes zero after normalization, rounded.
    pub(crate) fn mean_color(&self) -> Vec<u8> {
        self.frozen.normalize.mean.iter().map(|mean| (255.0 * mean + 0.5) as u8).collect()
    }

    /// Returns the multiple of the patch size that is nearest to `side`, at least one patch.
    pub fn whole_patches(&self, side: u32) -> u32 {
        whole_patches(side, self.frozen.network.patch_size())
    }
}

/// Returns the multiple of `patch` that is nearest to `side`, at least one patch.
pub(super) fn whole_patches(side: u32, patch: u32) -> u32 {
    let patch = patch.max(1);
    (side.saturating_add(patch / 2) / patch).max(1) * patch
}

/// Resizes an image with antialiased bicubic interpolation.
pub(crate) fn resized(image: &Image, width: u32, height: u32) -> Result<Image> {
    if image.dimensions() == (width, height) {
        return Ok(image.clone());
    }
    let planes = resize(image.into(), width, height)?;
    let mut data = vec![0; planes.bytes().len()];
    planes.store(&mut data);
    image_of(data, (width, height), image.channels())
}

/// Creates an image from `data`, `[height, width, channels]`.
pub(crate) fn image_of(
    data: Vec<u8>,
    (width, height): (u32, u32),
    channels: usize,
) -> Result<Image> {
    let (expected, got) = (width as usize * height as usize * channels, data.len());
    let wrong = || augment::Error::Buffer { what: "pixels of an image", expected, got };
    Ok(Image::new(data, width, height, channels).ok_or_else(wrong)?)
}

/// Resizes a class map from `from` to `to`, both `(width, height)`: each pixel takes the class at
/// its center.
pub(super) fn nearest_classes(ids: &[u8], from: (u32, u32), to: (u32, u32)) -> Vec<u8> {
    if from == to {
        return ids.to_vec();
    }
    let places = |from: u32, to: u32| -> Vec<usize> {
        let source = |i: u32| (u64::from(2 * i + 1) * u64::from(from) / u64::from(2 * to)) as usize;
        (0..to).map(source).collect()
    };
    let (columns, rows) = (places(from.0, to.0), places(from.1, to.1));
    let row = |y: usize| {
        let start = y * from.0 as usize;
        columns.iter().map(move |x| ids[start + x])
    };
    rows.into_iter().flat_map(row).collect()
}

/// [`nearest_classes`] for a [`LabelMap`].
pub(super) fn resized_labels(labels: &LabelMap, width: u32, height: u32) -> LabelMap {
    let ids = nearest_classes(&labels.ids, (labels.width, labels.height), (width, height));
    LabelMap { width, height, ids }
}

/// Number of classes whose scores are resized at once, to bound memory.
const CLASSES_AT_ONCE: i64 = 16;

/// Resizes scores `[K, h, w]` with bilinear interpolation, and returns the class with the largest
/// score at each pixel, the lowest one among equals.
pub(super) fn best_classes(scores: &Tensor, (width, height): (u32, u32)) -> Result<Vec<u8>> {
    let classes = scores.size3()?.0;
    let size = [i64::from(height), i64::from(width)];
    let mut best: Option<(Tensor, Tensor)> = None;
    for first in (0..classes).step_by(CLASSES_AT_ONCE as usize) {
        let some = scores.narrow(0, first, CLASSES_AT_ONCE.min(classes - first));
        let resized = some.unsqueeze(0).f_upsample_bilinear2d(size, false, None, None)?;
        let (values, places) = resized.squeeze_dim(0).max_dim(0, false); // -> 2 x [H, W]
        let places = (places + first).to_kind(Kind::Uint8);
        best = Some(match best {
            None => (values, places),
            Some((most, of)) => {
                let larger = values.gt_tensor(&most);
                (values.where_self(&larger, &most), places.where_self(&larger, &of))
            }
        });
    }
    let classes = best.map(|(_, classes)| classes.to_device(Device::Cpu));
    Ok(classes
        .map(|classes| Vec::<u8>::try_from(classes.contiguous().flatten(0, -1)))
        .transpose()?
        .unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_published_depths() {
        assert_eq!(Layers::FourSpread.indices(12), [3, 5, 7, 11]);
        assert_eq!(Layers::FourSpread.indices(24), [7, 11, 15, 23]);
        assert_eq!(Layers::FourSpread.indices(2), [0, 1]);
        assert_eq!(Layers::FourQuarters.indices(12), [2, 5, 8, 11]);
        assert_eq!(Layers::FourQuarters.indices(24), [4, 11, 17, 23]);
        assert_eq!(Layers::FourQuarters.indices(40), [9, 19, 29, 39]);
        assert_eq!(Layers::FourQuarters.indices(2), [0, 1]);
        assert_eq!(Layers::Last(1).indices(12), [11]);
        assert_eq!(Layers::Last(4).indices(3), [0, 1, 2]);
    }

    #[test]
    fn classes_are_taken_at_the_center() {
        assert_eq!(nearest_classes(&[1, 2, 3, 4], (4, 1), (2, 1)), [2, 4]);
        assert_eq!(nearest_classes(&[1, 2], (1, 2), (2, 4)), [1, 1, 1, 1, 2, 2, 2, 2]);
        assert_eq!(nearest_classes(&[1, 2, 3], (3, 1), (1, 1)), [2]);
    }

    #[test]
    fn the_lower_class_wins_a_tie() {
        let scores = Tensor::from_slice(&[1.0_f32, 5.0, 1.0, 7.0, 0.5, 7.0]).view([3, 1, 2]);
        assert_eq!(best_classes(&scores, (2, 1)).unwrap(), [0, 1]);
        assert_eq!(best_classes(&scores, (4, 1)).unwrap(), [0, 1, 1, 1]);
        // More classes than are resized at once.
        let many = Tensor::zeros([40, 1, 2], (Kind::Float, Device::Cpu));
        let _ = many.get(33).fill_(2.0);
        let _ = many.get(39).fill_(2.0);
        let _ = many.get(3).select(1, 0).fill_(2.0);
        assert_eq!(best_classes(&many, (2, 1)).unwrap(), [3, 33]);
    }
}
