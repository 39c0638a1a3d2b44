//! Images with a depth for every pixel: kinds of maps, and possible errors.

use std::fs;
use std::path::{Path, PathBuf};

use data::dense::{DepthOptions, DepthSet};
use image::{GrayImage, ImageBuffer, Luma, Rgb, RgbImage};

/// Creates a folder of images of 3x2 pixels with these names, and an empty folder for depth maps.
fn folder(names: &[&str]) -> (tempfile::TempDir, [PathBuf; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["images", "depth"].map(|name| folder.path().join(name));
    paths.iter().for_each(|path| fs::create_dir(path).unwrap());
    for name in names {
        RgbImage::from_pixel(3, 2, Rgb([9; 3])).save(paths[0].join(format!("{name}.jpg"))).unwrap();
    }
    (folder, paths)
}

fn gray16(path: &Path, (width, height): (u32, u32), values: &[u16]) {
    let image = ImageBuffer::<Luma<u16>, Vec<u16>>::from_raw(width, height, values.to_vec());
    image.unwrap().save(path).unwrap();
}

/// Returns the bytes of a two-dimensional `.npy` file.
fn npy(kind: &str, fortran: &str, [rows, columns]: [usize; 2], values: &[u8]) -> Vec<u8> {
    let text = format!(
        "{{'descr': '{kind}', 'fortran_order': {fortran}, 'shape': ({rows}, {columns}), }}"
    );
    let header = format!("{text:<117}\n");
    let start: &[u8] = b"\x93NUMPY\x01\x00";
    [start, &(header.len() as u16).to_le_bytes(), header.as_bytes(), values].concat()
}

fn open(paths: &[PathBuf; 2], divisor: f64) -> DepthSet {
    DepthSet::open(&paths[0], &paths[1], DepthOptions::new(divisor).unwrap()).unwrap()
}

#[test]
fn maps_are_meters_and_what_is_not_measured_is_zero() {
    let (_folder, paths) = folder(&["a", "b", "c", "d", "alone"]);
    gray16(&paths[1].join("a.png"), (3, 2), &[0, 500, 1000, 2000, 4000, 65_535]);
    let values = [0.5_f32, f32::NAN, f32::INFINITY, -1.0, 0.0, 7.25];
    let floats: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    fs::write(paths[1].join("b.npy"), npy("<f4", "False", [2, 3], &floats)).unwrap();
    let doubles: Vec<u8> =
        [1.0_f64, 4.0, 2.0, 5.0, 3.0, 6.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    fs::write(paths[1].join("c.npy"), npy("<f8", "True", [2, 3], &doubles)).unwrap();
    fs::write(paths[1].join("d.NPY"), npy("<f4", "False", [2, 3], &floats)).unwrap();
    fs::write(paths[1].join("readme.txt"), "no map").unwrap();
    let set = open(&paths, 500.0);
    assert_eq!(set.len(), 4);
    assert!(set.notices()[0].contains("alone.jpg: no depth maps"), "{:?}", set.notices());
    let meters = |index| set.load(index).unwrap().depth.meters;
    assert_eq!(meters(0), [0.0, 1.0, 2.0, 4.0, 8.0, 131.07]);
    assert_eq!(meters(1), [0.5, 0.0, 0.0, 0.0, 0.0, 7.25]);
    assert_eq!(meters(2), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(meters(3), meters(1));
    assert_ne!(set.fingerprint(), open(&paths, 256.0).fingerprint());
    let before = set.fingerprint();
    let other: Vec<u8> = floats.iter().rev().copied().collect();
    fs::write(paths[1].join("b.npy"), npy("<f4", "False", [2, 3], &other)).unwrap();
    assert_ne!(
        open(&paths, 500.0).fingerprint(),
        before,
        "other depths in a file of the same size"
    );
    for divisor in [0.0, -1.0, f64::NAN] {
        assert!(DepthOptions::new(divisor).is_err());
    }
}

#[test]
fn what_is_no_depth_map_is_named() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let (_folder, paths) = folder(&names);
    let path = |name: &str| paths[1].join(name);
    GrayImage::from_pixel(3, 2, Luma([7])).save(path("a.png")).unwrap();
    RgbImage::from_pixel(3, 2, Rgb([7; 3])).save(path("b.png")).unwrap();
    gray16(&path("c.png"), (2, 3), &[1; 6]);
    gray16(&path("d.png"), (3, 2), &[0; 6]);
    fs::write(path("e.png"), "no image").unwrap();
    fs::write(path("f.npy"), npy("<i4", "False", [2, 3], &[1; 24])).unwrap();
    fs::write(path("g.npy"), npy("<f4", "False", [2, 3], &[1; 23])).unwrap();
    fs::write(path("h.npy"), "").unwrap();
    fs::write(path("i.npy"), npy("<f4", "False", [1 << 40, 1 << 10], &[1; 24])).unwrap();
    let set = open(&paths, 1000.0);
    let words = [
        "8 bits",
        "color image",
        "same size",
        "no valid pixels",
        "e.png",
        "float32",
        "float32",
        "float32",
        "larger than the file",
    ];
    for (index, (name, word)) in names.iter().zip(words).enumerate() {
        let said = set.load(index).unwrap_err().chain();
        assert!(said.contains(word) && said.contains(&format!("depth/{name}.")), "{name}: {said}");
    }
    let (_empty, paths) = folder(&["a"]);
    let options = || DepthOptions::new(1.0).unwrap();
    let said = DepthSet::open(&paths[0], &paths[1], options()).unwrap_err().chain();
    assert!(said.contains("no depth maps in this folder"), "{said}");
    gray16(&paths[1].join("other.png"), (3, 2), &[1; 6]);
    let said = DepthSet::open(&paths[0], &paths[1], options()).unwrap_err().chain();
    assert!(said.contains("depth map with the same name") && said.contains("other.png"), "{said}");
}
