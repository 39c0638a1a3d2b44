//! Tests of patch features that are kept on disk.
#![allow(clippy::unwrap_used)] // test helpers

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};

use data::dense::{DenseOptions, DenseSet, LabelRules};
use eval::segmentation::{DenseData, DenseExtractor, DenseNetwork, Layers, MapStore, fill_maps};
use eval::{FeaturePrecision, Frozen};
use image::{GrayImage, Rgb, RgbImage};
use model::normalize::Normalize;
use tch::{Device, Kind, Tensor};

/// Extracts the mean color of each patch of 4 x 4 pixels, and counts images.
#[derive(Default)]
struct Counting {
    images: Cell<i64>,
}

impl DenseExtractor for Counting {
    fn maps(&self, images: &Tensor, _: Layers, class_token: bool) -> eval::Result<Tensor> {
        self.images.set(self.images.get() + images.size()[0]);
        let maps = images.avg_pool2d([4, 4], [4, 4], [0, 0], false, true, None);
        Ok(if class_token { Tensor::cat(&[&maps, &(&maps + 1.0)], 1) } else { maps })
    }

    fn patch_size(&self) -> u32 {
        4
    }
}

fn images(count: i64, side: i64) -> Tensor {
    let size = [count, 3, side, side];
    let number = size.iter().product::<i64>();
    (Tensor::arange(number, (Kind::Float, Device::Cpu)) * 0.37).sin().view(size)
}

const LAST: Layers = Layers::Last(1);

fn files(folder: &Path) -> Vec<PathBuf> {
    let store = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn equal_images_are_computed_once() {
    let folder = tempfile::tempdir().unwrap();
    let (network, images) = (Counting::default(), images(70, 8));
    let expected = network.maps(&images, LAST, false).unwrap();
    network.images.set(0);
    {
        let store = MapStore::open(&network, "a fp32", folder.path()).unwrap();
        assert_eq!(store.maps(&images, LAST, false).unwrap(), expected);
        assert_eq!(files(folder.path()).len(), 1, "more maps than a file holds are written");
        let some = images.narrow(0, 3, 5);
        assert_eq!(store.maps(&some, LAST, false).unwrap(), expected.narrow(0, 3, 5));
        let mixed = Tensor::cat(&[&some, &(&some * 2.0)], 0);
        assert_eq!(store.maps(&mixed, LAST, false).unwrap().size(), [10, 3, 2, 2]);
        assert_eq!((network.images.get(), store.patch_size()), (75, 4));
    }
    // The five maps that were not written by then were when the store was dropped.
    let store = MapStore::open(&network, "a fp32", folder.path()).unwrap();
    let again = Tensor::cat(&[&images, &(images.narrow(0, 3, 5) * 2.0)], 0);
    assert_eq!(store.maps(&again, LAST, false).unwrap().narrow(0, 0, 70), expected);
    assert_eq!(network.images.get(), 75);
    // Everything else that determines a map makes it another one.
    let few = images.narrow(0, 0, 2);
    assert_eq!(store.maps(&few, LAST, true).unwrap().size(), [2, 6, 2, 2]);
    let _ = store.maps(&few, Layers::Last(2), false).unwrap();
    let _ = store.maps(&few.reshape([2, 3, 4, 16]), LAST, false).unwrap();
    assert_eq!(network.images.get(), 81);
    let other = MapStore::open(&network, "b fp32", folder.path()).unwrap();
    let _ = other.maps(&few, LAST, false).unwrap();
    assert_eq!(network.images.get(), 83);
}

#[test]
fn damaged_files_cost_only_their_maps() {
    let folder = tempfile::tempdir().unwrap();
    let (network, images) = (Counting::default(), images(3, 8));
    let open = || MapStore::open(&network, "a fp32", folder.path()).unwrap();
    let expected = open().maps(&images, LAST, false).unwrap();
    let [file] = &files(folder.path())[..] else { unreachable!("one file") };
    let length = fs::metadata(file).unwrap().len();
    fs::OpenOptions::new().write(true).open(file).unwrap().set_len(length - 40).unwrap();
    assert_eq!(open().maps(&images, LAST, false).unwrap(), expected);
    fs::write(file, "no tensors").unwrap();
    assert_eq!(open().maps(&images, LAST, false).unwrap(), expected);
    assert_eq!(network.images.get(), 9);
    assert_eq!(open().maps(&images, LAST, false).unwrap(), expected);
    assert_eq!(network.images.get(), 9, "the file was written anew");
}

#[test]
fn maps_that_cannot_be_written_are_still_returned() {
    let folder = tempfile::tempdir().unwrap();
    let (network, images) = (Counting::default(), images(70, 8));
    let store = MapStore::open(&network, "a fp32", folder.path()).unwrap();
    let place = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    fs::remove_dir(&place).unwrap();
    fs::write(&place, "in the way").unwrap();
    let expected = network.maps(&images, LAST, false).unwrap();
    assert_eq!(store.maps(&images, LAST, false).unwrap(), expected);
    let why = store.failure().unwrap();
    assert!(why.contains("maps-"), "{why}");
    assert_eq!(store.maps(&images, LAST, false).unwrap(), expected);
}

/// Notes the sum of the pixels of each image.
#[derive(Default)]
struct Seen(RefCell<Vec<String>>);

impl DenseExtractor for Seen {
    fn maps(&self, images: &Tensor, layers: Layers, class: bool) -> eval::Result<Tensor> {
        assert_eq!(images.size()[2..], [16, 16]);
        self.0.borrow_mut().push(format!("{:.4}", images.sum(Kind::Double).double_value(&[])));
        Counting::default().maps(images, layers, class)
    }

    fn patch_size(&self) -> u32 {
        4
    }
}

#[test]
fn each_process_extracts_its_share_of_the_images() {
    let folder = tempfile::tempdir().unwrap();
    let [pictures, labels] = ["images", "labels"].map(|name| folder.path().join(name));
    [&pictures, &labels].into_iter().for_each(|folder| fs::create_dir(folder).unwrap());
    for i in 0..5_u8 {
        RgbImage::from_pixel(20, 18, Rgb([40 * i, 9, 9]))
            .save(pictures.join(format!("{i}.png")))
            .unwrap();
        GrayImage::new(20, 18).save(labels.join(format!("{i}.png"))).unwrap();
    }
    let options = DenseOptions::new(LabelRules::numbered(2, &[255]).unwrap());
    let set = DenseSet::open(&pictures, &labels, options).unwrap();
    let normalize = Normalize { mean: vec![0.5; 3], std: vec![0.25; 3] };
    let (device, precision) = (Device::Cpu, FeaturePrecision::Fp32);
    let data = DenseData { set: &set, limit: None, workers: Some(1) };
    let of = |process| {
        let seen = Seen::default();
        let extractor: &dyn DenseExtractor = &seen;
        let frozen = Frozen { network: extractor, normalize: &normalize, device, precision };
        let network = DenseNetwork { frozen, layers: LAST, class_token: false };
        fill_maps(&network, &data, 16, process).unwrap();
        seen.0.into_inner()
    };
    let (all, first, second) = (of((0, 1)), of((0, 2)), of((1, 2)));
    assert_eq!((all.len(), first.len(), second.len()), (5, 2, 3));
    assert_eq!([first, second].concat(), all);
}
