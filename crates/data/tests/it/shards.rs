//! Tar shards: reading, indexes, files that change while they are read, and packing.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use data::source::{PackOptions, pack, write_index};
use data::{DataConfig, Error, SourceKind, open};
use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::tempdir;

use crate::support::{
    auto, config, jpeg, labels, names, picture, png, refused, write, write_picture,
};

/// Returns the members of a shard: three images, two of them labeled in different ways, and others.
fn members(first: u32) -> Vec<(String, Vec<u8>)> {
    let name = |number: u32, end: &str| format!("d/{number:04}.{end}");
    vec![
        (name(first, "png"), png(first)),
        (name(first, "cls"), b"3\n".to_vec()),
        (name(first, "seg.png"), png(99)),
        (format!("d/._{first:04}.png"), b"side file".to_vec()),
        (name(first + 1, "json"), br#"{"label": 5, "x": "y"}"#.to_vec()),
        (name(first + 1, "JPG"), jpeg(first + 1)),
        (name(first + 2, "jpeg"), jpeg(first + 2)),
        ("README".into(), b"about".to_vec()),
    ]
}

pub fn tar_bytes(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn write_shards(dir: &Path) -> [PathBuf; 2] {
    let paths = [dir.join("s-0.tar"), dir.join("s-1.tar.gz")];
    write(&paths[0], tar_bytes(&members(10)));
    write(&paths[1], gzip(&tar_bytes(&members(20))));
    paths
}

#[test]
fn shards_plain_and_compressed() {
    let dir = tempdir().unwrap();
    let paths = write_shards(dir.path());
    let whole = auto(dir.path());
    assert_eq!(
        names(&whole),
        [
            "s-0.tar/d/0010.png",
            "s-0.tar/d/0011.JPG",
            "s-0.tar/d/0012.jpeg",
            "s-1.tar.gz/d/0020.png",
            "s-1.tar.gz/d/0021.JPG",
            "s-1.tar.gz/d/0022.jpeg",
        ]
    );
    let expected = [Some(3), Some(5), None];
    assert_eq!(labels(&whole), [expected, expected].concat());
    assert_eq!((whole.num_classes(), whole.kind()), (6, "shards"));
    for (index, number) in [(0, 10), (3, 20)] {
        assert_eq!(whole.image(index).unwrap(), picture(number, 32, 24));
    }
    for (index, number) in [(1, 11), (2, 12), (4, 21), (5, 22)] {
        let expected = data::decode::decode(&jpeg(number)).unwrap();
        assert_eq!(whole.image(index).unwrap(), expected);
    }
    for (path, first) in [(&paths[0], 10), (&paths[1], 20)] {
        let one = auto(path);
        assert_eq!((one.len(), one.image(0).unwrap()), (3, picture(first, 32, 24).into()));
    }
    assert_eq!(auto(&dir.path().join("s-*.tar")).len(), 3);
    assert_eq!(auto(&dir.path().join("s-*")).len(), 6);
    assert_eq!(auto(&dir.path().join("s-*")).fingerprint(), whole.fingerprint());
    assert_ne!(auto(&paths[0]).fingerprint(), whole.fingerprint());
}

#[test]
fn compound_names_count_only_without_a_plain_one() {
    let dir = tempdir().unwrap();
    let members = vec![
        ("IMG.2020.01.png".to_owned(), png(1)),
        ("IMG.2020.02.png".to_owned(), png(2)),
        ("a.png".to_owned(), png(3)),
        ("a.mask.png".to_owned(), png(4)),
    ];
    write(&dir.path().join("x.tar"), tar_bytes(&members));
    let expected = ["x.tar/IMG.2020.01.png", "x.tar/IMG.2020.02.png", "x.tar/a.png"];
    assert_eq!(names(&auto(dir.path())), expected);
}

#[test]
fn many_shards_are_opened_for_each_read() {
    let dir = tempdir().unwrap();
    for number in 0..300 {
        let member = vec![(format!("{number}.png"), png(number))];
        write(&dir.path().join(format!("s-{number:03}.tar")), tar_bytes(&member));
    }
    let dataset = auto(dir.path());
    assert_eq!(dataset.len(), 300);
    assert_eq!(dataset.image(299).unwrap(), picture(299, 32, 24));
}

#[test]
fn a_cut_shard_is_an_error_wherever_it_is_cut() {
    let dir = tempdir().unwrap();
    let plain = tar_bytes(&members(1));
    let zipped = gzip(&plain);
    // An archive ends with two zero blocks; one is enough to tell that it is complete.
    for end in (0..plain.len() - 1024).step_by(97).chain([plain.len() - 1024]) {
        write(&dir.path().join("cut.tar"), &plain[..end]);
        refused(SourceKind::Auto, &dir.path().join("cut.tar"), &["cut.tar", "truncated"]);
    }
    for end in (3..zipped.len()).step_by(31).chain([zipped.len() - 1]) {
        write(&dir.path().join("cut.tar.gz"), &zipped[..end]);
        refused(SourceKind::Auto, &dir.path().join("cut.tar.gz"), &["cut.tar.gz", "truncated"]);
    }
    write(&dir.path().join("text.tar"), "this is not a tar file".repeat(100));
    refused(SourceKind::Auto, &dir.path().join("text.tar"), &["text.tar", "not a tar file"]);
}

#[test]
fn shards_without_images_are_named() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    write(&at("none.tar"), tar_bytes(&[("a.txt".into(), vec![1])]));
    refused(SourceKind::Auto, &at("none.tar"), &["none.tar", "no image files"]);
    write(&at("heic.tar"), tar_bytes(&[("a.heic".into(), vec![1]), ("b.heic".into(), vec![1])]));
    refused(
        SourceKind::Auto,
        &at("heic.tar"),
        &["no image files", "2 files were left out: 2 .heic"],
    );
}

#[test]
fn compressed_shards_past_the_memory_limit_go_to_a_file() {
    let dir = tempdir().unwrap();
    write_shards(dir.path());
    let limit = |gb| {
        let mut config = config(SourceKind::Auto, dir.path());
        config.shard_cache_gb = gb;
        config.spill_dir = Some(dir.path().to_str().unwrap().into());
        config
    };
    let before = std::fs::read_dir(dir.path()).unwrap().count();
    let (whole, spilt, half) =
        (open(&limit(1.0)).unwrap(), open(&limit(0.0)).unwrap(), open(&limit(2.5e-6)).unwrap());
    for index in 0..whole.len() {
        assert_eq!(whole.image(index).unwrap(), spilt.image(index).unwrap());
        assert_eq!(whole.image(index).unwrap(), half.image(index).unwrap());
    }
    assert_eq!(whole.fingerprint(), spilt.fingerprint());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), before, "nothing is left behind");
    let nowhere = DataConfig { spill_dir: Some("/does/not/exist".into()), ..limit(0.0) };
    let error = open(&nowhere).unwrap_err();
    assert!(matches!(error, Error::Spill { .. }), "{error:?}");
    for part in ["s-1.tar.gz", "/does/not/exist", "data.spill_dir", "gunzip"] {
        assert!(error.chain().contains(part), "{error}");
    }
}

