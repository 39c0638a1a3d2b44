//! What a step takes in: normalised views on the device, fed from the loader.

use std::time::{Duration, Instant};

use data::loader::{Batch, BrokenImage, TrainLoader};
use model::normalize::Normalize;
use ndarray::Array4;
use tch::{Device, Tensor};

use crate::error::Result;

/// The views of one (micro-)batch on the device.
///
/// `B` images, `V_l` local views, views before images: all `B` of view 0, then all of view 1.
pub struct Views {
    /// `[2 B, C, S, S]`, C channels, normalised.
    pub global: Tensor,
    /// `[V_l B, C, s, s]`, normalised; none without local crops.
    pub local: Option<Tensor>,
    /// `B`.
    pub batch_size: i64,
}

impl Views {
    /// Copies a batch to `device` and normalises it there.
    pub fn new(batch: &Batch, normalize: &Normalize, device: Device) -> Result<Self> {
        let move_in = |pixels: &Array4<u8>| -> Result<Tensor> {
            let (b, h, w, _) = pixels.dim();
            let pixels = pixels.as_standard_layout();
            let bytes = pixels.as_slice().unwrap_or(&[]);
            Ok(normalize.apply(bytes, [b, h, w], device)?)
        };
        Ok(Self {
            global: move_in(&batch.global)?,
            local: batch.local.as_ref().map(move_in).transpose()?,
            batch_size: batch.batch_size as i64,
        })
    }

    /// Number of views of an image.
    pub fn num_views(&self) -> i64 {
        let local = self.local.as_ref().map_or(0, |l| l.size()[0]);
        (self.global.size()[0] + local) / self.batch_size
    }
}

/// Takes batches from the loader, and notes how long the step waited and what was broken.
pub struct Feed {
    loader: TrainLoader,
    normalize: Normalize,
    device: Device,
    waited: Duration,
    broken: Vec<BrokenImage>,
}

impl Feed {
    /// A feed from `loader` to `device`.
    pub fn new(loader: TrainLoader, normalize: Normalize, device: Device) -> Self {
        Self { loader, normalize, device, waited: Duration::ZERO, broken: Vec::new() }
    }

    /// The next micro-batch.
    pub fn next_views(&mut self) -> Result<Views> {
        let start = Instant::now();
        let mut batch = self.loader.next_batch()?;
        self.waited += start.elapsed();
        self.broken.append(&mut batch.broken);
        Views::new(&batch, &self.normalize, self.device)
    }

    /// Time waited for data since the last call.
    pub fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }

    /// Broken images met since the last call.
    pub fn take_broken(&mut self) -> Vec<BrokenImage> {
        std::mem::take(&mut self.broken)
    }
}
