//! The decoder against Pillow, that is libjpeg-turbo: every byte must be equal.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use jpeg::{Error, Jpeg};
use proptest::prelude::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Name and bytes of each file.
fn files() -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jpg"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().into(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

fn file(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap()
}

fn decode(bytes: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    Jpeg::open(bytes)?.map(|jpeg| jpeg.decode()).transpose()
}

/// Place of the first marker of this kind.
fn marker(bytes: &[u8], kind: u8) -> usize {
    bytes.windows(2).position(|pair| pair == [0xFF, kind]).unwrap()
}

#[test]
fn pillow_reads_the_same_pixels() {
    let files = files();
    assert_eq!(files.len(), 32);
    for (name, bytes) in files {
        let jpeg = Jpeg::open(&bytes).unwrap().expect(&name);
        let pixels = jpeg.decode().unwrap();
        assert_eq!(jpeg.channels(), if name.starts_with("grey") { 1 } else { 3 });
        assert_eq!(pixels.len(), jpeg.width() as usize * jpeg.height() as usize * jpeg.channels());
        let expected = file(&format!("{name}.pixels"));
        let first = pixels.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!((first, pixels.len()), (None, expected.len()), "{name}");
    }
}

#[test]
fn every_cut_is_an_error() {
    for name in ["420.jpg", "444_restart.jpg", "grey_5x3.jpg"] {
        let bytes = file(name);
        for end in 2..bytes.len() {
            let cut = decode(&bytes[..end]);
            assert!(matches!(cut, Err(Error::Truncated)), "{name} cut at {end}: {cut:?}");
        }
        assert_eq!(decode(&bytes[..1]), Ok(None));
        let longer = [&bytes, &b"trailing"[..]].concat();
        assert_eq!(decode(&longer), decode(&bytes));
    }
}

#[test]
fn data_that_ends_before_the_picture_is_an_error() {
    // Half of the data, but with an end marker.
    let bytes = file("444.jpg");
    let start = marker(&bytes, 0xDA);
    let half = start + (bytes.len() - start) / 2;
    let half = half + usize::from(bytes[half - 1] == 0xFF);
    let cut = [&bytes[..half], &[0xFF, 0xD9]].concat();
    assert!(matches!(decode(&cut), Err(Error::Truncated | Error::Corrupt)));
}

#[test]
fn restart_markers_must_come_in_turn() {
    let bytes = file("420_restart.jpg");
    let (first, second) = (marker(&bytes, 0xD0), marker(&bytes, 0xD1));
    let mut swapped = bytes.clone();
    swapped.swap(first + 1, second + 1);
    assert_eq!(decode(&swapped), Err(Error::Restart));
    let missing = [&bytes[..first], &bytes[first + 2..]].concat();
    assert!(decode(&missing).is_err());
}

#[test]
fn what_is_for_others_is_told_by_the_header() {
    let bytes = file("444.jpg");
    let frame = marker(&bytes, 0xC0);
    let changed = |place: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[place] = value;
        Jpeg::open(&bytes).map(|jpeg| jpeg.is_some())
    };
    assert_eq!(changed(frame + 1, 0xC1), Ok(true), "extended");
    for (what, place, value) in [
        ("progressive", frame + 1, 0xC2),
        ("lossless", frame + 1, 0xC3),
        ("arithmetic", frame + 1, 0xC9),
        ("12 bits", frame + 4, 12),
        ("odd sampling", frame + 11, 0x31),
        ("finer colour", frame + 14, 0x21),
        ("no start", 1, 0xD9),
        ("part of the spectrum", marker(&bytes, 0xDA) + 12, 5),
    ] {
        assert_eq!(changed(place, value), Ok(false), "{what}");
    }
    // The height comes later.
    let mut late = bytes.clone();
    late[frame + 5..frame + 7].fill(0);
    assert!(Jpeg::open(&late).unwrap().is_none());
    // Without a JFIF segment, components may be called red, green and blue.
    let mut rgb = bytes.clone();
    rgb[marker(&bytes, 0xE0) + 4..][..4].copy_from_slice(b"ABCD");
    assert!(Jpeg::open(&rgb).unwrap().is_some());
    let scan = marker(&bytes, 0xDA);
    for (i, name) in b"RGB".iter().enumerate() {
        (rgb[frame + 10 + 3 * i], rgb[scan + 5 + 2 * i]) = (*name, *name);
    }
    assert!(Jpeg::open(&rgb).unwrap().is_none());
}

