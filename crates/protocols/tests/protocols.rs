//! Protocols as a library: typed values, without the program. The program's tests compare their
//! numbers; here are the interface, the observer, and the errors.

#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use data::SyntheticConfig;
use data::dense::{DenseOptions, LabelRules};
use eval::pictures::Row;
use image::{GrayImage, Luma, Rgb, RgbImage};
use model::weights::{PretrainedBackbone, named_variables, write_safetensors};
use model::{Arch, ModelConfig, VisionTransformer};
use protocols::dense::{DenseFolder, DenseImages, InContext, PatchClassifier, SegmentPatches};
use protocols::labeled::{Knn, LabeledImages, Linear, OnImages};
use protocols::{Error, MaskCut, Observer, Protocol, Result, Retrieval, Silent, Subject};
use tch::{Device, nn};

/// Writes a random network for images of 32 pixels to `folder`, and opens it.
fn subject(folder: &Path) -> Subject {
    let model =
        ModelConfig { arch: Arch::VitNano, patch_size: 8, image_size: 32, ..Default::default() };
    tch::manual_seed(0);
    let vars = nn::VarStore::new(Device::Cpu);
    VisionTransformer::new(&vars.root(), &model).unwrap();
    let model = serde_json::to_string(&model).unwrap();
    let entries = [("format", "simdino"), ("model", model.as_str()), ("seed", "0")];
    let entries: BTreeMap<_, _> =
        entries.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let path = folder.join("weights.safetensors");
    write_safetensors(&path, &named_variables(&vars), &entries).unwrap();
    let weights = PretrainedBackbone::open(&path, Device::Cpu).unwrap();
    Subject::new(path, weights, Device::Cpu).unwrap()
}

/// Draws labeled images to learn from and to classify.
fn labeled(folder: &Path) -> LabeledImages {
    let paths = [("train", 40, 0), ("test", 20, 1)].map(|(name, count, seed)| {
        let path = folder.join(name);
        let config = SyntheticConfig { count, size: 32, seed };
        data::synthetic::write_folder(&config, &path, |_| ()).unwrap();
        path.join("images").display().to_string()
    });
    let [train, test] = paths;
    LabeledImages::new(train, test)
}

/// Draws four images with a bright top and a dark bottom, which are the two classes.
fn scenes(folder: &Path) -> DenseImages {
    let [images, labels] = ["images", "labels"].map(|name| folder.join(name));
    [&images, &labels].iter().for_each(|folder| std::fs::create_dir_all(folder).unwrap());
    for i in 0..4u8 {
        let bottom = |y: u32| y >= 14 + 2 * u32::from(i);
        let shade = |_, y| if bottom(y) { Rgb([20 + i; 3]) } else { Rgb([220, 200 + i, 180]) };
        RgbImage::from_fn(32, 32, shade).save(images.join(format!("{i}.png"))).unwrap();
        let class = |_, y| Luma([u8::from(bottom(y))]);
        GrayImage::from_fn(32, 32, class).save(labels.join(format!("{i}.png"))).unwrap();
    }
    let set = DenseFolder { images, labels, list: None };
    let classes = DenseOptions::new(LabelRules::numbered(2, &[255]).unwrap());
    DenseImages::new(set.clone(), set, classes, "top and bottom")
}

/// What an observer heard.
#[derive(Default)]
struct Heard {
    notes: RefCell<Vec<String>>,
    progress: RefCell<Vec<(&'static str, usize, usize)>>,
    rows: RefCell<usize>,
}

impl Observer for Heard {
    fn note(&self, sentence: &str) {
        self.notes.borrow_mut().push(sentence.to_owned());
    }

    fn progress(&self, task: &'static str, done: usize, total: usize) {
        self.progress.borrow_mut().push((task, done, total));
    }

