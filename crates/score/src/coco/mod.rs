//! Average precision and recall of boxes and masks, as COCO defines them.

mod accumulate;
mod evaluate;
mod id;
mod json;
mod matching;
mod options;
mod regions;
mod results;
mod shapes;
mod summary;
mod truth;

pub use evaluate::evaluate;
pub use id::ImageId;
pub use options::{Kind, Options};
pub use regions::{Counts, Segmentation};
pub use results::{Detection, Detections};
pub use summary::{CategoryPrecision, Summary, write_csv};
pub use truth::{Annotation, Category, GroundTruth, Image};

pub(crate) use evaluate::images_of;
pub(crate) use shapes::{Shape, box_of_detection, of_annotation};
