//! Images with a class for every pixel: pairs, values, presets, and possible errors.

use std::fs;
use std::path::{Path, PathBuf};

use data::dense::{DenseOptions, DenseSet, IGNORE, LabelRules, Preset};
use image::{GrayImage, Luma, Rgb, RgbImage};

/// A folder with `images` and `labels`.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::create_dir(folder.path("images")).unwrap();
        fs::create_dir(folder.path("labels")).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn image(&self, name: &str, (width, height): (u32, u32)) {
        RgbImage::from_pixel(width, height, Rgb([9; 3]))
            .save(self.path("images").join(name))
            .unwrap();
    }

    fn labels(&self, name: &str, (width, height): (u32, u32), values: &[u8]) {
        let image =
            GrayImage::from_fn(width, height, |x, y| Luma([values[(y * width + x) as usize]]));
        image.save(self.path("labels").join(name)).unwrap();
    }

    fn open(&self, options: DenseOptions) -> data::Result<DenseSet> {
        DenseSet::open(&self.path("images"), &self.path("labels"), options)
    }
}

fn two_classes() -> DenseOptions {
    DenseOptions::new(LabelRules::numbered(2, &[255]).unwrap())
}

fn message(result: data::Result<impl Sized>) -> String {
    result.err().unwrap().chain()
}

#[test]
fn images_and_labels_are_paired_by_name() {
    let folder = Folder::new();
    fs::create_dir(folder.path("images/sub")).unwrap();
    fs::create_dir(folder.path("labels/sub")).unwrap();
    folder.image("b.jpg", (2, 1));
    folder.image("a.png", (2, 1));
    folder.image("sub/a.png", (2, 1));
    folder.image("alone.png", (2, 1));
    folder.labels("a.png", (2, 1), &[0, 1]);
    folder.labels("b.png", (2, 1), &[1, 255]);
    folder.labels("sub/a.png", (2, 1), &[1, 1]);
    folder.labels("stray.png", (2, 1), &[1, 1]);
    folder.labels("stray2.png", (2, 1), &[1, 1]);
    fs::write(folder.path("labels/.hidden.png"), "no image").unwrap();
    let set = folder.open(two_classes()).unwrap();
    let names: Vec<String> = (0..set.len()).map(|i| set.name(i)).collect();
    assert_eq!(names, ["a.png", "b.jpg", "sub/a.png"]);
    assert_eq!(set.load(0).unwrap().labels.ids, [0, 1]);
    assert_eq!(set.load(1).unwrap().labels.ids, [1, IGNORE]);
    assert_eq!(set.load(2).unwrap().labels.ids, [1, 1]);
    let notices = set.notices().join("\n");
    assert!(notices.contains("alone.png: no labels"), "{notices}");
    assert!(notices.contains("stray.png and 1 more: no image"), "{notices}");
    assert!(matches!(set.load(3), Err(data::Error::Index { index: 3, len: 3 })));
}

#[test]
fn a_list_chooses_images() {
    let folder = Folder::new();
    for name in ["a", "b", "c.d"] {
        folder.image(&format!("{name}.png"), (1, 1));
        folder.labels(&format!("{name}.png"), (1, 1), &[0]);
    }
    fs::write(folder.path("list.txt"), "c.d\n\na.jpg\n").unwrap();
    let with_list = |name| {
        let mut options = two_classes();
        options.list = Some(folder.path(name));
        options
    };
    let set = folder.open(with_list("list.txt")).unwrap();
    assert_eq!((set.len(), set.name(1).as_str()), (2, "c.d.png"));
    assert!(set.notices().is_empty(), "{:?}", set.notices());
    fs::write(folder.path("wrong.txt"), "a\nmissing\n").unwrap();
    let error = message(folder.open(with_list("wrong.txt")));
    assert!(error.contains("wrong.txt, line 2") && error.contains("missing"), "{error}");
}

#[test]
fn what_does_not_fit_is_said_with_the_file() {
    let folder = Folder::new();
    folder.image("size.png", (2, 2));
    folder.labels("size.png", (2, 1), &[0, 1]);
    folder.image("value.png", (2, 1));
    folder.labels("value.png", (2, 1), &[0, 7]);
    folder.image("broken.png", (2, 1));
    fs::write(folder.path("labels/broken.png"), "no image").unwrap();
    folder.image("color.png", (1, 1));
    RgbImage::new(1, 1).save(folder.path("labels/color.png")).unwrap();
    let set = folder.open(two_classes()).unwrap();
    let of = |name: &str| {
        let index = (0..set.len()).find(|&i| set.name(i) == name).unwrap();
        message(set.load(index))
    };
    let size = of("size.png");
    assert!(
        size.contains("labels/size.png") && size.contains("2x1") && size.contains("2x2"),
        "{size}"
    );
    let value = of("value.png");
    assert!(value.contains("labels/value.png") && value.contains("7 at (1, 0)"), "{value}");
    assert!(of("broken.png").contains("labels/broken.png"), "{}", of("broken.png"));
    assert!(of("color.png").contains("palette"), "{}", of("color.png"));
}