#[test]
fn an_index_changes_nothing_but_is_used() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("s.tar");
    write(&path, tar_bytes(&members(10)));
    let scanned = auto(&path);
    assert_eq!(write_index(dir.path(), |_| ()).unwrap(), (1, 3));
    let indexed = auto(&path);
    assert_eq!(names(&indexed), names(&scanned));
    assert_eq!(labels(&indexed), labels(&scanned));
    assert_eq!(indexed.fingerprint(), scanned.fingerprint());
    for index in 0..3 {
        assert_eq!(indexed.image(index).unwrap(), scanned.image(index).unwrap());
    }
    let place = dir.path().join("s.tar.index");
    let text = std::fs::read_to_string(&place).unwrap();
    assert!(text.lines().count() == 4 && text.contains("\"d/0010.png\""), "{text}");
}

#[test]
fn a_damaged_index_is_named() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("s.tar");
    write(&path, tar_bytes(&members(10)));
    write_index(&path, |_| ()).unwrap();
    let place = dir.path().join("s.tar.index");
    let whole = std::fs::read(&place).unwrap();
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x11;
        write(&place, &bytes);
        let error = open(&config(SourceKind::Auto, &path)).unwrap_err().chain();
        assert!(error.contains("s.tar") && error.contains("data index"), "byte {at}: {error}");
        write(&place, &whole[..at]);
        refused(SourceKind::Auto, &path, &["s.tar.index", "the index is damaged"]);
    }
    write(&place, &whole);
    assert_eq!(auto(&path).len(), 3);
}

