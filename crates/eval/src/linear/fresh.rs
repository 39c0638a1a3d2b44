//! Features of random crops, computed during training.

use std::collections::BTreeSet;
use std::sync::Arc;

use augment::RandomCrop;
use data::Dataset;
use data::loader::EvalLoader;
use model::VisionTransformer;
use tch::Tensor;

use super::config::LinearConfig;
use super::order::StepPlan;
use crate::error::{Error, Result};
use crate::features::{ExtractOptions, FeatureSet};
use crate::order::Passes;
use crate::store::{ImageFeature, compute};

/// Training images from whose random crops the heads learn. A crop covers 8% to 100% of the image's
/// area, and is mirrored half of the time.
#[derive(Debug, Clone)]
pub struct FreshImages<'a> {
    /// The images.
    pub dataset: &'a Arc<Dataset>,
    /// Index in the dataset of each row of the training features.
    pub indices: &'a [usize],
    /// The network.
    pub network: &'a VisionTransformer,
    /// How features are computed. The transform's `crop` is the side of a random crop.
    pub options: &'a ExtractOptions,
}

/// The random crops of a training, in the order of its steps.
pub(super) struct Fresh<'a> {
    dataset: &'a Arc<Dataset>,
    network: &'a VisionTransformer,
    options: &'a ExtractOptions,
    features: Vec<ImageFeature>,
    wanted: BTreeSet<ImageFeature>,
    /// Index in the dataset of each image that the heads learn from.
    indices: Vec<usize>,
    seed: u64,
    /// The next step, and the loader and order of the remaining batches of its epoch.
    ahead: Option<(usize, EvalLoader, Passes)>,
}

impl<'a> Fresh<'a> {
    /// Prepares the crops. `kept` are the indices of the images to learn from among the labeled
    /// images of `train`.
    pub(super) fn new(
        images: FreshImages<'a>,
        train: &FeatureSet,
        kept: &Tensor,
        config: &LinearConfig,
    ) -> Result<Self> {
        let FreshImages { dataset, indices, network, options } = images;
        if indices.len() != train.len() {
            let got = vec![indices.len() as i64, train.len() as i64];
            let expected = "an index for each train image";
            return Err(Error::Shape { what: "indices of fresh images", expected, got });
        }
        let labeled = indices.iter().zip(&train.labels).filter(|(_, label)| label.is_some());
        let labeled: Vec<usize> = labeled.map(|(&index, _)| index).collect();
        let kept = Vec::<i64>::try_from(kept)?;
        let features = config.features();
        Ok(Self {
            dataset,
            network,
            options,
            wanted: features.iter().copied().collect(),
            features,
            indices: kept.iter().filter_map(|&i| labeled.get(i as usize).copied()).collect(),
            seed: config.seed,
            ahead: None,
        })
    }

    /// Returns the features of a step, `[B, F]`, and the index of each row's image among those that
    /// the heads learn from.
    pub(super) fn rows(&mut self, step: usize, order: &StepPlan) -> Result<(Tensor, Vec<i64>)> {
        let ahead = self.ahead.take().filter(|(next, ..)| *next == step);
        let (_, mut loader, mut passes) = match ahead {
            Some(ahead) => ahead,
            None => (step, self.loader(step, order)?, order.sequence()),
        };
        let uses = order.uses(step);
        let count = uses.len();
        let batch = match loader.next() {
            Some(batch) => batch?,
            None => return Err(Error::LostImages { count }),
        };
        if batch.indices.len() + batch.broken.len() != count {
            return Err(Error::LostImages { count });
        }
        // An image that could be read earlier but cannot be read now is only left out. An image may
        // occur twice in a batch, and be read once.
        let mut read = batch.indices.iter().peekable();
        let images: Vec<i64> = uses
            .map(|number| passes.image(number))
            .filter(|&image| read.next_if(|&&index| index == self.indices[image]).is_some())
            .map(|image| image as i64)
            .collect();
        let vectors = compute(self.network, &batch.images, self.options, &self.wanted)?;
        let parts: Vec<&Tensor> =
            self.features.iter().filter_map(|feature| vectors.get(feature)).collect();
        let last_of_epoch = (step + 1).is_multiple_of(order.epoch_steps);
        self.ahead = (!last_of_epoch).then_some((step + 1, loader, passes));
        Ok((Tensor::f_cat(&parts, 1)?, images))
    }

    /// Creates the loader of the batches from `step` to the end of its epoch.
    fn loader(&self, step: usize, order: &StepPlan) -> Result<EvalLoader> {
        let end = (step / order.epoch_steps + 1) * order.epoch_steps;
        let mut passes = order.sequence();
        let uses: Vec<(usize, u64)> = (step..end)
            .flat_map(|step| order.uses(step))
            .map(|number| (self.indices[passes.image(number)], number as u64))
            .collect();
        let crop = RandomCrop::new(self.options.transform.crop, self.seed);
        let batch = order.batch();
        let dataset = Arc::clone(self.dataset);
        Ok(EvalLoader::random_crops(dataset, crop, batch, self.options.workers, uses)?)
    }
}
