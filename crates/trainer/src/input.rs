//! What a step takes in: normalized views and masks on the device, fed from the loader.

use std::time::{Duration, Instant};

use data::loader::{Batch, BrokenImage, Position, TrainLoader};
use data::masking::{MaskGenerator, MaskKey, Masks};
use data::sampler::BatchShare;
use model::ImageRange;
use model::normalize::Normalize;
use ndarray::Array4;
use objectives::MaskWeights;
use objectives::inputs::GLOBAL_VIEWS;
use tch::{Device, Kind, Tensor};

use crate::error::Result;

/// The views of one (micro-)batch on the device.
///
/// `B` images, `V_l` local views, views before images: all `B` of view 0, then all of view 1.
pub struct Views {
    /// `[2 B, C, S, S]`, C channels, normalized.
    pub global: Tensor,
    /// `[V_l B, C, s, s]`, normalized; none without local crops.
    pub local: Option<Tensor>,
    /// Patches that the student does not see, for objectives that ask for them.
    pub masks: Option<MaskedPatches>,
    /// Which images of the step these are: `B` of them.
    pub part: ImageRange,
    /// Index of each image in the data set.
    pub samples: Vec<u64>,
}

/// Patches of the global crops that are hidden from the student; `N` patches a crop, `m` hidden.
pub struct MaskedPatches {
    /// `[2 B, N]` bool, set where a patch is hidden.
    pub masks: Tensor,
    /// Places of the hidden patches in the flattened masks, `[m]`, ascending.
    pub indices: Tensor,
    /// Their weights.
    pub masked: MaskWeights,
}

impl Views {
    /// `B`.
    pub fn batch_size(&self) -> i64 {
        self.part.count
    }

    /// Number of views of an image.
    pub fn num_views(&self) -> i64 {
        let local = self.local.as_ref().map_or(0, |l| l.size()[0]);
        GLOBAL_VIEWS + local / self.batch_size()
    }
}

impl MaskedPatches {
    /// Copies masks to `device`.
    ///
    /// # Errors
    /// A libtorch operation fails.
    pub fn new(masks: &Masks, device: Device) -> Result<Self> {
        let (crops, patches) = masks.masks.dim();
        let flat: Vec<bool> = masks.masks.iter().copied().collect();
        let flat = Tensor::f_from_slice(&flat)?.f_view([crops as i64, patches as i64])?;
        let weights = Tensor::f_from_slice(&masks.weights)?.f_to_device(device)?;
        Ok(Self {
            masks: flat.f_to_device(device)?,
            indices: Tensor::f_from_slice(&masks.indices)?.f_to_device(device)?,
            masked: MaskWeights { weights, crops },
        })
    }
}

/// Where the pixels of a batch go, and how.
#[derive(Debug, Clone)]
pub struct InputPipeline {
    /// Mean and deviation of the channels.
    pub normalize: Normalize,
    /// The device.
    pub device: Device,
    /// What the images become.
    pub kind: Kind,
    /// The masks of a step, where the objective wants some.
    pub masks: Option<MaskGenerator>,
    /// Seed of the run.
    pub seed: u64,
    /// Images of a step, over all processes and micro-batches.
    pub global_batch: usize,
    /// Which of them are this process's.
    pub share: BatchShare,
}

impl InputPipeline {
    /// The views of a batch from the loader.
    ///
    /// # Errors
    /// A libtorch operation fails, or the share does not divide the batch.
    pub fn views(&self, batch: &Batch) -> Result<Views> {
        let move_in = |pixels: &Array4<u8>| -> Result<Tensor> {
            let (b, h, w, _) = pixels.dim();
            let pixels = pixels.as_standard_layout();
            let bytes = pixels.as_slice().unwrap_or(&[]);
            Ok(self.normalize.apply(bytes, [b, h, w], self.device)?.to_kind(self.kind))
        };
        Ok(Views {
            global: move_in(&batch.global)?,
            local: batch.local.as_ref().map(move_in).transpose()?,
            masks: self.masks_at(batch.position, batch.micro)?,
            part: image_range(self.share, self.global_batch, batch.micro),
            samples: batch.samples.clone(),
        })
    }

    /// The masks of a micro-batch, where the objective wants some.
    ///
    /// # Errors
    /// A libtorch operation fails, or the share does not divide the batch.
    pub fn masks_at(&self, at: Position, micro: usize) -> Result<Option<MaskedPatches>> {
        let Some(generator) = &self.masks else { return Ok(None) };
        let key = MaskKey { seed: self.seed, epoch: at.epoch, step: at.step };
        let masks = generator.batch(key, self.global_batch, self.share, micro)?;
        Ok(Some(MaskedPatches::new(&masks, self.device)?))
    }
}

/// The images of a micro-batch among those of the step.
pub fn image_range(share: BatchShare, global_batch: usize, micro: usize) -> ImageRange {
    let rows = share.rows(global_batch, micro);
    ImageRange { first: rows.start as i64, count: rows.len() as i64, of: global_batch as i64 }
}

/// Takes batches from the loader, and notes how long the step waited and what was broken.
pub struct DeviceLoader {
    loader: TrainLoader,
    pipeline: InputPipeline,
    waited: Duration,
    broken: Vec<BrokenImage>,
}

impl DeviceLoader {
    /// A feed of what the loader makes.
    pub fn new(loader: TrainLoader, pipeline: InputPipeline) -> Self {
        Self { loader, pipeline, waited: Duration::ZERO, broken: Vec::new() }
    }

    /// The next micro-batch.
    ///
    /// # Errors
    /// Too many images are broken, or a libtorch operation fails.
    pub fn next_views(&mut self) -> Result<Views> {
        let start = Instant::now();
        let mut batch = self.loader.next_batch()?;
        self.waited += start.elapsed();
        self.broken.append(&mut batch.broken);
        self.pipeline.views(&batch)
    }

    /// Time waited for data since the last call.
    pub fn take_wait_time(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }

    /// Broken images met since the last call.
    pub fn take_broken(&mut self) -> Vec<BrokenImage> {
        std::mem::take(&mut self.broken)
    }
}
