//! Label values and file names of common datasets.

use std::collections::BTreeMap;

use super::DenseOptions;
use super::rules::{IGNORE, LabelRules};
use crate::error::Result;

/// A common dataset whose label values are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Preset {
    /// ADE20K of the scene parsing challenge: 150 classes; 0 is ignored.
    Ade20k,
    /// Pascal VOC 2012: background and 20 object classes, in palette images; borders (255) are
    /// ignored.
    Voc2012,
    /// Cityscapes, from `*_gtFine_labelIds.png`: the 19 classes that are evaluated.
    Cityscapes,
    /// COCO-Stuff 164k, from the pixel maps of things and stuff: 171 classes.
    CocoStuff,
    /// CamVid in the version of SegNet: 11 classes; 11 is ignored.
    Camvid,
}

/// Label values of the evaluated Cityscapes classes, in the order of the classes.
const CITYSCAPES: [u16; 19] =
    [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33];
const CITYSCAPES_NAMES: [&str; 19] = [
    "road",
    "sidewalk",
    "building",
    "wall",
    "fence",
    "pole",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
];
const VOC_NAMES: [&str; 21] = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
];
const CAMVID_NAMES: [&str; 11] = [
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
];
/// Entries of COCO's list of 182 things and stuff that occur in no image.
const COCO_UNUSED: [u16; 11] = [11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90];
const COCO_NUMBERS: u16 = 182;

impl Preset {
    /// All presets, with the names that commands use.
    pub const ALL: [(&str, Self); 5] = [
        ("ade20k", Self::Ade20k),
        ("voc2012", Self::Voc2012),
        ("cityscapes", Self::Cityscapes),
        ("coco-stuff", Self::CocoStuff),
        ("camvid", Self::Camvid),
    ];

    /// Returns how the files are named and what their values mean.
    ///
    /// # Errors
    /// Never returns an error for the presets defined here.
    pub fn options(self) -> Result<DenseOptions> {
        let mut options = DenseOptions::new(self.rules()?);
        if self == Self::Cityscapes {
            options.image_suffix = "_leftImg8bit".to_owned();
            options.label_suffix = "_gtFine_labelIds".to_owned();
        }
        Ok(options)
    }

    fn rules(self) -> Result<LabelRules> {
        let numbered = |names: &[&str], ignore: u16| {
            let ids = (0..names.len() as u16).map(|id| (id, id as u8)).chain([(ignore, IGNORE)]);
            LabelRules::from_ids(ids.collect(), owned(names))
        };
        match self {
            Self::Ade20k => LabelRules::reduce_zero_label(150),
            Self::Voc2012 => numbered(&VOC_NAMES, 255),
            Self::Camvid => numbered(&CAMVID_NAMES, 11),
            Self::Cityscapes => {
                // All numbers from 0 to 33 occur. License plates have the number -1, which is
                // stored as 255.
                let ignored = (0..34).chain([255]).map(|id| (id, IGNORE));
                let mut ids: BTreeMap<u16, u8> = ignored.collect();
                ids.extend(CITYSCAPES.into_iter().zip(0..));
                LabelRules::from_ids(ids, owned(&CITYSCAPES_NAMES))
            }
            Self::CocoStuff => {
                let used = (0..COCO_NUMBERS).filter(|id| !COCO_UNUSED.contains(id)).zip(0..);
                LabelRules::from_ids(used.chain([(255, IGNORE)]).collect(), Vec::new())
            }
        }
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}
