//! Training of the depth head.

use std::path::Path;

use data::dense::in_order;
use data::loader::BrokenImage;
use serde::Serialize;
use tch::Tensor;

use super::DepthData;
use super::config::DepthConfig;
use super::head::{DepthHead, Trainee};
use super::sample::{Crop, random_crop};
use crate::error::{Error, Result};
use crate::features::check_finite;
use crate::order::Order;
use crate::segmentation::linear::{Progress, StateFile};
use crate::segmentation::{DenseNetwork, threads};

/// Summary of a training.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct DepthReport {
    /// Number of training images.
    pub images: usize,
    /// Iteration at which an interrupted training resumed; 0 if it started from scratch.
    pub resumed_at: u64,
    /// Training images that could not be read and were replaced by others.
    #[serde(skip)]
    pub broken: Vec<BrokenImage>,
}

/// Returns the state file in `folder` for training on features of `network`, whose weights have
/// this `fingerprint`.
///
/// # Errors
/// Returns an error if the settings cannot be serialized.
pub fn state_file(
    folder: &Path,
    fingerprint: &str,
    network: &DenseNetwork<'_>,
    data: &DepthData<'_>,
    config: &DepthConfig,
) -> Result<StateFile> {
    let seen = network.frozen.preparation();
    let subject = format!("{fingerprint} {seen} {} {:?}", data.set.fingerprint(), data.indices());
    StateFile::of(folder, "depth", &subject, &config.of_training())
}

/// Trains a head on the features of random crops.
///
/// Each crop depends only on the seed and its position in the whole training, so a training that is
/// interrupted and resumed yields the same head.
///
/// # Errors
/// Returns an error if a setting is out of range, no image is readable, no depth is in range, the features or the loss are
/// not finite, or the state belongs to another training.
pub fn train(
    network: DenseNetwork<'_>,
    data: &DepthData<'_>,
    config: &DepthConfig,
    state: Option<&StateFile>,
    progress: &mut Progress<'_>,
) -> Result<(DepthHead, DepthReport)> {
    config.check()?;
    let indices = data.indices();
    let (order, fill) = (Order::new(&indices, config.seed), network.mean_color());
    let crop_at = |place| {
        let (sample, at) =
            order.draw(place, |index| data.set.load(index), |index| data.set.name(index))?;
        random_crop(&sample, config, &fill, at.epoch, at.index)
    };
    // The first crop determines the feature width.
    let dim = network.maps(&network.input(&[&crop_at(0)?.image])?)?.size()[1];
    let mut trainee = Trainee::new(DepthHead::new(dim, config, network.frozen.device));
    let resumed_at = state.map_or(Ok(0), |state| state.load(&trainee.tensors()))?;
    let (batch, [height, width]) = (config.batch, config.crop.map(i64::from));
    let places = resumed_at as usize * batch..config.iterations as usize * batch;
    let mut crops: Vec<Crop> = Vec::with_capacity(batch);
    in_order(places, threads(data.workers), crop_at, |place, crop| {
        crops.push(crop?);
        if crops.len() < batch {
            return Ok(());
        }
        let images: Vec<_> = crops.iter().map(|crop| &crop.image).collect();
        let patch = i64::from(network.frozen.network.patch_size());
        let maps = network.maps(&network.input(&images)?)?;
        check_finite(&maps.flatten(1, -1), "training")?;
        let meters: Vec<f32> = crops.iter().flat_map(|crop| &crop.meters).copied().collect();
        let truth = Tensor::from_slice(&meters).view([batch as i64, height, width]);
        crops.clear();
        let iteration = (place / batch) as u64;
        let loss =
            trainee.step(&maps, &truth.to_device(maps.device()), patch, config, iteration)?;
        let done = iteration + 1;
        if let Some(state) = state.filter(|state| state.is_due(done, config.iterations)) {
            state.save(trainee.tensors(), done)?;
        }
        progress(done, loss);
        Ok::<_, Error>(())
    })?;
    if !trainee.has_learned() {
        let (least, most) = (config.min_depth, config.max_depth);
        return Err(Error::NoDepths { least, most });
    }
    let broken = order.broken();
    let images = indices.len() - broken.len();
    Ok((trainee.head, DepthReport { images, resumed_at, broken }))
}
