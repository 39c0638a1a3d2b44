//! The training loader: endless micro-batches of global and local crops.

use std::sync::Arc;
use std::time::Duration;

use super::health::Health;
use super::pipeline::{Patience, Pipeline, WorkerPool};
use super::{BrokenImage, Crops};
use crate::batch::BatchGeometry;
use crate::config::DataConfig;
use crate::dataset::Dataset;
use crate::error::{Error, MemoryError, Result};
use crate::masking::{MaskGenerator, MaskKey, Masks};
use crate::sampler::{Draw, Sampler};
use augment::rng::{Purpose, Rng};
use augment::{CropKey, GLOBAL_CROPS, MultiCrop};

/// Number of images tried for one position of a batch before an error is returned.
const MAX_TRIES: usize = 64;

/// How long to keep waiting for a batch after the run is asked to stop. A batch that arrives in
/// time still makes a complete step.
const GRACE: Duration = Duration::from_secs(3);

/// Options of a [`TrainLoader`].
#[derive(Debug, Clone, PartialEq)]
pub struct LoaderConfig {
    /// Seed of the order and the crops.
    pub seed: u64,
    /// The batch of a step, and the part of it that this loader provides.
    pub geometry: BatchGeometry,
    /// Number of threads that decode and augment; `None` = one per core.
    pub workers: Option<usize>,
    /// Number of micro-batches prepared ahead, at least 1.
    pub prefetch: usize,
    /// Maximum fraction (0-1) of broken images among those read, checked once 50 images have been
    /// read.
    pub max_bad_fraction: f64,
}

impl LoaderConfig {
    /// Creates options with seed 0, and with the threads and limits of [`DataConfig`]'s defaults.
    pub fn new(geometry: BatchGeometry) -> Self {
        let DataConfig { workers, prefetch, max_bad_fraction, .. } = DataConfig::default();
        Self { seed: 0, geometry, workers, prefetch, max_bad_fraction }
    }
}

/// A position in the run. A loader that starts at a position delivers the same batches as one that
/// has reached it from the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// Epoch, from 0.
    pub epoch: u64,
    /// Optimizer step within the epoch, from 0.
    pub step: u64,
}

/// What to produce from the images of a batch.
#[derive(Debug, Clone)]
pub struct ViewPlan {
    /// The crops.
    pub crops: MultiCrop,
    /// Generator of the masks of the global crops, if they are needed.
    pub masks: Option<MaskGenerator>,
}

impl From<MultiCrop> for ViewPlan {
    fn from(crops: MultiCrop) -> Self {
        Self { crops, masks: None }
    }
}

/// One micro-batch of one process, with B images, whose pixels are in memory of type `P`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Batch<P = Vec<u8>> {
    /// Global crops, `[2 * B, S, S, C]`, with C values per pixel: all B of the first view, then
    /// all B of the second.
    pub global: Crops<P>,
    /// Local crops, `[V_l * B, s, s, C]` for V_l local views, view by view; `None` if there are no
    /// local views.
    pub local: Option<Crops<P>>,
    /// Masks of the global crops, if the loader's [`ViewPlan`] has a generator.
    pub masks: Option<Masks>,
    /// The number of images, B.
    pub micro_batch_size: usize,
    /// Index of each image in the dataset. If an image is broken, this is the index of its
    /// replacement; the crops are still drawn for the original index, so they differ from those
    /// that the replacement gets at its own position.
    pub samples: Vec<u64>,
    /// The optimizer step to which this batch belongs.
    pub position: Position,
    /// Index of the micro-batch within that step, from 0.
    pub micro: usize,
    /// Broken images that the loader found for the first time in this batch.
    pub broken: Vec<BrokenImage>,
}

/// An endless sequence of micro-batches, epoch after epoch. Dropping the loader stops its threads.
pub struct TrainLoader<P = Vec<u8>> {
    dataset: Arc<Dataset>,
    pipeline: Pipeline<Job, BuiltBatch<P>>,
    sampler: Sampler,
    geometry: BatchGeometry,
    prefetch: usize,
    /// Position and index of the micro-batch that is submitted next.
    next: (Position, usize),
    health: Health,
}

impl<P> std::fmt::Debug for TrainLoader<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrainLoader")
            .field("dataset", &self.dataset)
            .field("geometry", &self.geometry)
            .finish_non_exhaustive()
    }
}

impl TrainLoader {
    /// Creates a loader that begins at `start` and allocates new memory for each batch. A
    /// `start.step` beyond the end of its epoch continues in the following epochs.
    ///
    /// # Errors
    /// Returns an error if the batch is larger than the dataset, `prefetch` is 0, the augmentation
    /// changes colors that the images do not have, or the threads cannot be started.
    pub fn new(
        dataset: Arc<Dataset>,
        views: impl Into<ViewPlan>,
        config: LoaderConfig,
        start: Position,
    ) -> Result<Self> {
        Self::with_memory(dataset, views, config, start, |bytes| Ok(vec![0; bytes]))
    }
}

