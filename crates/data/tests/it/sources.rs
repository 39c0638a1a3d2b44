//! Folder, list and shard sources, and what they say of paths that cannot be used.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::support::{config, jpeg, picture, png, write, write_picture};
use data::{Dataset, Error, SourceKind, open};
use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::tempdir;

fn auto(path: &Path) -> Dataset {
    open(&config(SourceKind::Auto, path)).unwrap()
}

fn names(dataset: &Dataset) -> Vec<String> {
    (0..dataset.len()).map(|index| dataset.name(index)).collect()
}

fn labels(dataset: &Dataset) -> Vec<Option<u32>> {
    (0..dataset.len()).map(|index| dataset.label(index)).collect()
}

/// The message for a path that cannot be used: one line that holds all of `parts`.
fn refused(source: SourceKind, path: &Path, parts: &[&str]) {
    let message = open(&config(source, path)).unwrap_err().chain();
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    assert!(!message.contains('\n'), "{message}");
}

#[test]
fn a_folder_of_classes_has_sorted_labels() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    write_picture(&at("dog/b.PNG"), 0);
    write_picture(&at("dog/deep/a.bmp"), 1);
    write_picture(&at("cat/z.tif"), 2);
    write_picture(&at(".hidden/x.png"), 3);
    write_picture(&at("cat/.y.png"), 4);
    write(&at("notes.txt"), "not an image");
    let dataset = auto(dir.path());
    assert_eq!(names(&dataset), ["cat/z.tif", "dog/b.PNG", "dog/deep/a.bmp"]);
    assert_eq!(labels(&dataset), [Some(0), Some(1), Some(1)]);
    assert_eq!(dataset.class_names(), ["cat", "dog"]);
    assert_eq!((dataset.num_classes(), dataset.kind()), (2, "folder"));
    assert_eq!(dataset.image(2).unwrap(), picture(1, 32, 24));
    let beyond = dataset.image(3).unwrap_err();
    assert!(beyond.chain().contains("3 was asked for but there are 3"), "{}", beyond.chain());
    assert_eq!((dataset.name(3), dataset.label(3)), (String::new(), None));
}

#[test]
fn a_folder_without_two_classes_has_no_labels() {
    let flat = tempdir().unwrap();
    write_picture(&flat.path().join("a.png"), 0);
    write_picture(&flat.path().join("x/b.png"), 1);
    write_picture(&flat.path().join("y/c.png"), 1);
    let one = tempdir().unwrap();
    write_picture(&one.path().join("images/b.png"), 1);
    for (dir, len) in [(flat, 3), (one, 1)] {
        let dataset = auto(dir.path());
        assert_eq!((dataset.len(), dataset.num_classes()), (len, 0));
        assert!(labels(&dataset).iter().all(Option::is_none) && dataset.class_names().is_empty());
    }
}

#[test]
fn loops_of_links_end_and_a_dangling_link_is_a_broken_image() {
    use std::os::unix::fs::symlink;
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    write_picture(&at("a/1.png"), 0);
    write_picture(&at("b/2.png"), 1);
    symlink(dir.path(), at("a/up")).unwrap();
    symlink(at("nowhere.png"), at("b/gone.png")).unwrap();
    symlink(at("a/1.png"), at("b/link.png")).unwrap();
    let dataset = auto(dir.path());
    assert_eq!(names(&dataset), ["a/1.png", "b/2.png", "b/gone.png", "b/link.png"]);
    assert_eq!(dataset.image(3).unwrap(), dataset.image(0).unwrap());
    let error = dataset.image(2).unwrap_err();
    assert!(error.chain().contains("b/gone.png"), "{}", error.chain());
}

#[test]
fn the_fingerprint_follows_names_and_sizes() {
    let dir = tempdir().unwrap();
    write_picture(&dir.path().join("a/1.png"), 0);
    write_picture(&dir.path().join("b/2.png"), 1);
    let first = auto(dir.path()).fingerprint();
    assert_eq!(first.len(), 16);
    assert_eq!(first, auto(dir.path()).fingerprint());
    write(&dir.path().join("b/2.png"), "shorter");
    let second = auto(dir.path()).fingerprint();
    assert_ne!(first, second);
    std::fs::rename(dir.path().join("b/2.png"), dir.path().join("b/3.png")).unwrap();
    assert_ne!(second, auto(dir.path()).fingerprint());
}

