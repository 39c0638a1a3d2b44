//! Inputs of a step: normalized views and masks on the device, which [`crate::feed`] copies there.

use data::batch::BatchGeometry;
use model::ImageRange;
use objectives::{GLOBAL_VIEWS, MaskWeights};
use tch::Tensor;

/// The views of one (micro-)batch on the device.
///
/// `B` images, `V_l` local views. Rows are ordered by view and then by image: all `B` images of
/// view 0, then all of view 1.
pub struct Views {
    /// `[2 B, C, S, S]`, C channels, normalized.
    pub global: Tensor,
    /// `[V_l B, C, s, s]`, normalized; `None` without local crops.
    pub local: Option<Tensor>,
    /// Patches that are hidden from the student, for objectives that request them.
    pub masks: Option<MaskedPatches>,
    /// Which `B` images of the step these are.
    pub part: ImageRange,
    /// Index of each image in the dataset.
    pub samples: Vec<u64>,
}

/// Patches of the global crops that are hidden from the student; `N` patches per crop, `m` hidden.
pub struct MaskedPatches {
    /// `[2 B, N]` bool, set where a patch is hidden.
    pub masks: Tensor,
    /// Positions of the hidden patches in the flattened masks, `[m]`, ascending.
    pub indices: Tensor,
    /// Weights of the hidden patches in the loss.
    pub masked: MaskWeights,
}

impl Views {
    /// Returns the number of images, `B`.
    pub fn micro_batch_size(&self) -> i64 {
        self.part.count
    }

    /// Returns the number of views per image.
    pub fn num_views(&self) -> i64 {
        let local = self.local.as_ref().map_or(0, |l| l.size()[0]);
        GLOBAL_VIEWS + local / self.micro_batch_size()
    }
}

/// Returns the range of a micro-batch's images among those of the step.
pub fn image_range(geometry: BatchGeometry, micro: usize) -> ImageRange {
    let rows = geometry.rows(micro);
    let of = geometry.batch_size() as i64;
    ImageRange { first: rows.start as i64, count: rows.len() as i64, of }
}
