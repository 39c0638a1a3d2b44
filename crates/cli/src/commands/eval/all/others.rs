//! The protocols of `simdino eval all` on images without a class per image.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::args::{AllArgs, OtherImages};
use crate::commands::eval::dense::{in_context, patches, segment};
use crate::commands::eval::networks::Opened;
use crate::commands::eval::outcome::Measured;
use crate::commands::eval::sheet::Sheet;
use crate::commands::eval::{copy, depth, maskcut, retrieval, video};
use crate::failure::Result;

/// Images per iteration of the depth head; its recipe has 16.
const DEPTH_BATCH: NonZeroUsize = NonZeroUsize::new(4).unwrap();

/// A protocol with its published settings.
pub struct Other {
    pub name: &'static str,
    /// Whether its images were given.
    pub given: fn(&AllArgs) -> bool,
    pub measure: fn(&AllArgs, &Opened) -> Result<Measured>,
}

/// The protocols; the cheapest ones on the same images come first. A new protocol needs an entry
/// here.
pub const OTHERS: [Other; 8] = [
    Other {
        name: "in-context",
        given: |args| args.dense.given(),
        measure: |args, opened| {
            let published = in_context::InContextArgs::of(args.segmented(), args.maps());
            in_context::measure(&published, opened, &mut Sheet::default())
        },
    },
    Other {
        name: "segment-knn",
        given: |args| args.dense.given(),
        measure: |args, opened| {
            let published =
                patches::PatchArgs::of(args.segmented(), args.maps(), args.segment_logistic);
            patches::measure(&published, opened, &mut Sheet::default())
        },
    },
    Other {
        name: "segment",
        given: |args| args.dense.given(),
        measure: |args, opened| {
            let iterations = args.segment_iterations;
            let shortened = segment::SegmentArgs::shortened(args.segmented(), iterations);
            segment::measure(&shortened, opened, &mut Sheet::default())
        },
    },
    Other {
        name: "depth",
        given: |args| args.other.depth.depth_images.is_some(),
        measure: measure_depth,
    },
    Other {
        name: "retrieval",
        given: |args| args.other.retrieval_images.is_some(),
        measure: |args, opened| {
            let OtherImages { retrieval_images, retrieval_truth, .. } = &args.other;
            let [images, truth] = [retrieval_images, retrieval_truth].map(given);
            let mut published = retrieval::RetrievalArgs::of(args.networks.clone(), images, truth);
            published.skip_untrained = args.skip_untrained;
            retrieval::measure(&published, opened)
        },
    },
    Other {
        name: "copy",
        given: |args| args.other.copydays.is_some(),
        measure: |args, opened| {
            let copydays = given(&args.other.copydays);
            let mut published = copy::CopyArgs::of(args.networks.clone(), copydays);
            published.skip_untrained = args.skip_untrained;
            copy::measure(&published, opened)
        },
    },
    Other {
        name: "maskcut",
        given: |args| args.other.object_images.is_some(),
        measure: |args, opened| {
            let images = given(&args.other.object_images);
            let truth = args.other.ground_truth.clone();
            let mut cut = maskcut::MaskCutArgs::of(args.networks.clone(), images, truth);
            (cut.limit, cut.skip_untrained) = (args.max_test, args.skip_untrained);
            maskcut::measure_one(&cut, opened)
        },
    },
    Other {
        name: "video",
        given: |args| args.other.frames.is_some(),
        measure: |args, opened| {
            let OtherImages { frames, truth, single_object, .. } = &args.other;
            let [frames, truth] = [frames, truth].map(given);
            let networks = args.networks.clone();
            let mut video = video::VideoArgs::of(networks, frames, truth, *single_object);
            video.skip_untrained = args.skip_untrained;
            video::measure(&video, opened)
        },
    },
];

fn measure_depth(args: &AllArgs, opened: &Opened) -> Result<Measured> {
    let of = &args.other.depth;
    let folders = [&of.depth_images, &of.depth_maps, &of.depth_test_images, &of.depth_test_maps];
    let mut shortened = depth::DepthArgs::of(args.networks.clone(), folders.map(given));
    (shortened.divisor, shortened.max_depth) = (of.depth_divisor, of.max_depth);
    (shortened.iterations, shortened.batch) = (Some(of.depth_iterations), Some(DEPTH_BATCH));
    shortened.skip_untrained = args.skip_untrained;
    ([shortened.max_train, shortened.max_test], shortened.crop) = (args.limits(), args.dense_crop);
    depth::measure(&shortened, opened)
}

/// Returns a path that is known to be given.
fn given(path: &Option<PathBuf>) -> PathBuf {
    path.clone().unwrap_or_default()
}