    fn draw(&self, shared: &dyn Fn() -> Result<Vec<Row>>, _: Row) {
        assert!(!shared().unwrap().is_empty());
        *self.rows.borrow_mut() += 1;
    }
}

#[test]
fn labeled_protocols_share_images_and_keep_features() {
    let folder = tempfile::tempdir().unwrap();
    let (subject, mut images) = (subject(folder.path()), labeled(folder.path()));
    images.features = Some(folder.path().join("features"));
    let heard = Heard::default();
    let knn = OnImages { images: images.clone(), protocol: Knn::default() };
    knn.check().unwrap();
    let [record] = knn.measure(&subject, &heard).unwrap().try_into().unwrap();
    record.check().unwrap();
    assert_eq!((record.protocol.as_str(), record.main.as_str()), ("knn", "k20_top1"));
    assert_eq!(record.baselines.keys().collect::<Vec<_>>(), ["pixels", "untrained"]);
    assert_eq!((record.data[0].images, record.data[1].images), (40, 20));
    assert_eq!((record.resize, record.crop), (Some(40), Some(32)));
    assert!(record.effective_rank.unwrap() > 1.0);
    let progress = heard.progress.borrow();
    assert_eq!(progress.first(), Some(&("training images embedded", 0, 40)));
    assert_eq!(progress.last(), Some(&("test images embedded", 20, 20)));

    // Kept features are not computed again.
    let again = Heard::default();
    let [same] = knn.measure(&subject, &again).unwrap().try_into().unwrap();
    assert!(same.repeats(&record) && same.metrics == record.metrics);
    assert!(again.progress.borrow().iter().all(|(_, done, total)| done == total || *done == 0));
}

#[test]
fn heads_that_need_more_blocks_are_refused_before_images_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let subject = subject(folder.path());
    let mut linear = Linear::default();
    linear.config.inputs[0].blocks = 99;
    let protocol = OnImages { images: LabeledImages::new("nowhere", "nowhere"), protocol: linear };
    let error = protocol.measure(&subject, &Silent).unwrap_err();
    assert!(matches!(error, Error::Input(_)), "{error}");
}

#[test]
fn classes_that_only_the_test_set_has_name_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let (subject, mut images) = (subject(folder.path()), labeled(folder.path()));
    let other = folder.path().join("other");
    std::fs::create_dir_all(other.join("unknown")).unwrap();
    RgbImage::new(32, 32).save(other.join("unknown/a.png")).unwrap();
    images.test = other.display().to_string();
    let protocol = OnImages { images, protocol: Knn::default() };
    match protocol.measure(&subject, &Silent).unwrap_err() {
        Error::Labels { set, path, .. } => {
            assert_eq!((set, Path::new(&path)), ("test", other.as_path()));
        }
        error => panic!("{error}"),
    }
}

#[test]
fn dense_protocols_give_a_record_per_classifier_and_rows_of_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let (subject, images) = (subject(folder.path()), scenes(folder.path()));
    let mut patches = SegmentPatches::published(images.clone());
    (patches.config.side, patches.config.k, patches.config.c) = (32, vec![1], vec![1.0]);
    patches.shown = 2;
    let mut context = InContext::published(images);
    (context.config.side, context.config.k) = (35, 3); // rounded to whole patches
    context.skip_untrained = true;
    let heard = Heard::default();
    let mut records = Vec::new();
    let protocols: [&dyn Protocol; 2] = [&patches, &context];
    for protocol in protocols {
        protocol.check().unwrap();
        records.extend(protocol.measure(&subject, &heard).unwrap());
    }
    records.iter().try_for_each(|record| record.check()).unwrap();
    let names: Vec<&str> = records.iter().map(|record| record.protocol.as_str()).collect();
    let of_classifiers = [PatchClassifier::Knn, PatchClassifier::Logistic].map(|c| c.protocol());
    assert_eq!(names, [of_classifiers[0], of_classifiers[1], "in-context"]);
    assert!(records.iter().all(|record| record.crop == Some(32)));
    assert!(records[0].baselines.contains_key("untrained") && records[2].baselines.is_empty());
    assert!(records[2].main_score().unwrap() > 0.5, "{:?}", records[2].metrics);
    // Two classifiers of two networks; the other protocol was not asked for a picture.
    assert_eq!(*heard.rows.borrow(), 4);
    let same = heard.notes.borrow().iter().any(|note| note.contains("also the test images"));
    assert!(same, "{:?}", heard.notes.borrow());
}

#[test]
fn what_is_missing_is_found_without_a_network() {
    let nowhere = || PathBuf::from("nowhere");
    let protocols: [Box<dyn Protocol>; 3] = [
        Box::new(Retrieval::published(nowhere(), nowhere().join("gnd.json"))),
        Box::new(MaskCut::published(nowhere(), Some(nowhere().join("instances.json")))),
        Box::new(protocols::Video::published(nowhere(), nowhere())),
    ];
    for protocol in protocols {
        let error = protocol.check().expect_err(protocol.name());
        assert!(error.to_string().contains("nowhere"), "{}: {error}", protocol.name());
    }
}
