//! Which files count as images by their names, and how other files are counted.

use data::{Dataset, SourceKind};
use tempfile::tempdir;

use crate::shards::tar_bytes;
use crate::support::{auto, config, jpeg, names, png, refused, write, write_picture};

#[test]
fn images_go_by_many_suffixes() {
    let dir = tempdir().unwrap();
    let jpegs = ["jpg", "JPG", "jpeg", "jpe", "jfif", "JFIF", "jif", "jfi", "pjpeg", "pjp"];
    for (number, end) in jpegs.iter().enumerate() {
        write(&dir.path().join(format!("f/{number}.{end}")), jpeg(number as u32));
    }
    write(&dir.path().join("f/a.apng"), png(20));
    write_picture(&dir.path().join("x.bmp"), 21);
    write_picture(&dir.path().join("x.tif"), 22);
    std::fs::copy(dir.path().join("x.bmp"), dir.path().join("f/b.dib")).unwrap();
    std::fs::copy(dir.path().join("x.tif"), dir.path().join("f/c.TIFF")).unwrap();
    let read = |dataset: &Dataset| {
        (0..dataset.len()).for_each(|index| drop(dataset.image(index).unwrap()));
        (dataset.len(), dataset.notices().is_empty())
    };
    assert_eq!(read(&auto(&dir.path().join("f"))), (13, true));
    // The same files in a shard, and in shards packed from them, where they have extensions that
    // all readers know.
    let members: Vec<(String, Vec<u8>)> = std::fs::read_dir(dir.path().join("f"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap()))
        .collect();
    write(&dir.path().join("s/x.tar"), tar_bytes(&members));
    assert_eq!(read(&auto(&dir.path().join("s"))), (13, true));
    let source = data::source::open(&config(SourceKind::Folder, &dir.path().join("f"))).unwrap();
    let out = dir.path().join("packed");
    data::source::pack(source.as_ref(), &out, &Default::default(), |_| ()).unwrap();
    let packed = auto(&out);
    assert_eq!(read(&packed), (13, true));
    let usual =
        |name: &String| ["jpg", "jpeg", "png", "bmp", "tiff"].iter().any(|end| name.ends_with(end));
    assert!(names(&packed).iter().all(usual), "{:?}", names(&packed));
}

#[test]
fn what_is_left_out_is_counted() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    write_picture(&at("a/1.png"), 0);
    write_picture(&at("b/2.png"), 1);
    for name in ["a/1.HEIC", "a/2.heic", "b/x", "b/y.2020", "b/caption.txt", "c/d/z.avif"] {
        write(&at(name), "x");
    }
    // Files that operating systems create are not counted.
    for name in ["Thumbs.db", "a/.DS_Store", "a/._1.png", "b/desktop.ini"] {
        write(&at(name), "x");
    }
    write_picture(&at("a/.hidden.png"), 3);
    write_picture(&at(".thumbnails/1.png"), 4);
    write_picture(&at("a/.cache/deep/1.png"), 4);
    let dataset = auto(dir.path());
    assert_eq!(names(&dataset), ["a/1.png", "b/2.png"]);
    let expected = [
        "6 files were left out: 2 without an extension, 2 .heic, 1 .avif, 1 .txt",
        "1 hidden file and 2 hidden folders were ignored (names that start with a dot)",
    ];
    assert_eq!(dataset.notices().sentences(), expected);
    // A mix reports it for all of its parts.
    let mut mixed = config(SourceKind::Auto, dir.path());
    let entry = |path: &str| data::MixEntry {
        path: Some(at(path).to_str().unwrap().into()),
        ..Default::default()
    };
    (mixed.path, mixed.mix) = (None, vec![entry("a"), entry("b")]);
    let said = data::open(&mixed).unwrap().notices().sentences();
    assert_eq!(said[0], "5 files were left out: 2 without an extension, 2 .heic, 1 .txt");
}

#[test]
fn a_folder_of_others_says_which() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    (0..3).for_each(|number| write(&at(&format!("heic/{number}.heic")), "x"));
    write(&at("heic/x"), "x");
    refused(SourceKind::Auto, &at("heic"), &["in it (4 in", "3 .heic, 1 without an extension"]);
    write(&at("hidden/.a.jpg"), jpeg(0));
    refused(SourceKind::Auto, &at("hidden"), &["no usable images", "1 hidden file was ignored"]);
    write(&at("system/.DS_Store"), "x");
    refused(SourceKind::Auto, &at("system"), &["the folder is empty"]);
}

#[test]
fn images_beside_shards_and_in_them_are_counted() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let members = [
        ("0.jpg", jpeg(0)),
        ("0.seg.png", png(1)),
        ("0.txt", vec![b'x']),
        ("1.heic", vec![b'x']),
        ("._1.jpg", vec![b'x']),
        (".2.jpg", jpeg(2)),
    ];
    let members = members.map(|(name, bytes)| (name.to_owned(), bytes));
    write(&at("x.tar"), tar_bytes(&members));
    data::source::write_index(&at("x.tar"), |_| ()).unwrap();
    write_picture(&at("1.png"), 1);
    write_picture(&at("2.png"), 2);
    write(&at("pack.json"), "{}");
    let notices = auto(dir.path()).notices();
    let expected = "5 files were left out: 2 .png, 1 .heic, 1 .seg.png, 1 .txt";
    assert_eq!(notices.left_out_sentence().unwrap(), expected);
    assert_eq!(notices.hidden_files, 1);
}
