//! A frozen network for evaluations.

use model::VisionTransformer;
use model::normalize::Normalize;
use tch::{Device, Tensor};

use crate::error::Result;
use crate::features::FeaturePrecision;

/// A frozen network, and how images are prepared for it.
#[derive(Debug)]
pub struct Frozen<'a, N: ?Sized = VisionTransformer> {
    /// The network.
    pub network: &'a N,
    /// Mean and standard deviation of its input channels.
    pub normalize: &'a Normalize,
    /// Its device.
    pub device: Device,
    /// Precision of the forward pass.
    pub precision: FeaturePrecision,
}

// Derived implementations would require `N: Clone` and `N: Copy`.
impl<N: ?Sized> Clone for Frozen<'_, N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<N: ?Sized> Copy for Frozen<'_, N> {}

impl<N: ?Sized> Frozen<'_, N> {
    /// Normalizes the pixels of images with `shape` `[B, H, W]` to `[B, C, H, W]` on the device.
    pub(crate) fn input(&self, pixels: &[u8], shape: [usize; 3]) -> Result<Tensor> {
        Ok(self.normalize.apply(pixels, shape, self.device)?)
    }

    /// Returns a text that identifies how images are prepared; features change whenever it changes.
    pub(crate) fn preparation(&self) -> String {
        format!("{} {:?} {:?}", self.precision, self.normalize.mean, self.normalize.std)
    }

    /// Runs a forward pass in the precision of the network, without gradients.
    pub(crate) fn forward<T>(&self, work: impl FnOnce(&N) -> Result<T>) -> Result<T> {
        let work = || tch::no_grad(|| work(self.network));
        match self.precision.autocast() {
            None => work(),
            kind => torch_ext::autocast(self.device, kind, work)?,
        }
    }
}