impl<P: AsRef<[u8]> + AsMut<[u8]> + Send + 'static> TrainLoader<P> {
    /// Like [`TrainLoader::new`], but the threads write pixels directly into memory that `memory`
    /// provides. Given a number of bytes, `memory` returns a buffer of exactly this size, whose
    /// contents may be arbitrary. Several threads may call it at once.
    ///
    /// # Errors
    /// Same as [`TrainLoader::new`]. An error of `memory` is returned for the batch for which it
    /// was called.
    pub fn with_memory(
        dataset: Arc<Dataset>,
        views: impl Into<ViewPlan>,
        config: LoaderConfig,
        start: Position,
        memory: impl Fn(usize) -> std::result::Result<P, MemoryError> + Send + Sync + 'static,
    ) -> Result<Self> {
        let views = views.into();
        let geometry = config.geometry;
        let sampler = Sampler::of_parts(config.seed, dataset.parts(), geometry)?;
        if config.prefetch == 0 {
            let problem = "must be at least 1 (got 0)".into();
            return Err(Error::Config { key: "data.prefetch", problem });
        }
        views.crops.config().check_colors(dataset.channels())?;
        let steps = sampler.steps_per_epoch();
        let start = Position { epoch: start.epoch + start.step / steps, step: start.step % steps };
        let builder = BatchBuilder {
            dataset: Arc::clone(&dataset),
            views,
            seed: config.seed,
            geometry,
            memory: Box::new(memory),
        };
        let pipeline = Pipeline::start(
            config.workers,
            config.prefetch,
            move |job, workers_pool: &WorkerPool| builder.make(job, workers_pool),
        )?;
        let health = Health::new(config.max_bad_fraction);
        let (prefetch, next) = (config.prefetch, (start, 0));
        Ok(Self { dataset, pipeline, sampler, geometry, prefetch, next, health })
    }

    /// Returns the number of optimizer steps in an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.sampler.steps_per_epoch()
    }

    /// Waits for the next micro-batch and returns it.
    ///
    /// # Errors
    /// Returns an error if too many images are broken, a worker failed, or the dataset was
    /// stopped ([`Dataset::stop_on`]) and no batch arrived for some seconds
    /// ([`Error::Interrupted`]).
    pub fn next_batch(&mut self) -> Result<Batch<P>> {
        self.refill();
        let stop = || self.dataset.is_stopped();
        match self.pipeline.next(&Patience { stop: &stop, grace: GRACE }) {
            Some(made) => self.deliver(made?),
            None => Err(Error::Worker { message: "no batch is in progress".into() }),
        }
    }

    /// Returns the next micro-batch if it is ready, without waiting.
    ///
    /// # Errors
    /// Same as [`Self::next_batch`], except that a stop of the dataset is not reported.
    pub fn try_next_batch(&mut self) -> Option<Result<Batch<P>>> {
        self.next_batch_within(Duration::ZERO)
    }

    /// Returns the next micro-batch if it arrives within `time`, for callers that have to check
    /// something else in between.
    ///
    /// # Errors
    /// Same as [`Self::next_batch`], except that a stop of the dataset is not reported.
    pub fn next_batch_within(&mut self, time: Duration) -> Option<Result<Batch<P>>> {
        self.refill();
        let made = self.pipeline.next_within(time)?;
        Some(made.and_then(|made| self.deliver(made)))
    }

    fn deliver(&mut self, made: BuiltBatch<P>) -> Result<Batch<P>> {
        // Refill the queue right away, so that the workers stay busy while the caller uses this
        // batch.
        self.refill();
        let (batch, broken) = self.health.pass(made.batch, made.read, made.broken)?;
        Ok(Batch { broken, ..batch })
    }

    /// Returns the broken images found for the first time in batches for which an error was
    /// returned since the last call.
    pub fn take_undelivered(&mut self) -> Vec<BrokenImage> {
        self.health.take_undelivered()
    }

    /// Keeps `prefetch` micro-batches in progress.
    fn refill(&mut self) {
        while self.pipeline.pending() < self.prefetch {
            let (position, micro) = self.next;
            let images = self.sampler.micro_batch(position.epoch, position.step, micro);
            self.pipeline.submit(Job { position, micro, images });
            self.next = self.after(position, micro);
        }
    }

    fn after(&self, mut position: Position, micro: usize) -> (Position, usize) {
        if micro + 1 < self.geometry.accumulate() {
            return (position, micro + 1);
        }
        position.step += 1;
        if position.step == self.sampler.steps_per_epoch() {
            position = Position { epoch: position.epoch + 1, step: 0 };
        }
        (position, 0)
    }
}

/// The images of one micro-batch.
struct Job {
    position: Position,
    micro: usize,
    images: Vec<Draw>,
}

/// A micro-batch and the broken images found while building it.
struct BuiltBatch<P> {
    /// An error if no readable image was found for a row.
    batch: Result<Batch<P>>,
    /// Number of images read, including replacements.
    read: usize,
    /// All broken images among them, in the order of the rows.
    broken: Vec<BrokenImage>,
}

