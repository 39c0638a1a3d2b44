//! Training of the linear head.

use data::dense::{DenseSample, in_order};
use data::loader::BrokenImage;
use serde::Serialize;
use tch::Tensor;

use super::config::LinearConfig;
use super::crops::{Crop, cut, fitted, random_crop};
use super::head::{LinearHead, Trainee, dropped};
use super::state::StateFile;
use super::windows::starts;
use crate::error::{Error, Result};
use crate::features::check_finite;
use crate::order::{Order, Passes};
use crate::segmentation::evaluate::DenseData;
use crate::segmentation::features::{DenseNetwork, resized, resized_labels};

/// A callback for the number of completed iterations and the loss of the last one, which is `None`
/// if all its pixels are ignored.
pub type Progress<'a> = dyn FnMut(u64, Option<f64>) + 'a;

/// Summary of a training.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct TrainReport {
    /// Number of training images.
    pub images: usize,
    /// Iteration at which an interrupted training resumed; 0 if it started from scratch.
    pub resumed_at: u64,
    /// Mean loss of the last tenth of this call's iterations; `None` if there was nothing left to
    /// do or nothing was labeled.
    pub loss: Option<f64>,
    /// Training images that could not be read. With augmentation, other images replaced them.
    #[serde(skip)]
    pub broken: Vec<BrokenImage>,
}

/// Trains a head on patch features of a frozen network.
///
/// Each image of an iteration depends only on the seed and its position in the whole training, so a
/// training that is interrupted and resumed yields the same head.
///
/// # Errors
/// Returns an error if a setting is out of range, no image is readable, no pixel is labeled, the features
/// or the loss are not finite, cached features do not fit, or the state belongs to another training.
pub fn train(
    network: DenseNetwork<'_>,
    data: &DenseData<'_>,
    config: &LinearConfig,
    state: Option<&StateFile>,
    progress: &mut Progress<'_>,
) -> Result<(LinearHead, TrainReport)> {
    config.check()?;
    let indices = data.indices();
    let classes = data.set.rules().classes() as i64;
    let mut training = Training {
        network,
        config,
        classes,
        state,
        trainee: None,
        losses: Vec::new(),
        resumed_at: 0,
        progress,
    };
    let broken = match config.cached {
        true => cached(&mut training, data, &indices)?,
        false => augmented(&mut training, data, &indices)?,
    };
    let Training { trainee, losses, resumed_at, .. } = training;
    let trainee = trainee.ok_or(Error::NothingLabeled)?;
    if !trainee.has_learned() {
        return Err(Error::NothingLabeled);
    }
    let last = &losses[losses.len() - losses.len().div_ceil(10)..];
    let loss = (!last.is_empty()).then(|| last.iter().sum::<f64>() / last.len() as f64);
    let images = indices.len() - broken.len();
    Ok((trainee.head, TrainReport { images, resumed_at, loss, broken }))
}

/// The state of a training in progress.
struct Training<'a, 'b> {
    network: DenseNetwork<'a>,
    config: &'a LinearConfig,
    classes: i64,
    state: Option<&'a StateFile>,
    /// `None` until the number of channels is known.
    trainee: Option<Trainee>,
    losses: Vec<f64>,
    resumed_at: u64,
    progress: &'a mut Progress<'b>,
}

impl Training<'_, '_> {
    /// Creates the head for features of this width, or restores a saved one; returns the iteration
    /// at which training starts.
    fn start(&mut self, dim: i64) -> Result<u64> {
        let head = LinearHead::new(dim, self.classes, self.config, self.network.frozen.device);
        let trainee = Trainee::new(head);
        self.resumed_at = self.state.map_or(Ok(0), |state| state.load(&trainee.tensors()))?;
        self.trainee = Some(trainee);
        Ok(self.resumed_at)
    }

    /// Performs iteration `t` on features `[B, D, h, w]` and classes `[B, H, W]`.
    fn step(&mut self, t: u64, maps: &Tensor, labels: &Tensor) -> Result<()> {
        let Some(trainee) = &mut self.trainee else { return Ok(()) };
        let labels = labels.to_device(self.network.frozen.device);
        let maps = dropped(maps, self.config, t)?;
        let loss = trainee.step(&maps, &labels, self.config, self.config.lr_at(t))?;
        self.losses.extend(loss);
        let done = t + 1;
        if let Some(state) = self.state.filter(|state| state.is_due(done, self.config.iterations)) {
            state.save(trainee.tensors(), done)?;
        }
        (self.progress)(done, loss);
        Ok(())
    }
}

