//! Moves batches from the loader to the device: the next batch is copied while the current step
//! computes.
//!
//! The loader's threads write the pixels into memory that the device can copy from directly. The
//! copies do not wait for any computation, and a computation waits only for its own copies.

use std::sync::Arc;
use std::time::{Duration, Instant};

use data::Dataset;
use data::batch::BatchGeometry;
use data::loader::{Batch, BrokenImage, Crops, LoaderConfig, Position, TrainLoader, ViewPlan};
use data::masking::Masks;
use model::ImageRange;
use model::normalize::Normalizer;
use objectives::MaskWeights;
use tch::{Device, Kind};
use torch_ext::{HostBuffer, HostPool, Upload, Uploader};

use crate::error::Result;
use crate::input::{MaskedPatches, Views, image_range};

/// Starts copies to a device.
pub struct Sender {
    memory: HostPool,
    uploader: Uploader,
}

/// Masks that are being copied to a device.
pub struct SentMasks {
    masks: Upload,
    indices: Upload,
    weights: Upload,
    crops: usize,
}

/// A micro-batch that is being copied to a device.
struct SentBatch {
    global: Upload,
    local: Option<Upload>,
    masks: Option<SentMasks>,
    part: ImageRange,
    samples: Vec<u64>,
    broken: Vec<BrokenImage>,
}

impl Sender {
    /// Creates a sender for copies to `device`.
    ///
    /// # Errors
    /// Returns an error if the device does not exist.
    pub fn new(device: Device) -> Result<Self> {
        Ok(Self { memory: HostPool::new(device)?, uploader: Uploader::new(device)? })
    }

    /// Starts copying masks.
    ///
    /// # Errors
    /// Returns an error if there is not enough memory for them on the host or the device.
    pub fn send_masks(&self, masks: &Masks) -> Result<SentMasks> {
        let (crops, patches) = masks.masks.dim();
        let shape = [crops as i64, patches as i64];
        let hidden = [masks.indices.len() as i64];
        let flags = masks.masks.iter().map(|&hidden| [u8::from(hidden)]);
        let indices = masks.indices.iter().map(|index| index.to_ne_bytes());
        let weights = masks.weights.iter().map(|weight| weight.to_ne_bytes());
        Ok(SentMasks {
            masks: self.send_values(flags, Kind::Bool, &shape)?,
            indices: self.send_values(indices, Kind::Int64, &hidden)?,
            weights: self.send_values(weights, Kind::Float, &hidden)?,
            crops,
        })
    }

    /// Starts copying values of `N` bytes each.
    fn send_values<const N: usize>(
        &self,
        values: impl ExactSizeIterator<Item = [u8; N]>,
        kind: Kind,
        shape: &[i64],
    ) -> Result<Upload> {
        let mut buffer = self.memory.take(values.len() * N)?;
        buffer.as_mut().chunks_exact_mut(N).zip(values).for_each(|(to, v)| to.copy_from_slice(&v));
        Ok(self.uploader.send(buffer, kind, shape)?)
    }

    fn send_crops(&self, crops: Crops<HostBuffer>) -> Result<Upload> {
        let shape = crops.shape.map(|length| length as i64);
        Ok(self.uploader.send(crops.pixels, Kind::Uint8, &shape)?)
    }

    fn send(&self, batch: Batch<HostBuffer>, part: ImageRange) -> Result<SentBatch> {
        let Batch { global, local, masks, samples, broken, .. } = batch;
        Ok(SentBatch {
            global: self.send_crops(global)?,
            local: local.map(|local| self.send_crops(local)).transpose()?,
            masks: masks.map(|masks| self.send_masks(&masks)).transpose()?,
            part,
            samples,
            broken,
        })
    }
}

impl SentMasks {
    /// Returns the masks, for use by work that this thread launches from now on.
    ///
    /// # Errors
    /// Returns an error if the device is lost.
    pub fn receive(self) -> Result<MaskedPatches> {
        Ok(MaskedPatches {
            masks: self.masks.receive()?,
            indices: self.indices.receive()?,
            masked: MaskWeights { weights: self.weights.receive()?, crops: self.crops },
        })
    }
}

/// Takes batches from the loader, sends each to the device one batch ahead, and records how long
/// the step waited and which images were broken. Dropping it stops the loader's threads.
pub struct DeviceLoader {
    loader: TrainLoader<HostBuffer>,
    sender: Sender,
    normalizer: Normalizer,
    geometry: BatchGeometry,
    /// The batch after the last one returned, or the error that occurred instead.
    ahead: Option<Result<SentBatch>>,
    waited: Duration,
    broken: Vec<BrokenImage>,
}

impl DeviceLoader {
    /// Creates a loader whose batches start at `start` and go to the device of `normalizer`.
    ///
    /// # Errors
    /// Same as [`TrainLoader::new`]. Also returns an error if the device does not exist.
    pub fn new(
        dataset: Arc<Dataset>,
        views: ViewPlan,
        config: LoaderConfig,
        start: Position,
        normalizer: Normalizer,
    ) -> Result<Self> {
        let geometry = config.geometry;
        let sender = Sender::new(normalizer.device())?;
        let memory = sender.memory.clone();
        let memory = move |bytes| memory.take(bytes).map_err(Into::into);
        let loader = TrainLoader::with_memory(dataset, views, config, start, memory)?;
        let (ahead, waited, broken) = (None, Duration::ZERO, Vec::new());
        Ok(Self { loader, sender, normalizer, geometry, ahead, waited, broken })
    }

    /// Returns the next micro-batch.
    ///
    /// # Errors
    /// Returns an error if too many images are broken or a libtorch operation fails.
    pub fn next_views(&mut self) -> Result<Views> {
        let sent = match self.ahead.take() {
            Some(sent) => sent,
            None => self.wait(),
        };
        let views = match sent {
            Ok(sent) => self.receive(sent)?,
            Err(error) => {
                self.broken.append(&mut self.loader.take_undelivered());
                return Err(error);
            }
        };
        // Takes a batch only if it is ready: this step must not wait for the images of the next.
        let next = self.loader.try_next_batch();
        self.ahead = next.map(|batch| self.send(batch?));
        Ok(views)
    }

    fn wait(&mut self) -> Result<SentBatch> {
        let start = Instant::now();
        let batch = self.loader.next_batch()?;
        self.waited += start.elapsed();
        self.send(batch)
    }

    fn send(&self, batch: Batch<HostBuffer>) -> Result<SentBatch> {
        let part = image_range(self.geometry, batch.micro);
        self.sender.send(batch, part)
    }

    fn receive(&mut self, mut sent: SentBatch) -> Result<Views> {
        self.broken.append(&mut sent.broken);
        let normalized =
            |pixels: Upload| -> Result<_> { Ok(self.normalizer.apply(&pixels.receive()?)?) };
        Ok(Views {
            global: normalized(sent.global)?,
            local: sent.local.map(normalized).transpose()?,
            masks: sent.masks.map(SentMasks::receive).transpose()?,
            part: sent.part,
            samples: sent.samples,
        })
    }

    /// Returns the time spent waiting for data since the last call.
    pub fn take_wait_time(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }

    /// Returns the broken images of the micro-batches returned since the last call, and of one that
    /// was replaced by an error.
    pub fn take_broken(&mut self) -> Vec<BrokenImage> {
        std::mem::take(&mut self.broken)
    }
}