/// Builds micro-batches. It is immutable and shared by all threads.
struct BatchBuilder<P> {
    dataset: Arc<Dataset>,
    views: ViewPlan,
    seed: u64,
    geometry: BatchGeometry,
    memory: Box<Memory<P>>,
}

type Memory<P> = dyn Fn(usize) -> std::result::Result<P, MemoryError> + Send + Sync;

/// An image of a batch, and the memory for its crops.
struct Row<'a> {
    draw: Draw,
    global: Vec<&'a mut [u8]>,
    local: Vec<&'a mut [u8]>,
    outcome: &'a mut Option<Result<Outcome>>,
}

/// The index of the image that was used for a row, if one could be read, and the broken images that
/// were tried before it.
struct Outcome {
    used: Result<usize>,
    broken: Vec<BrokenImage>,
}

impl<P: AsRef<[u8]> + AsMut<[u8]>> BatchBuilder<P> {
    fn make(&self, job: Job, workers_pool: &WorkerPool) -> Result<BuiltBatch<P>> {
        let config = self.views.crops.config();
        let (b, views) = (job.images.len(), config.local_crops_number);
        let mut global = self.crops(GLOBAL_CROPS * b, config.global_crops_size)?;
        let mut local = match views {
            0 => None,
            views => Some(self.crops(views * b, config.local_crops_size)?),
        };
        let mut outcomes: Vec<Option<Result<Outcome>>> = (0..b).map(|_| None).collect();
        let rows = job
            .images
            .iter()
            .zip(global.by_row(b))
            .zip(local.as_mut().map_or_else(|| no_crops(b), |local| local.by_row(b)))
            .zip(&mut outcomes)
            .map(|(((&draw, global), local), outcome)| Row { draw, global, local, outcome })
            .collect();
        workers_pool.for_each(rows, |mut row: Row<'_>| *row.outcome = Some(self.fill(&mut row)));

        let (mut used, mut broken, mut read) = (Vec::with_capacity(b), Vec::new(), 0);
        for outcome in outcomes {
            // A row has no outcome only if it was skipped because the loader is being dropped.
            let stopped = || Err(Error::Worker { message: "stopped".into() });
            let outcome = outcome.unwrap_or_else(stopped)?;
            read += usize::from(outcome.used.is_ok()) + outcome.broken.len();
            used.push(outcome.used.map(|index| index as u64));
            broken.extend(outcome.broken);
        }
        let masks = self.masks(&job);
        let batch = used.into_iter().collect::<Result<_>>().map(|samples| Batch {
            global,
            local,
            masks,
            micro_batch_size: b,
            samples,
            position: job.position,
            micro: job.micro,
            broken: Vec::new(),
        });
        Ok(BuiltBatch { batch, read, broken })
    }

    /// Allocates memory for `count` crops of `side` x `side` pixels.
    fn crops(&self, count: usize, side: u32) -> Result<Crops<P>> {
        let side = side as usize;
        let shape = [count, side, side, self.dataset.channels()];
        let expected = shape.iter().product();
        let pixels = (self.memory)(expected)
            .map_err(|source| Error::BatchMemory { bytes: expected, source })?;
        match pixels.as_ref().len() {
            got if got == expected => Ok(Crops { pixels, shape }),
            got => Err(augment::Error::Buffer { what: "memory of a batch", expected, got }.into()),
        }
    }

    fn masks(&self, job: &Job) -> Option<Masks> {
        let Position { epoch, step } = job.position;
        let key = MaskKey { seed: self.seed, epoch, step };
        let draw = |masks: &MaskGenerator| masks.batch(key, self.geometry, job.micro);
        self.views.masks.as_ref().map(draw)
    }

    /// Makes the crops of one row, using a replacement if the image is broken.
    fn fill(&self, row: &mut Row<'_>) -> Result<Outcome> {
        let mut broken = Vec::new();
        // The random numbers depend on the image and on how often it has been used, not on its
        // position.
        let (sample, epoch) = (row.draw.index as u64, row.draw.visit);
        for attempt in 0..MAX_TRIES {
            let used = match attempt {
                0 => row.draw.index,
                _ => {
                    let purpose = Purpose::Replacement(attempt as u32);
                    Rng::new(self.seed, epoch, sample, purpose).index(self.dataset.len())
                }
            };
            match self.dataset.image(used) {
                Ok(image) => {
                    let key = CropKey { seed: self.seed, epoch, sample };
                    self.views.crops.apply(
                        (&image).into(),
                        key,
                        &mut row.global,
                        &mut row.local,
                    )?;
                    return Ok(Outcome { used: Ok(used), broken });
                }
                Err(error) => {
                    broken.push(BrokenImage::new(used, self.dataset.name(used), error));
                }
            }
        }
        let BrokenImage { name: first, reason, .. } = broken[0].clone();
        let used = Err(Error::NoReadableImage { tried: MAX_TRIES, first, reason });
        Ok(Outcome { used, broken })
    }
}

fn no_crops<'a>(rows: usize) -> Vec<Vec<&'a mut [u8]>> {
    (0..rows).map(|_| Vec::new()).collect()
}