#[test]
fn folders_that_do_not_fit() {
    let folder = Folder::new();
    assert!(message(folder.open(two_classes())).contains("no image files"));
    folder.image("a.png", (1, 1));
    folder.labels("b.png", (1, 1), &[0]);
    let error = message(folder.open(two_classes()));
    assert!(error.contains("a.png") && error.contains("b.png"), "{error}");
    folder.image("a.jpg", (1, 1));
    let error = message(folder.open(two_classes()));
    assert!(
        error.contains("a.jpg") && error.contains("a.png") && error.contains("remove"),
        "{error}"
    );
    let missing = DenseSet::open(Path::new("nowhere"), Path::new("nowhere"), two_classes());
    assert!(message(missing).contains("nowhere"));
}

#[test]
fn maps_and_palettes_give_values_a_meaning() {
    let folder = Folder::new();
    folder.image("a.png", (3, 1));
    folder.labels("a.png", (3, 1), &[40, 7, 9]);
    fs::write(folder.path("map.txt"), "# value class name\n7 0 road\n40\t1\tsky\n9 ignore\n")
        .unwrap();
    let rules = LabelRules::read_map(&folder.path("map.txt")).unwrap();
    assert_eq!((rules.classes(), rules.name(1)), (2, "sky".to_owned()));
    let set = folder.open(DenseOptions::new(rules)).unwrap();
    assert_eq!(set.load(0).unwrap().labels.ids, [1, 0, IGNORE]);

    let colors =
        RgbImage::from_fn(3, 1, |x, _| [Rgb([1, 2, 3]), Rgb([0; 3]), Rgb([250, 0, 0])][x as usize]);
    colors.save(folder.path("labels/a.png")).unwrap();
    fs::write(folder.path("palette.txt"), "250 0 0 road\n1 2 3 sky\n0 0 0 ignore\n").unwrap();
    let rules = LabelRules::read_palette(&folder.path("palette.txt")).unwrap();
    assert_eq!((rules.classes(), rules.name(0)), (2, "road".to_owned()));
    let set = folder.open(DenseOptions::new(rules.clone())).unwrap();
    assert_eq!(set.load(0).unwrap().labels.ids, [1, IGNORE, 0]);
    RgbImage::from_pixel(3, 1, Rgb([5; 3])).save(folder.path("labels/a.png")).unwrap();
    let error = message(folder.open(DenseOptions::new(rules.clone())).unwrap().load(0));
    assert!(error.contains("[5, 5, 5] at (0, 0)"), "{error}");
    folder.labels("a.png", (3, 1), &[0, 0, 0]);
    let error = message(folder.open(DenseOptions::new(rules)).unwrap().load(0));
    assert!(error.contains("palette"), "{error}");

    for (text, word) in [
        ("7 0\n9 2\n", "class 1 has no value"),
        ("7 0\n7 1\n", "line 2"),
        ("7 255\n", "254"),
        ("x 0\n", "65535"),
        ("7\n", "line 1"),
        ("7 ignore\n", "got 0"),
    ] {
        fs::write(folder.path("map.txt"), text).unwrap();
        let error = message(LabelRules::read_map(&folder.path("map.txt")));
        assert!(error.contains("map.txt") && error.contains(word), "{text}: {error}");
    }
}

