//! Compares the decoder with Pillow, which uses libjpeg-turbo: every byte must be equal.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use jpeg::{Colors, Error, Jpeg};
use proptest::prelude::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Returns the path without extension and the bytes of each file in a folder.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jpg"))
        .map(|path| (path.with_extension(""), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Returns the files of the usual kind and all others.
fn all_files() -> Vec<(PathBuf, Vec<u8>)> {
    [files(&folder()), files(&folder().join("kinds"))].concat()
}

fn file(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap()
}

fn decode(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    Jpeg::open(bytes)?.decode()
}

/// Returns the position of the first marker of this kind.
fn marker(bytes: &[u8], kind: u8) -> usize {
    bytes.windows(2).position(|pair| pair == [0xFF, kind]).unwrap()
}

#[test]
fn pillow_reads_the_same_pixels() {
    let files = all_files();
    assert_eq!(files.len(), 32 + 65);
    for (path, bytes) in files {
        let name = path.file_name().unwrap().to_str().unwrap();
        let jpeg = Jpeg::open(&bytes).expect(name);
        let pixels = jpeg.decode().expect(name);
        let gray = name.starts_with("gray") || name.starts_with("gray");
        assert_eq!(jpeg.channels(), if gray { 1 } else { 3 }, "{name}");
        assert_eq!(pixels.len(), jpeg.width() as usize * jpeg.height() as usize * jpeg.channels());
        let expected = fs::read(path.with_extension("pixels")).unwrap();
        let first = pixels.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!((first, pixels.len()), (None, expected.len()), "{name}");
    }
}

#[test]
fn every_cut_is_an_error() {
    for name in [
        "420.jpg",
        "444_restart.jpg",
        "gray_5x3.jpg",
        "kinds/scans_420.jpg",
        "kinds/scans_440_restarts.jpg",
        "kinds/scans_420_progressive.jpg",
        "kinds/ycck_420_scans.jpg",
    ] {
        let bytes = file(name);
        for end in 2..bytes.len() {
            let cut = decode(&bytes[..end]);
            assert!(matches!(cut, Err(Error::Truncated)), "{name} cut at {end}: {cut:?}");
        }
        assert_eq!(decode(&bytes[..1]), Err(Error::NotJpeg));
        let longer = [&bytes, &b"trailing"[..]].concat();
        assert_eq!(decode(&longer), decode(&bytes));
    }
}

/// Without one of its scans, a file is truncated; with one of them twice, it is corrupt.
#[test]
fn scans_may_not_be_missing_or_come_twice() {
    for name in ["kinds/scans_420.jpg", "kinds/scans_444_progressive.jpg"] {
        let bytes = file(name);
        let starts: Vec<_> = (0..bytes.len())
            // A restart interval precedes each scan.
            .filter(|&at| bytes[at..].starts_with(&[0xFF, 0xDD]))
            .chain([bytes.len() - 2])
            .collect();
        assert!(starts.len() > 3);
        let mut missing = 0;
        for scan in starts.windows(2) {
            let (before, behind) = (&bytes[..scan[0]], &bytes[scan[1]..]);
            missing += usize::from(decode(&[before, behind].concat()).is_err());
            let twice = decode(&[&bytes[..scan[1]], &bytes[scan[0]..]].concat());
            assert_eq!(twice, Err(Error::Corrupt), "{name} {scan:?}");
        }
        // The last bits of high frequencies may be missing: libjpeg then shows what there is
        // without estimating anything.
        let optional = if name.contains("progressive") { starts.len() / 2 } else { 0 };
        assert!(missing + optional >= starts.len() - 1, "{name}: {missing}");
    }
}

#[test]
fn a_component_that_no_scan_has_is_missing() {
    let bytes = file("kinds/scans_420.jpg");
    let last = bytes.windows(2).rposition(|pair| pair == [0xFF, 0xDD]).unwrap();
    let cut = [&bytes[..last], &[0xFF, 0xD9]].concat();
    assert_eq!(decode(&cut), Err(Error::Truncated));
}

#[test]
fn data_that_ends_before_the_picture_is_an_error() {
    // Half of the data, followed by an end marker.
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
fn kinds_that_are_not_decoded_are_named() {
    let bytes = file("444.jpg");
    let frame = marker(&bytes, 0xC0);
    let changed = |place: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[place] = value;
        decode(&bytes)
    };
    assert_eq!(changed(frame + 1, 0xC1), decode(&bytes), "extended");
    for (what, place, value) in [
        ("lossless coding", frame + 1, 0xC3),
        ("arithmetic coding", frame + 1, 0xC9),
        ("arithmetic coding", frame + 1, 0xCA),
        ("hierarchical coding", frame + 1, 0xC5),
        ("lossless coding", frame + 1, 0xCB),
        ("other than 8 bits per sample", frame + 4, 12),
        ("sampling factors whose ratio is not an integer", frame + 11, 0x31),
        ("sampling factors whose ratio is not an integer", frame + 14, 0x32),
    ] {
        let mut bytes = bytes.clone();
        // Another component needs a factor of 2.
        if place == frame + 11 {
            bytes[frame + 14] = 0x21;
        } else if place == frame + 14 {
            bytes[frame + 11] = 0x21;
        }
        bytes[place] = value;
        assert_eq!(decode(&bytes), Err(Error::Unsupported { what }), "{place}");
    }
    assert_eq!(changed(1, 0xD9), Err(Error::NotJpeg));
    assert_eq!(changed(frame + 11, 0x51), Err(Error::Segment { marker: 0xC0 }), "factors");
    let more_blocks_than_may_be = file("kinds/factors_22_22_22.jpg");
    let scan = marker(&more_blocks_than_may_be, 0xDA);
    let all = [0xFF, 0xDA, 0, 12, 3, 1, 0, 2, 0, 3, 0, 0, 63, 0];
    let bytes_of_all =
        [&more_blocks_than_may_be[..scan], &all, &more_blocks_than_may_be[scan + 10..]].concat();
    assert_eq!(decode(&bytes_of_all), Err(Error::Segment { marker: 0xDA }));
    // A sequential scan has all coefficients, whatever it states; libjpeg does the same.
    assert_eq!(changed(marker(&bytes, 0xDA) + 12, 5), decode(&bytes));
    // The height is stated after the data.
    let mut late = bytes.clone();
    late[frame + 5..frame + 7].fill(0);
    let what = "a height that follows the data";
    assert_eq!(decode(&late), Err(Error::Unsupported { what }));
}

/// Inserts another segment before all others.
fn with_segment(bytes: &[u8], kind: u8, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u16 + 2).to_be_bytes();
    [&bytes[..2], &[0xFF, kind], &length, content, &bytes[2..]].concat()
}

/// Converts YCbCr to RGB in fixed point, like libjpeg.
fn to_rgb(&[y, cb, cr]: &[u8; 3]) -> [u8; 3] {
    let rounded = |sum: i32| (sum + (1 << 15)) >> 16;
    let [y, cb, cr] = [i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128];
    [rounded(91881 * cr), rounded(-22554 * cb - 46802 * cr), rounded(116130 * cb)]
        .map(|color| (y + color).clamp(0, 255) as u8)
}

#[test]
fn colors_are_what_libjpeg_takes_them_for() {
    let adobe = |bytes: &[u8], transform: u8| {
        with_segment(bytes, 0xEE, &[b"Adobe", &[0, 100, 0, 0, 0, 0, transform][..]].concat())
    };
    let (jfif, gray) = (file("444.jpg"), file("gray.jpg"));
    let expected = decode(&jfif);
    let mut bare = jfif.clone();
    bare[marker(&jfif, 0xE0) + 4..][..4].copy_from_slice(b"ABCD");
    assert_eq!(decode(&bare), expected, "named 1, 2, 3");
    // The same values, interpreted as red, green, and blue.
    let rgb = decode(&adobe(&bare, 0)).unwrap();
    let converted: Vec<u8> = rgb.as_chunks().0.iter().flat_map(to_rgb).collect();
    assert_eq!(Ok(converted), expected);
    for transform in 0..3 {
        assert_eq!(decode(&adobe(&bare, transform)) == expected, transform != 0, "{transform}");
        assert_eq!(decode(&adobe(&jfif, transform)), expected, "JFIF comes first");
        assert_eq!(decode(&adobe(&gray, transform)), decode(&gray), "gray is gray");
    }
    // A truncated JFIF segment does not override red, green, and blue.
    let (frame, scan) = (marker(&bare, 0xC0), marker(&bare, 0xDA));
    for (i, name) in b"RGB".iter().enumerate() {
        (bare[frame + 10 + 3 * i], bare[scan + 5 + 2 * i]) = (*name, *name);
    }
    assert_eq!(decode(&with_segment(&bare, 0xE0, b"JFIF\0\x01\x01")), Ok(rgb));
    let whole = with_segment(&bare, 0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0");
    assert_eq!(decode(&whole), expected);
}

/// In parts of a TIFF, the tables may be in a file of their own, and the colors are given by the
/// caller.
#[test]
fn tables_and_colors_may_come_from_elsewhere() {
    let bytes = file("422.jpg");
    let (quantization, frame) = (marker(&bytes, 0xDB), marker(&bytes, 0xC0));
    let tables = [&bytes[..2], &bytes[quantization..frame], &[0xFF, 0xD9]].concat();
    let part = [&bytes[..2], &bytes[frame..]].concat();
    assert_eq!(decode(&part), Err(Error::MissingTable { what: "quantization" }));
    let open = |colors| Jpeg::open_abbreviated(Some(&tables), &part, colors);
    assert_eq!(open(Colors::YCbCr).unwrap().decode(), decode(&bytes));
    let stored = open(Colors::AsStored).unwrap().decode().unwrap();
    let converted: Vec<u8> = stored.as_chunks().0.iter().flat_map(to_rgb).collect();
    assert_eq!(Ok(converted), decode(&bytes));
    assert!(open(Colors::Cmyk).is_err());
}

/// Frames of videos omit the tables that the standard gives as examples, which most encoders use.
#[test]
fn without_huffman_tables_those_of_the_standard_hold() {
    for name in ["422.jpg", "420_noise_q100.jpg", "gray.jpg"] {
        let bytes = file(name);
        let mut without = bytes.clone();
        while let Some(at) = without.windows(2).position(|pair| pair == [0xFF, 0xC4]) {
            without[at + 1] = 0xFE;
        }
        assert_eq!(decode(&without), decode(&bytes), "{name}");
    }
}

#[test]
fn missing_tables_are_named() {
    let without = |name: &str, kind: u8| {
        let mut bytes = file(name);
        while let Some(at) = bytes.windows(2).position(|pair| pair == [0xFF, kind]) {
            bytes[at + 1] = 0xFE;
        }
        decode(&bytes)
    };
    let missing = |what| Err(Error::MissingTable { what });
    assert_eq!(without("444.jpg", 0xDB), missing("quantization"));
    assert_eq!(without("kinds/scans_444_progressive.jpg", 0xDB), missing("quantization"));
    assert_eq!(without("kinds/scans_444_progressive.jpg", 0xC4), missing("huffman"));
}

#[test]
fn exif_and_xmp_are_handed_out() {
    let bytes = file("gray.jpg");
    let exif = |bytes: &[u8]| Jpeg::open(bytes).unwrap().exif().map(<[u8]>::to_vec);
    assert_eq!(exif(&bytes), None);
    let with = with_segment(&bytes, 0xE1, b"Exif\0\0MM\0*");
    assert_eq!(exif(&with), Some(b"MM\0*".to_vec()));
    // Another block continues the first one.
    let two = with_segment(&with, 0xE1, b"Exif\0\0II*\0");
    assert_eq!(exif(&two), Some(b"II*\0MM\0*".to_vec()));
    let empty = with_segment(&with, 0xE1, b"Exif\0\0");
    assert_eq!(exif(&empty), Some(b"MM\0*".to_vec()));
    let packet = with_segment(&bytes, 0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>");
    assert_eq!(Jpeg::open(&packet).unwrap().xmp(), Some(&b"<x/>"[..]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_bytes_never_panic(
        which in 0_usize..32 + 65,
        hits in proptest::collection::vec((0.0_f64..1.0, any::<u8>()), 1..8),
        cut in 0.5_f64..2.0,
    ) {
        let (_, mut bytes) = all_files().swap_remove(which);
        bytes.truncate((cut * bytes.len() as f64) as usize);
        for (place, value) in hits {
            let index = (place * bytes.len() as f64) as usize;
            bytes[index] = value;
        }
        if let Ok(jpeg) = Jpeg::open(&bytes)
            && let Ok(pixels) = jpeg.decode()
        {
            let size = jpeg.width() as usize * jpeg.height() as usize * jpeg.channels();
            prop_assert_eq!(pixels.len(), size);
        }
    }
}