#[test]
fn a_shard_that_changed_is_noticed() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("s.tar");
    let original = tar_bytes(&members(10));
    write(&path, &original);
    let scanned = auto(&path);
    write_index(&path, |_| ()).unwrap();
    let indexed = auto(&path);
    let changed = |error: Error| {
        let text = error.chain();
        assert!(text.contains("s.tar has changed") && text.contains("d/0010.png"), "{text}");
    };
    // A change of an image's content in place is only detected with an index.
    let mut bytes = original.clone();
    bytes[512 + 40] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    changed(indexed.image(0).unwrap_err());
    // Another image in its place.
    std::fs::write(&path, tar_bytes(&members(30))).unwrap();
    changed(indexed.image(0).unwrap_err());
    changed(scanned.image(0).unwrap_err());
    // A different length, detected when the shard is opened.
    write(&path, [&original[..], &[0; 512]].concat());
    refused(SourceKind::Auto, &path, &["s.tar has changed", "data index", "instead of"]);
}

#[test]
fn compressed_shards_get_no_index() {
    let dir = tempdir().unwrap();
    write_shards(dir.path());
    let error = write_index(dir.path(), |_| ()).unwrap_err().to_string();
    assert!(error.contains("s-1.tar.gz") && error.contains("gunzip"), "{error}");
}

/// Creates a folder of two classes, with names that collide once dots are replaced.
fn classes(root: &Path) -> PathBuf {
    let folder = root.join("images");
    for (number, name) in
        ["dog/1.png", "dog/1.bmp", "dog/a.b.png", "cat/a_b.png", "cat/a.b.tif", "cat/2.jpg"]
            .into_iter()
            .enumerate()
    {
        write_picture(&folder.join(name), number as u32);
    }
    folder
}

fn encoded(path: &Path) -> Vec<Vec<u8>> {
    let source = data::source::open(&config(SourceKind::Auto, path)).unwrap();
    let load = |index| match source.load(index).unwrap() {
        data::source::Payload::Encoded(bytes) => bytes,
        data::source::Payload::Pixels(_) => panic!("no file"),
    };
    (0..source.len()).map(load).collect()
}

fn files(folder: &Path) -> HashMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let name = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    entries.map(|entry| (name(&entry), std::fs::read(entry.path()).unwrap())).collect()
}

#[test]
fn packed_images_are_the_same_in_the_same_order() {
    let dir = tempdir().unwrap();
    let folder = classes(dir.path());
    let out = dir.path().join("packed");
    let source = data::source::open(&config(SourceKind::Folder, &folder)).unwrap();
    let options = PackOptions { shard_images: 4, ..PackOptions::default() };
    let report = pack(source.as_ref(), &out, &options, |_| ()).unwrap();
    assert_eq!((report.shards, report.earlier, report.images), (2, 0, 6));
    let packed = auto(&out);
    assert_eq!(encoded(&out), encoded(&folder));
    assert_eq!(labels(&packed), labels(&auto(&folder)));
    assert_eq!(packed.class_names(), ["cat", "dog"]);
    let expected = [
        "000000.tar/cat/2.jpg",
        "000000.tar/cat/a_b.tif",
        "000000.tar/cat/a_b-2.png",
        "000000.tar/dog/1.bmp",
        "000001.tar/dog/1.png",
        "000001.tar/dog/a_b.png",
    ];
    assert_eq!(names(&packed), expected);
    // Without the indexes, the shards have the same contents.
    for name in ["000000.tar.index", "000001.tar.index"] {
        std::fs::remove_file(out.join(name)).unwrap();
    }
    assert_eq!(auto(&out).fingerprint(), packed.fingerprint());
}