/// The file with another segment in front of all others.
fn with_segment(bytes: &[u8], kind: u8, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u16 + 2).to_be_bytes();
    [&bytes[..2], &[0xFF, kind], &length, content, &bytes[2..]].concat()
}

#[test]
fn colours_are_what_libjpeg_takes_them_for() {
    let mine = |bytes: &[u8]| Jpeg::open(bytes).unwrap().is_some();
    let adobe = |bytes: &[u8], transform: u8| {
        with_segment(bytes, 0xEE, &[b"Adobe", &[0, 100, 0, 0, 0, 0, transform][..]].concat())
    };
    let (jfif, grey) = (file("444.jpg"), file("grey.jpg"));
    let mut bare = jfif.clone();
    bare[marker(&jfif, 0xE0) + 4..][..4].copy_from_slice(b"ABCD");
    for transform in 0..3 {
        assert_eq!(mine(&adobe(&bare, transform)), transform == 1, "{transform}");
        assert_eq!(decode(&adobe(&jfif, transform)), decode(&jfif), "JFIF comes first");
        assert_eq!(decode(&adobe(&grey, transform)), decode(&grey), "grey is grey");
    }
    // A JFIF segment that is cut short does not keep red, green and blue from being what they are.
    let (frame, scan) = (marker(&bare, 0xC0), marker(&bare, 0xDA));
    for (i, name) in b"RGB".iter().enumerate() {
        (bare[frame + 10 + 3 * i], bare[scan + 5 + 2 * i]) = (*name, *name);
    }
    assert!(!mine(&with_segment(&bare, 0xE0, b"JFIF\0\x01\x01")));
    assert!(mine(&with_segment(&bare, 0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0")));
}

#[test]
fn missing_tables_are_named() {
    let bytes = file("444.jpg");
    for (kind, what) in [(0xDB, "quantisation"), (0xC4, "huffman")] {
        let mut bytes = bytes.clone();
        while let Some(at) = bytes.windows(2).position(|pair| pair == [0xFF, kind]) {
            bytes[at + 1] = 0xFE;
        }
        assert_eq!(Jpeg::open(&bytes).err(), Some(Error::MissingTable { what }));
    }
}

#[test]
fn the_exif_block_is_handed_out() {
    let bytes = file("grey.jpg");
    assert_eq!(Jpeg::open(&bytes).unwrap().unwrap().exif(), None);
    let with = with_segment(&bytes, 0xE1, b"Exif\0\0MM\0*");
    assert_eq!(Jpeg::open(&with).unwrap().unwrap().exif(), Some(&b"MM\0*"[..]));
    // Of two, the first.
    let two = with_segment(&with, 0xE1, b"Exif\0\0II*\0");
    assert_eq!(Jpeg::open(&two).unwrap().unwrap().exif(), Some(&b"II*\0"[..]));
    let empty = with_segment(&with, 0xE1, b"Exif\0\0");
    assert_eq!(Jpeg::open(&empty).unwrap().unwrap().exif(), Some(&b"MM\0*"[..]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_bytes_never_panic(
        which in 0_usize..32,
        hits in proptest::collection::vec((0.0_f64..1.0, any::<u8>()), 1..8),
        cut in 0.5_f64..2.0,
    ) {
        let (_, mut bytes) = files().swap_remove(which);
        bytes.truncate((cut * bytes.len() as f64) as usize);
        for (place, value) in hits {
            let index = (place * bytes.len() as f64) as usize;
            bytes[index] = value;
        }
        if let Ok(Some(jpeg)) = Jpeg::open(&bytes)
            && let Ok(pixels) = jpeg.decode()
        {
            let size = jpeg.width() as usize * jpeg.height() as usize * jpeg.channels();
            prop_assert_eq!(pixels.len(), size);
        }
    }
}
