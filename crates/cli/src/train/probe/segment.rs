//! The segmentation probe.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use data::dense::DenseSet;
use eval::segmentation::knn::{PatchConfig, TrainPatches};
use eval::segmentation::{DenseData, DenseExtractor, DenseNetwork, Layers, evaluate_shared};
use eval::{Error, ExtractOptions, Frozen};
use model::VisionTransformer;
use tch::Tensor;
use trainer::probe::{Moment, ProbeError};

use super::images::left_out;

/// Segmentation by k-NN on patches: two sets of images with a class for every pixel, and the
/// settings.
pub struct Segmentation {
    /// Images whose patches are the neighbors.
    pub train: DenseSet,
    /// Images that are segmented.
    pub test: DenseSet,
    /// Maximum numbers of images of `train` and `test`.
    pub limits: [Option<usize>; 2],
    /// Settings of the protocol.
    pub config: PatchConfig,
    /// How features are extracted.
    pub options: ExtractOptions,
    /// Set as soon as the run is asked to stop.
    pub stop: Arc<AtomicBool>,
}

impl Segmentation {
    /// Returns both sets with their limits, `train` first.
    pub fn data(&self) -> [DenseData<'_>; 2] {
        let workers = self.options.workers;
        let [train, test] = self.limits;
        [
            DenseData { set: &self.train, limit: train, workers },
            DenseData { set: &self.test, limit: test, workers },
        ]
    }

    /// Measures the mean IoU, and returns it with sentences about images that could not be read.
    ///
    /// # Errors
    /// Returns an error if no image can be read, no pixel is labeled, the run is asked to stop, or
    /// a process fails.
    pub fn measure(&self, moment: &Moment<'_>) -> Result<(f64, Vec<String>), ProbeError> {
        let network = Stoppable { network: moment.backbone, stop: &self.stop };
        let ExtractOptions { normalize, device, precision, .. } = &self.options;
        let frozen = Frozen {
            network: &network as &dyn DenseExtractor,
            normalize,
            device: *device,
            precision: *precision,
        };
        let network = DenseNetwork { frozen, layers: Layers::Last(1), class_token: false };
        let ([train, test], processes) = (self.data(), moment.processes.collective());
        let of = |images: &'static str, labels: &'static str| {
            move |error: Error| -> ProbeError {
                let key = match error {
                    Error::NothingLabeled | Error::NothingToScore => labels,
                    _ => images,
                };
                format!("probe.segment.{key}: {}", base::error_chain(&error)).into()
            }
        };
        let patches =
            TrainPatches::shared(network, &train, &self.config, processes, &mut |_, _| ())
                .map_err(of("images", "labels"))?;
        let (segmenter, _) = patches.knn_shared(processes).map_err(of("images", "labels"))?;
        let evaluated = evaluate_shared(&test, &segmenter, patches.config().mask, processes)
            .map_err(of("test_images", "test_labels"))?;
        let score = evaluated.confusion.score().map_err(of("test_images", "test_labels"))?;
        let broken =
            [("images", &train, &patches.broken), ("test_images", &test, &evaluated.broken)];
        let sentence = |(key, data, broken): &(&str, &DenseData, &Vec<_>)| {
            let (path, total) = (data.set.path().display(), count(data));
            let about =
                format!("probe.segment.{key}: {} of {total} images in {path}", broken.len());
            left_out(&about, broken)
        };
        Ok((score.miou, broken.iter().filter_map(sentence).collect()))
    }
}

/// Returns the number of images of a set that are used.
pub fn count(data: &DenseData<'_>) -> usize {
    data.set.len().min(data.limit.unwrap_or(usize::MAX))
}

/// A network that returns an error as soon as the run is asked to stop.
struct Stoppable<'a> {
    network: &'a VisionTransformer,
    stop: &'a AtomicBool,
}

impl DenseExtractor for Stoppable<'_> {
    fn maps(&self, images: &Tensor, layers: Layers, class_token: bool) -> eval::Result<Tensor> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(data::Error::Interrupted.into());
        }
        self.network.maps(images, layers, class_token)
    }

    fn patch_size(&self) -> u32 {
        self.network.patch_size()
    }
}