#[test]
fn presets_have_their_classes() {
    for (preset, classes) in
        [("ade20k", 150), ("voc2012", 21), ("cityscapes", 19), ("coco-stuff", 171), ("camvid", 11)]
    {
        let (_, found) = Preset::ALL.into_iter().find(|(name, _)| *name == preset).unwrap();
        assert_eq!(found.options().unwrap().rules.classes(), classes, "{preset}");
    }
    let folder = Folder::new();
    folder.image("a.png", (4, 1));
    let ids = |preset: Preset, values: &[u8]| {
        folder.labels("a.png", (4, 1), values);
        let mut options = preset.options().unwrap();
        (options.image_suffix, options.label_suffix) = (String::new(), String::new());
        folder.open(options).unwrap().load(0).map(|sample| sample.labels.ids)
    };
    assert_eq!(ids(Preset::Ade20k, &[0, 1, 150, 2]).unwrap(), [IGNORE, 0, 149, 1]);
    assert!(message(ids(Preset::Ade20k, &[0, 1, 151, 2])).contains("151"));
    assert_eq!(ids(Preset::Cityscapes, &[7, 33, 0, 255]).unwrap(), [0, 18, IGNORE, IGNORE]);
    assert_eq!(ids(Preset::CocoStuff, &[0, 12, 181, 255]).unwrap(), [0, 11, 170, IGNORE]);
    assert_eq!(ids(Preset::Voc2012, &[0, 20, 255, 1]).unwrap(), [0, 20, IGNORE, 1]);
    assert_eq!(ids(Preset::Camvid, &[0, 10, 11, 1]).unwrap(), [0, 10, IGNORE, 1]);
}

#[test]
fn a_folder_in_a_tar_is_a_folder() {
    let folder = Folder::new();
    for (name, id) in [("a.png", 0), ("b.png", 1)] {
        folder.image(name, (2, 1));
        folder.labels(name, (2, 1), &[id, 255]);
    }
    let tar = folder.path("pack.tar");
    let mut builder = tar::Builder::new(fs::File::create(&tar).unwrap());
    builder.append_dir_all("./pack", folder.0.path().join("images")).unwrap();
    builder.append_dir_all("other/labels", folder.0.path().join("labels")).unwrap();
    builder.finish().unwrap();
    let set = DenseSet::open(&tar.join("pack"), &tar.join("other/labels"), two_classes()).unwrap();
    assert_eq!((set.len(), set.name(1).as_str()), (2, "b.png"));
    let plain = folder.open(two_classes()).unwrap();
    for index in 0..2 {
        let (in_tar, plain) = (set.load(index).unwrap(), plain.load(index).unwrap());
        assert_eq!((in_tar.image, in_tar.labels), (plain.image, plain.labels));
    }
    assert_eq!(set.fingerprint(), plain.fingerprint());
    // Other classes in a file of the same size.
    let labels = folder.path("labels/b.png");
    let mut bytes = fs::read(&labels).unwrap();
    bytes.reverse();
    fs::write(&labels, bytes).unwrap();
    assert_ne!(set.fingerprint(), folder.open(two_classes()).unwrap().fingerprint());
    let error =
        message(DenseSet::open(&tar.join("none"), &tar.join("other/labels"), two_classes()));
    assert!(error.contains("pack.tar") && error.contains("none"), "{error}");
    // The archive loses its end after it was listed.
    fs::File::options().write(true).open(&tar).unwrap().set_len(700).unwrap();
    let error = message(set.load(1));
    assert!(error.contains("pack.tar/pack/b.png"), "{error}");
}

#[test]
fn names_that_are_not_utf8_remain_different() {
    use std::os::unix::ffi::OsStrExt;
    let folder = Folder::new();
    folder.image("a.png", (2, 1));
    folder.labels("a.png", (2, 1), &[0, 1]);
    for name in [b"\xFE.png", b"\xFF.png"] {
        for kind in ["images", "labels"] {
            let path = folder.path(kind);
            fs::copy(path.join("a.png"), path.join(std::ffi::OsStr::from_bytes(name))).unwrap();
        }
    }
    let set = folder.open(two_classes()).unwrap();
    let names: Vec<String> = (0..set.len()).map(|index| set.name(index)).collect();
    assert_eq!(names, [r"\xfe.png", r"\xff.png", "a.png"]);
    assert_eq!(set.load(0).unwrap().labels.ids, [0, 1]);
}

#[test]
fn camvid_as_it_is() {
    let Some(packs) = crate::support::packs() else { return };
    let tar = packs.join("camvid.tar/camvid");
    for (part, count) in [("train", 84), ("val", 36)] {
        let [images, labels] = ["images", "labels"].map(|kind| tar.join(part).join(kind));
        let set = DenseSet::open(&images, &labels, Preset::Camvid.options().unwrap()).unwrap();
        assert_eq!(set.len(), count);
        let sample = set.load(count - 1).unwrap();
        assert_eq!(sample.image.dimensions(), (480, 360));
        assert!(sample.labels.ids.iter().all(|&id| id < 11 || id == IGNORE));
        assert!(sample.labels.ids.contains(&3));
    }
}
