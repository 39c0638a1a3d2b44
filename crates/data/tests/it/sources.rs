//! Folder, list, and shard sources, and their errors for unusable paths.

use std::path::{Path, PathBuf};

use crate::support::{auto, config, labels, names, picture, png, refused, write, write_picture};
use data::{Dataset, SourceKind, open};
use tempfile::tempdir;

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
    assert!(
        beyond.chain().contains("image index 3 is out of range for a dataset of size 3"),
        "{}",
        beyond.chain()
    );
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
    assert!(dataset.notices().is_empty());
    // A dangling link in place of a class is reported.
    symlink("/no/such/cats", at("cat")).unwrap();
    let dataset = auto(dir.path());
    assert_eq!((dataset.len(), dataset.class_names().len()), (4, 2));
    let said = dataset.notices().sentences();
    assert!(
        said[0].starts_with("1 entry cannot be used: cat (a link to /no/such/cats, which cannot"),
        "{said:?}"
    );
}

#[test]
fn a_file_whose_name_is_not_utf8_is_read() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempdir().unwrap();
    write_picture(&dir.path().join("a.png"), 0);
    let odd = std::ffi::OsStr::from_bytes(b"b\xFF.png");
    std::fs::copy(dir.path().join("a.png"), dir.path().join(odd)).unwrap();
    let dataset = auto(dir.path());
    assert_eq!(names(&dataset), ["a.png", "b\u{FFFD}.png"]);
    assert_eq!(dataset.image(1).unwrap(), dataset.image(0).unwrap());
    let list: &dyn data::source::Source = &data::source::List::of_files(&[dir.path().join(odd)]);
    assert!(matches!(list.load(0), Ok(data::source::Payload::Encoded(bytes)) if !bytes.is_empty()));
}

/// A folder that cannot be listed is an error that names its path, because its images would be
/// missing from the run. Permissions do not apply to root, but the limit of 4096 bytes for a path
/// does, so the test also creates a longer path by moving one folder into another.
#[test]
fn a_folder_that_cannot_be_listed_is_an_error() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempdir().unwrap();
    write_picture(&dir.path().join("a/1.png"), 0);
    let locked = dir.path().join("locked");
    write_picture(&locked.join("2.png"), 0);
    std::fs::set_permissions(&locked, PermissionsExt::from_mode(0o000)).unwrap();
    if std::fs::read_dir(&locked).is_err() {
        refused(SourceKind::Folder, dir.path(), &["cannot list", "locked"]);
    } else {
        println!("permissions do not hold for this user");
    }
    std::fs::set_permissions(&locked, PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(auto(dir.path()).len(), 2);

    let deep =
        |start: &str| (0..11).fold(dir.path().join(start), |path, _| path.join("d".repeat(200)));
    std::fs::create_dir_all(deep("upper")).unwrap();
    std::fs::create_dir_all(deep("lower")).unwrap();
    std::fs::rename(dir.path().join("lower"), deep("upper").join("lower")).unwrap();
    refused(SourceKind::Folder, dir.path(), &["cannot list", "dddd", "too long"]);
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
    refused(
        SourceKind::Auto,
        &at("texts"),
        &["texts", "none of the files in it (2 in total)", "jpg", "1 .md, 1 .txt"],
    );
    refused(SourceKind::Auto, &at("one.png"), &["single image", "folder"]);
    refused(SourceKind::Auto, &at("texts/b.md"), &["not a folder, a list"]);
    refused(SourceKind::Folder, &at("one.png"), &["not a folder"]);
    refused(SourceKind::Shards, &at("texts"), &["no shards"]);
    refused(SourceKind::Auto, &at("texts/x-*.tar"), &["x-*.tar", "matches"]);
    refused(SourceKind::Auto, &at("*/x.tar*"), &["last part"]);
    refused(SourceKind::Auto, Path::new(""), &["data.path", "required"]);
}

#[test]
fn the_synthetic_source_opens_without_a_path() {
    let mut config = config(SourceKind::Synthetic, Path::new(""));
    config.synthetic.count = 5;
    let dataset = open(&config).unwrap();
    assert_eq!((dataset.len(), dataset.kind()), (5, "synthetic"));
    assert_eq!(dataset.image(4).unwrap().dimensions(), (64, 64));
}

/// Creates a list that is large enough to be cached in a file next to it.
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
    // A cache that is damaged or truncated anywhere is not used, and is written again.
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
    // A list of the same size with a different label in the middle.
    let middle = text.len() / 2 + text[text.len() / 2..].find("dog").unwrap();
    let changed = format!("{}cow{}", &text[..middle], &text[middle + 3..]);
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    write(&list, changed);
    std::fs::File::options().write(true).open(&list).unwrap().set_modified(later).unwrap();
    assert_eq!(auto(&list).class_names(), ["cat", "cow", "dog"]);
}

#[cfg(not(feature = "parquet"))]
#[test]
fn parquet_files_need_the_feature() {
    let dir = tempdir().unwrap();
    write(&dir.path().join("a.parquet"), "PAR1");
    refused(SourceKind::Auto, dir.path(), &["parquet", "--features parquet"]);
}

#[cfg(not(feature = "remote"))]
#[test]
fn addresses_need_the_feature() {
    refused(SourceKind::Auto, Path::new("https://host/a.tar"), &["--features remote"]);
}

#[test]
fn braces_name_many_files() {
    let dir = tempdir().unwrap();
    for number in 8..12 {
        write(&dir.path().join(format!("s-{number:02}.tar")), one_image(number));
    }
    let many = auto(&dir.path().join("s-{08..10}.tar"));
    assert_eq!(names(&many), ["s-08.tar/8.png", "s-09.tar/9.png", "s-10.tar/10.png"]);
    refused(SourceKind::Auto, &dir.path().join("s-{08..13}.tar"), &["s-12.tar", "no such file"]);
    refused(SourceKind::Auto, &dir.path().join("s-{0..99999999}.tar"), &["too many files"]);
}

fn one_image(number: u32) -> Vec<u8> {
    let (mut builder, bytes) = (tar::Builder::new(Vec::new()), png(number));
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    builder.append_data(&mut header, format!("{number}.png"), &bytes[..]).unwrap();
    builder.into_inner().unwrap()
}