#[test]
fn packing_goes_on_where_it_stopped() {
    let dir = tempdir().unwrap();
    let folder = classes(dir.path());
    let source = data::source::open(&config(SourceKind::Folder, &folder)).unwrap();
    let options = PackOptions { shard_images: 2, ..PackOptions::default() };
    let [whole, broken] = ["whole", "broken"].map(|name| dir.path().join(name));
    pack(source.as_ref(), &whole, &options, |_| ()).unwrap();
    pack(source.as_ref(), &broken, &options, |_| ()).unwrap();
    // As if killed in the middle of one shard, and between writing another one and its index.
    std::fs::remove_file(broken.join("000000.tar.index")).unwrap();
    std::fs::remove_file(broken.join("000002.tar.index")).unwrap();
    std::fs::rename(broken.join("000002.tar"), broken.join(".000002.tar.partial")).unwrap();
    let report = pack(source.as_ref(), &broken, &options, |_| ()).unwrap();
    assert_eq!((report.shards, report.earlier, report.images), (3, 1, 6));
    assert_eq!(files(&broken), files(&whole));
    // A shard that is truncated after it was finished is written again.
    let bytes = std::fs::read(broken.join("000001.tar")).unwrap();
    std::fs::write(broken.join("000001.tar"), &bytes[..1024]).unwrap();
    assert_eq!(pack(source.as_ref(), &broken, &options, |_| ()).unwrap().earlier, 2);
    assert_eq!(files(&broken), files(&whole));
}

#[test]
fn packing_refuses_what_it_would_spoil() {
    let dir = tempdir().unwrap();
    let folder = classes(dir.path());
    let source = data::source::open(&config(SourceKind::Folder, &folder)).unwrap();
    let fails = |out: &Path, options: &PackOptions, parts: &[&str]| {
        let error = pack(source.as_ref(), out, options, |_| ()).unwrap_err().chain();
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    };
    let options = PackOptions::default();
    fails(&folder, &options, &["images", "not empty"]);
    let out = dir.path().join("out");
    pack(source.as_ref(), &out, &options, |_| ()).unwrap();
    fails(&out, &PackOptions { shard_images: 3, ..options.clone() }, &["different images"]);
    // A file that vanished after it was listed.
    std::fs::remove_file(folder.join("dog/1.png")).unwrap();
    let fresh = dir.path().join("fresh");
    fails(&fresh, &options, &["dog/1.png", "No such file"]);
    assert!(!files(&fresh).keys().any(|name| name.contains("partial")));
    let skipping = PackOptions { skip_unreadable: true, ..options.clone() };
    let report = pack(source.as_ref(), &fresh, &skipping, |_| ()).unwrap();
    fails(&fresh, &options, &["different images or options"]);
    assert_eq!((report.images, report.skipped.len()), (5, 1));
    assert_eq!(report.skipped[0].0, "dog/1.png");
    assert_eq!(auto(&fresh).len(), 5);
}

/// Names inside a shard are never paths: nothing outside the shard is read or written.
#[test]
fn names_that_leave_the_shard_are_only_names() {
    let dir = tempdir().unwrap();
    let inner = dir.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    write(&dir.path().join("secret.png"), "not an image");
    let mut builder = tar::Builder::new(Vec::new());
    let escapes = ["../secret.png", "/etc/secret.png", "a/../../secret.png"];
    for (number, name) in escapes.iter().enumerate() {
        let bytes = png(number as u32);
        let mut header = tar::Header::new_old();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        builder.append(&header, &bytes[..]).unwrap();
    }
    // A link to a file outside the shard is not an image.
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    builder.append_link(&mut link, "link.png", "../secret.png").unwrap();
    let shard = inner.join("s.tar");
    write(&shard, builder.into_inner().unwrap());
    let dataset = auto(&shard);
    assert_eq!(names(&dataset), escapes.map(|name| format!("s.tar/{name}")));
    for index in 0..3 {
        assert_eq!(dataset.image(index).unwrap(), picture(index as u32, 32, 24));
    }
    let source = data::source::open(&config(SourceKind::Auto, &shard)).unwrap();
    let out = inner.join("out");
    data::source::pack(source.as_ref(), &out, &data::source::PackOptions::default(), |_| ())
        .unwrap();
    assert!(names(&auto(&out)).iter().all(|name| !name.contains("..")), "{:?}", names(&auto(&out)));
    let mut left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["inner", "secret.png"]);
    assert_eq!(std::fs::read(dir.path().join("secret.png")).unwrap(), b"not an image");
}
