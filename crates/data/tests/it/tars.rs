//! Archives of all kinds that GNU tar and Python write; `tools/parity/tars.py` makes them.

use std::io::Read;
use std::path::PathBuf;

use data::Dataset;
use data::source::write_index;
use flate2::read::GzDecoder;
use image::{Rgb, RgbImage};
use tempfile::{TempDir, tempdir};

use crate::support::{auto, labels, names, write};

/// The picture of that number.
fn drawn(number: u32, width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let black = y < 20 || (y / 2) % 2 == 1;
        let value = [16 * (x % 8) + number + 1, 32 * (y % 8) + 1, 200].map(|value| value as u8);
        Rgb(if black { [0; 3] } else { value })
    })
}

/// The fixture as it is, plain, and plain with an index.
fn opened(name: &str) -> (TempDir, [Dataset; 3]) {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tars");
    let zipped = std::fs::read(fixtures.join(format!("{name}.tar.gz"))).unwrap();
    let mut plain = Vec::new();
    GzDecoder::new(&zipped[..]).read_to_end(&mut plain).unwrap();
    let dir = tempdir().unwrap();
    let at = |folder: &str| dir.path().join(folder).join("x.tar");
    write(&dir.path().join("zipped/x.tar"), &zipped);
    write(&at("plain"), &plain);
    write(&at("indexed"), &plain);
    write_index(&at("indexed"), |_| ()).unwrap();
    let sets = ["zipped", "plain", "indexed"].map(|folder| auto(&at(folder)));
    for set in &sets[1..] {
        assert_eq!(set.notices(), sets[0].notices(), "{name}");
        assert_eq!(names(set), names(&sets[0]), "{name}");
        assert_eq!(labels(set), labels(&sets[0]), "{name}");
    }
    (dir, sets)
}

#[test]
fn sparse_members_are_read_in_all_four_forms() {
    for name in ["sparse-gnu", "sparse-pax-0.0", "sparse-pax-0.1", "sparse-pax-1.0"] {
        let (_dir, sets) = opened(name);
        for set in &sets {
            assert_eq!(names(set), ["x.tar/0.bmp", "x.tar/1.bmp"], "{name}");
            assert_eq!(labels(set), [None, Some(7)], "{name}");
            assert_eq!(set.image(0).unwrap(), drawn(0, 171, 120), "{name}");
            assert_eq!(set.image(1).unwrap(), drawn(1, 16, 32), "{name}");
            assert!(set.notices().is_empty(), "{name}: {:?}", set.notices());
        }
    }
}

#[test]
fn links_are_followed_within_the_shard_or_named() {
    for name in ["links-gnu", "links-posix", "links-ustar"] {
        let (_dir, sets) = opened(name);
        for set in &sets {
            let expected = ["0.bmp", "1.bmp", "sub/2.bmp", "sub/3.bmp"];
            assert_eq!(names(set), expected.map(|file| format!("x.tar/{file}")), "{name}");
            assert_eq!(labels(set), [Some(4), Some(4), None, None], "{name}");
            for index in 0..4 {
                assert_eq!(set.image(index).unwrap(), drawn(0, 16, 32), "{name}");
            }
            let lost = set.notices().lost;
            let mut named: Vec<String> =
                lost.first.iter().map(|(name, why)| format!("{name}: {why}")).collect();
            named.sort();
            let expected = [
                "x.tar/sub/4.bmp: a link to sub/gone.bmp, which is not in this shard",
                "x.tar/sub/5.bmp: a link to /etc/5.bmp, outside of this shard",
                "x.tar/sub/6.bmp: a pipe",
            ];
            assert_eq!(named, expected, "{name}");
        }
    }
    let (_dir, sets) = opened("links-v7");
    for set in &sets {
        assert_eq!(names(set), ["x.tar/0.bmp", "x.tar/1.bmp"]);
        assert_eq!(labels(set), [Some(4), Some(4)]);
        assert_eq!(set.image(1).unwrap(), drawn(0, 16, 32));
    }
}

#[test]
fn long_names_are_whole() {
    let long = format!("x.tar/{}/{}/{}.bmp", "d".repeat(90), "e".repeat(90), "n".repeat(120));
    for name in ["names-gnu", "names-posix"] {
        let (_dir, sets) = opened(name);
        for set in &sets {
            assert_eq!(names(set), [long.clone(), "x.tar/ü.bmp".into()], "{name}");
            assert_eq!(labels(set), [Some(5), None], "{name}");
            assert_eq!(set.image(0).unwrap(), drawn(0, 16, 32), "{name}");
            assert_eq!(set.image(1).unwrap(), drawn(1, 16, 32), "{name}");
        }
    }
}

#[test]
fn joined_archives_are_read_to_the_end() {
    let (_dir, sets) = opened("joined");
    for set in &sets {
        assert_eq!(names(set), ["x.tar/0.bmp", "x.tar/1.bmp"]);
        assert_eq!(set.image(1).unwrap(), drawn(1, 16, 32));
    }
}

/// Old programs write the size of the file that a hard link leads to, and no content.
#[test]
fn a_link_with_a_size_has_no_content() {
    let bmp = |number| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        drawn(number, 16, 32).write_to(&mut bytes, image::ImageFormat::Bmp).unwrap();
        bytes.into_inner()
    };
    for last in [true, false] {
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |name: &str, kind, size: u64, bytes: &[u8]| {
            let mut header = tar::Header::new_old();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(kind);
            header.set_size(size);
            if kind == tar::EntryType::Link {
                header.set_link_name("0.bmp").unwrap();
            }
            header.set_cksum();
            builder.append(&header, bytes).unwrap();
        };
        add("0.bmp", tar::EntryType::Regular, bmp(0).len() as u64, &bmp(0));
        add("1.bmp", tar::EntryType::Link, bmp(0).len() as u64, &[]);
        if !last {
            add("2.bmp", tar::EntryType::Regular, bmp(2).len() as u64, &bmp(2));
        }
        let dir = tempdir().unwrap();
        write(&dir.path().join("x.tar"), builder.into_inner().unwrap());
        let set = auto(dir.path());
        assert_eq!(set.len(), if last { 2 } else { 3 });
        for (index, number) in [0, 0, 2].into_iter().enumerate().take(set.len()) {
            assert_eq!(set.image(index).unwrap(), drawn(number, 16, 32));
        }
    }
}

/// Cut anywhere, an archive is an error; with a byte changed it is an error or something else, and
/// never a panic or an endless loop.
#[test]
fn cut_and_damaged_archives_are_survived() {
    for name in ["sparse-gnu", "sparse-pax-1.0", "links-posix", "names-gnu"] {
        let (dir, sets) = opened(name);
        let path = dir.path().join("plain/x.tar");
        let bytes = std::fs::read(&path).unwrap();
        let config = crate::support::config(data::SourceKind::Shards, &path);
        let end = bytes.len() - bytes.iter().rev().take_while(|&&byte| byte == 0).count();
        for cut in (0..end).step_by(211) {
            write(&path, &bytes[..cut]);
            let error = data::open(&config).unwrap_err().chain();
            assert!(error.contains("truncated"), "{name} at {cut}: {error}");
        }
        for at in (0..end).step_by(37) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x15;
            write(&path, &damaged);
            let Ok(dataset) = data::open(&config) else { continue };
            (0..dataset.len()).for_each(|index| drop(dataset.image(index)));
        }
        drop(sets);
    }
}