/// Trains on random crops, whose features are computed in each iteration.
fn augmented(
    training: &mut Training<'_, '_>,
    data: &DenseData<'_>,
    indices: &[usize],
) -> Result<Vec<BrokenImage>> {
    let (network, config) = (training.network, training.config);
    let fill = network.mean_color();
    let order = Order::new(indices, config.seed);
    let crop_at = |place| {
        let (sample, at) =
            order.draw(place, |index| data.set.load(index), |index| data.set.name(index))?;
        random_crop(&sample, config, &fill, at.epoch, at.index)
    };
    // The first crop determines the feature width.
    let first = crop_at(0)?;
    let start = training.start(network.maps(&network.input(&[&first.image])?)?.size()[1])?;
    let (batch, side) = (config.batch, i64::from(config.crop));
    let places = start as usize * batch..config.iterations as usize * batch;
    let mut crops: Vec<Crop> = Vec::with_capacity(batch);
    in_order(places, data.threads(), crop_at, |place, crop| {
        crops.push(crop?);
        if crops.len() < batch {
            return Ok(());
        }
        let images: Vec<_> = crops.iter().map(|crop| &crop.image).collect();
        let maps = network.maps(&network.input(&images)?)?;
        check_finite(&maps.flatten(1, -1), "training")?;
        let labels: Vec<u8> = crops.iter().flat_map(|crop| &crop.labels).copied().collect();
        let labels = Tensor::from_slice(&labels).view([batch as i64, side, side]);
        crops.clear();
        training.step((place / batch) as u64, &maps, &labels)
    })?;
    Ok(order.broken())
}

/// Trains on features of the windows of each image, computed once and without augmentation.
fn cached(
    training: &mut Training<'_, '_>,
    data: &DenseData<'_>,
    indices: &[usize],
) -> Result<Vec<BrokenImage>> {
    let (network, config) = (training.network, training.config);
    let fill = network.mean_color();
    let long = config.long_side.map(f64::from);
    let windows = |_, sample: DenseSample| {
        let (width, height) = fitted(sample.image.dimensions(), f64::from(config.short_side), long);
        let image = resized(&sample.image, width, height)?;
        let labels = resized_labels(&sample.labels, width, height);
        let starts =
            |side: u32| starts(i64::from(side), i64::from(config.crop), i64::from(config.stride));
        let places =
            starts(height).flat_map(|top| starts(width).map(move |left| (left as u32, top as u32)));
        places.map(|at| cut(&image, &labels, at, config.crop, &fill)).collect::<Result<Vec<_>>>()
    };
    let (mut maps, mut labels, mut bytes) = (Vec::new(), Vec::new(), 0);
    let read = data.each(indices, windows, |_, crops| {
        for crop in crops {
            let map = network.maps(&network.input(&[&crop.image])?)?; // [1, D, h, w]
            check_finite(&map.flatten(1, -1), "training")?;
            bytes += 4 * map.numel();
            maps.push(map);
            labels.push(Tensor::from_slice(&crop.labels));
        }
        let most = config.cache_gb * 1e9;
        match bytes as f64 > most {
            true => Err(Error::CacheTooSmall { gb: config.cache_gb }),
            false => Ok(()),
        }
    })?;
    let (maps, labels) = (Tensor::f_cat(&maps, 0)?, Tensor::f_stack(&labels, 0)?);
    let side = i64::from(config.crop);
    let start = training.start(maps.size()[1])?;
    let mut passes = Passes::dense(config.seed, maps.size()[0] as usize);
    for t in start..config.iterations {
        let chosen: Vec<i64> =
            (0..config.batch).map(|i| passes.image(t as usize * config.batch + i) as i64).collect();
        let chosen = Tensor::from_slice(&chosen);
        let labels = labels.index_select(0, &chosen).view([-1, side, side]);
        training.step(t, &maps.index_select(0, &chosen.to_device(maps.device())), &labels)?;
    }
    Ok(read.broken)
}