#[test]
fn lists_of_all_three_kinds() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    write_picture(&at("x/1.png"), 1);
    write_picture(&at("x/2.png"), 2);
    let absolute = at("x/2.png").to_str().unwrap().to_owned();
    write(&at("l.txt"), format!("x/1.png\r\n\n{absolute}\n"));
    write(&at("h.csv"), "\u{feff}width,label,path\n3,dog,x/1.png\n4,cat,x/2.png\n");
    write(&at("p.csv"), "x/1.png,7\n\"x/2.png\",\n");
    write(
        &at("j.jsonl"),
        "{\"path\": \"x/1.png\", \"label\": 1}\n\n{\"path\": \"x/2.png\", \"more\": [1]}\n",
    );
    for (list, expected, classes) in [
        ("l.txt", [None, None], 0),
        ("h.csv", [Some(1), Some(0)], 2),
        ("p.csv", [Some(7), None], 8),
        ("j.jsonl", [Some(1), None], 2),
    ] {
        let dataset = auto(&at(list));
        assert_eq!((dataset.len(), dataset.kind()), (2, "list"), "{list}");
        assert_eq!(labels(&dataset), expected, "{list}");
        assert_eq!(dataset.num_classes(), classes, "{list}");
        for index in 0..2 {
            assert_eq!(dataset.image(index).unwrap(), picture(index as u32 + 1, 32, 24));
        }
    }
    assert_eq!(auto(&at("h.csv")).class_names(), ["cat", "dog"]);
}

#[test]
fn broken_lists_name_file_and_line() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    write_picture(&at("1.png"), 1);
    for (file, text, parts) in [
        (
            "a.jsonl",
            &b"{\"path\": \"1.png\"}\n{\"file\": 3}\n"[..],
            &["a.jsonl", "line 2", "path"][..],
        ),
        ("b.jsonl", b"1.png\n", &["b.jsonl", "line 1", "not a JSON object"]),
        ("c.jsonl", b"{\"path\": \"1.png\", \"label\": 1.5}", &["line 1", "label"]),
        ("d.csv", b"path,label\n1.png,3\n,4\n", &["d.csv", "line 3", "path is missing"]),
        ("e.txt", b"\n \n", &["e.txt", "names no images"]),
        ("f.txt", b"2.png\n3.png\n", &["f.txt", "none of the first 2", "2.png", "relative"]),
        ("g.txt", b"\xFF\xFE1.png", &["g.txt", "UTF-8"]),
        ("h.csv", b"", &["h.csv", "names no images"]),
        ("i.txt", b"1.png\n\n2\x00.png\n", &["i.txt", "line 3", "NUL"]),
        ("j.csv", b"1.png,3\n\"2\x00.png\",4\n", &["j.csv", "line 2", "NUL"]),
        ("k.txt", &[b'a'; 1 << 20], &["k.txt", "line 1", "longer than 65536 bytes"]),
        ("l.csv", &[b'a'; 1 << 20], &["l.csv", "line 1", "1048576 bytes"]),
    ] {
        write(&at(file), text);
        refused(SourceKind::Auto, &at(file), parts);
    }
    write(&at("list.md"), "1.png");
    refused(SourceKind::List, &at("list.md"), &["list.md", ".jsonl"]);
}

#[test]
fn paths_that_cannot_be_used_say_why() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("empty")).unwrap();
    write(&at("texts/a.txt"), "x");
    write(&at("texts/b.md"), "x");
    write_picture(&at("one.png"), 0);
    for source in [SourceKind::Auto, SourceKind::Folder, SourceKind::List, SourceKind::Shards] {
        refused(source, &at("missing"), &["missing", "no such file or folder"]);
    }
    refused(SourceKind::Auto, &at("empty"), &["empty", "the folder is empty"]);
    refused(SourceKind::Auto, &at("texts"), &["texts", "none of the 2 files", "jpg"]);
    refused(SourceKind::Auto, &at("one.png"), &["single image", "folder"]);
    refused(SourceKind::Auto, &at("texts/b.md"), &["not a folder, a list"]);
    refused(SourceKind::Folder, &at("one.png"), &["not a folder"]);
    refused(SourceKind::Shards, &at("texts"), &["no shards"]);
    refused(SourceKind::Auto, &at("texts/x-*.tar"), &["x-*.tar", "matches"]);
    refused(SourceKind::Auto, &at("*/x.tar*"), &["last part"]);
    refused(SourceKind::Auto, Path::new(""), &["data.path", "required"]);
}

