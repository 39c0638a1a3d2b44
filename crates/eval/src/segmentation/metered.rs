//! The spread of the patch features that a protocol uses.

use std::cell::RefCell;

use tch::Tensor;

use super::features::{DenseExtractor, Layers};
use crate::error::Result;
use crate::spectrum::{Moment, Spread};

/// A network that also measures the patch features of its last block. It starts with
/// [`Self::restart`], so that a protocol can leave out what it does before its test.
pub struct Metered<'a> {
    network: &'a dyn DenseExtractor,
    /// Feature width of a block.
    width: i64,
    /// `None` until the start.
    moment: RefCell<Option<Moment>>,
}

impl std::fmt::Debug for Metered<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metered").field("width", &self.width).finish_non_exhaustive()
    }
}

impl<'a> Metered<'a> {
    /// Wraps a network with `width` features per block.
    pub fn new(network: &'a dyn DenseExtractor, width: i64) -> Self {
        Self { network, width, moment: RefCell::new(None) }
    }

    /// Forgets all features so far, and measures those from now on.
    pub fn restart(&self) {
        *self.moment.borrow_mut() = Some(Moment::default());
    }

    /// Returns the spread of the features since the start; `None` if there are none.
    ///
    /// # Errors
    /// Returns an error if a libtorch operation fails.
    pub fn spread(&self) -> Result<Option<Spread>> {
        let moment = self.moment.borrow();
        Ok(moment.as_ref().map(Moment::spread).transpose()?.flatten())
    }
}

impl DenseExtractor for Metered<'_> {
    fn maps(&self, images: &Tensor, layers: Layers, class_token: bool) -> Result<Tensor> {
        let maps = self.network.maps(images, layers, class_token)?; // [B, blocks * D, h, w]
        if let Some(moment) = &mut *self.moment.borrow_mut() {
            let after = if class_token { self.width } else { 0 };
            let last = maps.f_narrow(1, maps.size()[1] - after - self.width, self.width)?;
            // [B, D, h, w] -> [B * h * w, D]
            moment.add(&last.permute([0, 2, 3, 1]).reshape([-1, self.width]))?;
        }
        Ok(maps)
    }

    fn patch_size(&self) -> u32 {
        self.network.patch_size()
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    /// A network whose two blocks have two features each.
    struct Fixed;

    impl DenseExtractor for Fixed {
        fn maps(&self, images: &Tensor, _: Layers, class_token: bool) -> Result<Tensor> {
            let size = [images.size()[0], 2, 1, 2];
            let block = |value: f64| Tensor::full(size, value, (Kind::Float, Device::Cpu));
            let last = Tensor::from_slice(&[3.0_f32, 0.0, 0.0, 5.0]).view([1, 2, 1, 2]);
            let last = last.expand([size[0], -1, -1, -1], false);
            let parts = if class_token {
                vec![block(1.0), block(2.0), last, block(7.0)]
            } else {
                vec![block(1.0), last]
            };
            Ok(Tensor::cat(&parts, 1))
        }

        fn patch_size(&self) -> u32 {
            4
        }
    }

    #[test]
    fn the_patches_of_the_last_block_are_measured_since_the_start() {
        let images = Tensor::zeros([3, 3, 4, 8], (Kind::Float, Device::Cpu));
        for class_token in [false, true] {
            let metered = Metered::new(&Fixed, 2);
            let _ = metered.maps(&images, Layers::Last(2), class_token).unwrap();
            assert_eq!(metered.spread().unwrap(), None);
            metered.restart();
            assert_eq!(metered.spread().unwrap(), None);
            let _ = metered.maps(&images, Layers::Last(2), class_token).unwrap();
            // Half of the patches lie on one axis, and half on the other.
            let spread = metered.spread().unwrap().unwrap();
            assert!((spread.effective_rank - 2.0).abs() < 1e-9, "{spread:?}");
        }
    }
}
