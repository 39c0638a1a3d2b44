//! Lists: their headers, and lines that cannot be used.

use data::SourceKind;
use tempfile::tempdir;

use crate::support::{auto, labels, names, picture, refused, write, write_picture};

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
            &b"{\"file\": 3}\n"[..],
            &["a.jsonl", "line 1", "no \"path\" or \"file_name\"", "among file"][..],
        ),
        ("b.jsonl", b"1.png\n", &["b.jsonl", "line 1", "not a JSON object"]),
        ("d.csv", b"path,label\n,4\n", &["d.csv", "line 2", "path is missing"]),
        ("e.txt", b"\n \n", &["e.txt", "names no images"]),
        ("f.txt", b"2.png\n3.png\n", &["f.txt", "none of the first 2", "2.png", "relative"]),
        ("g.txt", b"\xFF\xFE1\0.\0p\0n\0g\0", &["g.txt", "UTF-16", "UTF-8"]),
        ("h.csv", b"", &["h.csv", "names no images"]),
        ("i.txt", b"\n\n2\x00.png\n", &["i.txt", "line 3", "NUL"]),
        ("j.csv", b"\"2\x00.png\",4\n", &["j.csv", "line 1", "NUL"]),
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
fn one_bad_line_costs_no_other() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for number in 1..4 {
        write_picture(&at(&format!("{number}.png")), number);
    }
    for (file, text, expected, lost) in [
        (
            "a.jsonl",
            &b"{\"path\": \"1.png\"}\n{\"file\": 3}\n{\"path\": \"2.png\"}\n{\"path\": \"3.p"[..],
            &["1.png", "2.png"][..],
            &["line 2", "line 4"][..],
        ),
        ("b.csv", b"path,label\n1.png,3\n,4\n2.png,5\n", &["1.png", "2.png"], &["line 3"]),
        ("c.txt", b"1.png\n2\0.png\n3.png\n", &["1.png", "3.png"], &["line 2"]),
        ("d.txt", b"1.png\n\xE9.png\n3.png\n", &["1.png", "\u{FFFD}.png", "3.png"], &[]),
        ("e.csv", b"1.png,a\n\xE9.png,b\n", &["1.png", "\u{FFFD}.png"], &[]),
    ] {
        write(&at(file), text);
        let dataset = auto(&at(file));
        assert_eq!(names(&dataset), expected, "{file}");
        let named = dataset.notices().lost;
        let lines: Vec<&str> = named.first.iter().map(|(line, _)| line.as_str()).collect();
        assert_eq!((lines, named.count), (lost.to_vec(), lost.len() as u64), "{file}");
        for (index, name) in expected.iter().enumerate() {
            let image = dataset.image(index);
            match name.strip_suffix(".png").and_then(|number| number.parse().ok()) {
                Some(number) => assert_eq!(image.unwrap(), picture(number, 32, 24), "{file}"),
                None => assert!(image.unwrap_err().chain().contains(name), "{file}"),
            }
        }
    }
}

#[test]
fn headers_name_the_columns() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for number in 0..2 {
        write_picture(&at(&format!("{number}.png")), number);
    }
    std::fs::copy(at("0.png"), at("hash0")).unwrap();
    std::fs::copy(at("1.png"), at("hash1")).unwrap();
    let both = [Some(0), Some(1)];
    for (file, text, expected) in [
        ("metadata.csv", "file_name,label\n0.png,cat\n1.png,dog\n", both),
        ("b.csv", "label,File Name\r\ncat,0.png\r\ndog,1.png\r\n", both),
        ("c.csv", "filename\n0.png\n1.png\n", [None; 2]),
        ("d.csv", "id,image,class\n9,0.png,0\n8,1.png,1\n", both),
        ("e.csv", "image_path,category\n0.png,0.0\n1.png,1.0\n", both),
        ("f.csv", ",filepath,target\n0,0.png,0\n1,1.png,1\n", both),
        ("g.csv", "img;label\n0.png;0\n1.png;1\n", both),
        ("h.tsv", "path\tlabel\n0.png\ta, b\n1.png\tc\n", both),
        ("i.csv", "path\tlabel\n0.png\t0\n1.png\t1\n", both),
        ("j.csv", "\u{feff}\"file\",\"cls\"\n\"0.png\",0\n\"1.png\",1\n", both),
        ("k.csv", "0.png,0\n1.png,1\n", both),
        ("l.csv", "hash0,0\nhash1,1\n", both),
        ("m.txt", "filename\n0.png\n1.png\n", [None; 2]),
        (
            "metadata.jsonl",
            "{\"file_name\": \"0.png\", \"label\": 0}\n{\"file_name\": \"1.png\", \"label\": 1}\n",
            both,
        ),
        ("o.jsonl", "{\"image\": \"0.png\", \"text\": \"a\"}\n{\"image\": \"1.png\"}\n", [None; 2]),
    ] {
        write(&at(file), text);
        let dataset = auto(&at(file));
        assert_eq!((dataset.len(), labels(&dataset)), (2, expected.to_vec()), "{file}");
        for index in 0..2 {
            assert_eq!(dataset.image(index).unwrap(), picture(index as u32, 32, 24), "{file}");
        }
        assert_eq!(dataset.notices().lost.count, 0, "{file}");
    }
    // What stands for what is said where it is not plain.
    let said = |file: &str| auto(&at(file)).notices().sentences().join("; ");
    assert!(
        said("metadata.csv").contains("`file_name`, labels from `label`"),
        "{}",
        said("metadata.csv")
    );
    assert!(said("o.jsonl").contains("`image`; there are no labels"), "{}", said("o.jsonl"));
    assert_eq!(said("h.tsv"), "");
}

#[test]
fn a_header_that_is_not_understood_is_shown() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    write_picture(&at("0.png"), 0);
    for (file, text, shown) in [
        ("a.csv", "photo_id,breed\n0.png,cat\n", "`photo_id,breed`"),
        ("b.csv", "12,0.png,cat\n13,0.png,cat\n", "`12,0.png,cat`"),
        ("c.csv", "0.png;cat\n", "`0.png;cat`"),
        ("d.csv", "url\n0.png\n", "`url`"),
        ("e.tsv", "path,label\n0.png,cat\n", "`path,label`"),
    ] {
        write(&at(file), text);
        refused(SourceKind::Auto, &at(file), &[file, "line 1", shown, "`path` or `file_name`"]);
    }
}

#[test]
fn a_folder_says_that_its_metadata_is_not_read() {
    let dir = tempdir().unwrap();
    write_picture(&dir.path().join("0.png"), 0);
    write(&dir.path().join("metadata.jsonl"), "{\"file_name\": \"0.png\", \"label\": 1}");
    let said = auto(dir.path()).notices().sentences();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[1].contains("metadata.jsonl is not read here: give it as the path"), "{said:?}");
    assert_eq!(labels(&auto(&dir.path().join("metadata.jsonl"))), [Some(1)]);
}