/// The members of a small shard: two labelled images in each of two ways, and side files.
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

fn tar_bytes(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
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
        assert_eq!((one.len(), one.image(0).unwrap()), (3, picture(first, 32, 24)));
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
    // Two zero blocks end an archive; one is enough to tell that it is whole.
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
fn shards_without_images_or_with_bad_labels_are_named() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    write(&at("none.tar"), tar_bytes(&[("a.txt".into(), vec![1])]));
    refused(SourceKind::Auto, &at("none.tar"), &["none.tar", "no image files"]);
    write(&at("bad.tar"), tar_bytes(&[("a.png".into(), png(0)), ("a.json".into(), vec![b'{'])]));
    refused(SourceKind::Auto, &at("bad.tar"), &["bad.tar", "a.json", "JSON"]);
    write(&at("binary.tar"), tar_bytes(&[("a.cls".into(), vec![0xFF])]));
    refused(SourceKind::Auto, &at("binary.tar"), &["binary.tar", "a.cls", "ASCII"]);
}

#[test]
fn compressed_shards_respect_the_memory_limit() {
    let dir = tempdir().unwrap();
    let [_, zipped] = write_shards(dir.path());
    let mut config = config(SourceKind::Auto, &zipped);
    config.shard_cache_gb = 1e-6; // 1000 bytes
    let error = open(&config).unwrap_err();
    assert!(matches!(error, Error::ShardCache { .. }), "{error:?}");
    let message = error.to_string();
    for part in ["s-1.tar.gz", "data.shard_cache_gb", "0.000001", "gunzip"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn the_synthetic_source_opens_without_a_path() {
    let mut config = config(SourceKind::Synthetic, Path::new(""));
    config.synthetic.count = 5;
    let dataset = open(&config).unwrap();
    assert_eq!((dataset.len(), dataset.kind()), (5, "synthetic"));
    assert_eq!(dataset.image(4).unwrap().dimensions(), (64, 64));
}

/// A list above the size from which its content is kept in a file beside it.
fn long_list(dir: &Path) -> PathBuf {
    let list = dir.join("long.csv");
    let line = |i: usize| format!("1.png,{}\n", ["cat", "dog"][i % 2]);
    write(&list, (0..150_000).map(line).collect::<String>());
    write_picture(&dir.join("1.png"), 1);
    list
}

#[test]
fn what_is_kept_of_a_list_changes_nothing() {
    let dir = tempdir().unwrap();
    let list = long_list(dir.path());
    let fresh = auto(&list);
    let kept = dir.path().join(".long.csv.index");
    assert!(kept.exists());
    let again = auto(&list);
    let look = |dataset: &Dataset| {
        let all = (0..dataset.len()).step_by(997).map(|i| (dataset.name(i), dataset.label(i)));
        (dataset.len(), dataset.class_names().to_vec(), all.collect::<Vec<_>>())
    };
    assert_eq!(look(&again), look(&fresh));
    assert_eq!(again.label(1), Some(1));
    // Damaged anywhere, or cut off anywhere, it is not used, and made anew.
    let whole = std::fs::read(&kept).unwrap();
    for place in [0, 20, 45, 50, 60, 68, 100, whole.len() / 2, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x10;
        write(&kept, &damaged);
        assert_eq!(look(&auto(&list)), look(&fresh), "byte {place}");
        assert_eq!(std::fs::read(&kept).unwrap(), whole, "byte {place}");
        write(&kept, &whole[..place]);
        assert_eq!(look(&auto(&list)), look(&fresh), "cut at {place}");
    }
}

#[test]
fn a_changed_list_is_read_anew() {
    let dir = tempdir().unwrap();
    let list = long_list(dir.path());
    assert_eq!(auto(&list).label(0), Some(0));
    let text = std::fs::read_to_string(&list).unwrap();
    write(&list, format!("{text}1.png,cat\n"));
    assert_eq!(auto(&list).len(), 150_001);
    // Of the same size, and with another label in the middle.
    let middle = text.len() / 2 + text[text.len() / 2..].find("dog").unwrap();
    let changed = format!("{}cow{}", &text[..middle], &text[middle + 3..]);
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    write(&list, changed);
    std::fs::File::options().write(true).open(&list).unwrap().set_modified(later).unwrap();
    assert_eq!(auto(&list).class_names(), ["cat", "cow", "dog"]);
}
