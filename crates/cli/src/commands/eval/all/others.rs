//! The protocols of `simdino eval all` on images without a class per image.

use std::path::PathBuf;

use eval::segmentation::linear::Recipe;
use protocols::dense::{InContext, PatchClassifier, Segment, SegmentPatches};
use protocols::{CopyDetection, Depth, DepthFolder, MaskCut, Protocol, Retrieval, Video};

use super::args::AllArgs;
use crate::failure::Result;

/// Images per iteration of the depth head; its recipe has 16.
const DEPTH_BATCH: usize = 4;

/// A protocol of `simdino eval all`.
pub struct Other {
    pub name: &'static str,
    /// Whether its images were given.
    pub given: fn(&AllArgs) -> bool,
    /// Whether it segments images or estimates depth, for which `--dense-crop` applies.
    pub dense: bool,
    /// Creates the protocol with its published settings.
    pub protocol: fn(&AllArgs) -> Result<Box<dyn Protocol>>,
}

/// The protocols; the cheapest ones on the same images come first. A new protocol needs an entry
/// here.
pub const OTHERS: [Other; 8] = [
    Other {
        name: InContext::NAME,
        given: |args| args.dense.given(),
        dense: true,
        protocol: |args| {
            let mut published = InContext::published(args.segmented()?);
            published.features.clone_from(&args.embedding.features);
            published.skip_untrained = args.skip_untrained;
            published.config.side = args.dense_crop.unwrap_or(published.config.side);
            Ok(Box::new(published))
        },
    },
    Other {
        name: SegmentPatches::NAME,
        given: |args| args.dense.given(),
        dense: true,
        protocol: |args| {
            let mut published = SegmentPatches::published(args.segmented()?);
            if !args.segment_logistic {
                published.classifiers = vec![PatchClassifier::Knn];
            }
            published.features.clone_from(&args.embedding.features);
            published.skip_untrained = args.skip_untrained;
            published.config.side = args.dense_crop.unwrap_or(published.config.side);
            Ok(Box::new(published))
        },
    },
    Other {
        name: Segment::NAME,
        given: |args| args.dense.given(),
        dense: true,
        protocol: |args| {
            let mut shortened = Segment::published(args.segmented()?, Recipe::Dinov3);
            shortened.skip_untrained = args.skip_untrained;
            let mut config = shortened.config.with_iterations(args.segment_iterations);
            config.cached = true;
            let crop = args.dense_crop.unwrap_or(config.crop);
            shortened.config = config.with_crop(crop);
            Ok(Box::new(shortened))
        },
    },
    Other {
        name: Depth::NAME,
        given: |args| args.other.depth.depth_images.is_some(),
        dense: true,
        protocol: |args| Ok(Box::new(depth(args))),
    },
    Other {
        name: Retrieval::NAME,
        given: |args| args.other.retrieval_images.is_some(),
        dense: false,
        protocol: |args| {
            let [images, truth] =
                [&args.other.retrieval_images, &args.other.retrieval_truth].map(given);
            let mut published = Retrieval::published(images, truth);
            published.skip_untrained = args.skip_untrained;
            Ok(Box::new(published))
        },
    },
    Other {
        name: CopyDetection::NAME,
        given: |args| args.other.copydays.is_some(),
        dense: false,
        protocol: |args| {
            let mut published = CopyDetection::published(given(&args.other.copydays));
            published.skip_untrained = args.skip_untrained;
            Ok(Box::new(published))
        },
    },
    Other {
        name: MaskCut::NAME,
        given: |args| args.other.object_images.is_some(),
        dense: false,
        protocol: |args| {
            let images = given(&args.other.object_images);
            let mut published = MaskCut::published(images, args.other.ground_truth.clone());
            published.limit = args.limits()[1].map(usize::from);
            published.skip_untrained = args.skip_untrained;
            Ok(Box::new(published))
        },
    },
    Other {
        name: Video::NAME,
        given: |args| args.other.frames.is_some(),
        dense: false,
        protocol: |args| {
            let [frames, truth] = [&args.other.frames, &args.other.truth].map(given);
            let mut published = Video::published(frames, truth);
            published.single_object = args.other.single_object;
            published.skip_untrained = args.skip_untrained;
            Ok(Box::new(published))
        },
    },
];

/// Returns the protocol of depth with a shortened training.
fn depth(args: &AllArgs) -> Depth {
    let of = &args.other.depth;
    let folder = |images: &Option<PathBuf>, maps: &Option<PathBuf>| DepthFolder {
        images: given(images),
        maps: given(maps),
        list: None,
    };
    let train = folder(&of.depth_images, &of.depth_maps);
    let test = folder(&of.depth_test_images, &of.depth_test_maps);
    let mut shortened = Depth::published(train, test);
    shortened.divisor = of.depth_divisor;
    shortened.skip_untrained = args.skip_untrained;
    let [max_train, max_test] = args.limits().map(|limit| limit.map(usize::from));
    (shortened.max_train, shortened.max_test) = (max_train, max_test);
    let mut config = shortened.config.with_iterations(of.depth_iterations);
    (config.max_depth, config.batch) = (of.max_depth, DEPTH_BATCH);
    config.crop = args.dense_crop.map_or(config.crop, |side| [side; 2]);
    shortened.config = config;
    shortened
}

/// Returns a path that is known to be given.
fn given(path: &Option<PathBuf>) -> PathBuf {
    path.clone().unwrap_or_default()
}
