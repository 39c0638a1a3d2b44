//! Lists: headers, and lines that cannot be used.

use std::path::Path;

use data::SourceKind;
use data::source::Named;
use tempfile::tempdir;

use crate::support::{auto, config, labels, names, picture, refused, write, write_picture};

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
            &["a.jsonl", "line 1", "no \"path\" or \"file_name\"", "among the keys file"][..],
        ),
        ("b.jsonl", b"1.png\n", &["b.jsonl", "line 1", "not a JSON object"]),
        ("d.csv", b"path,label\n,4\n", &["d.csv", "line 2", "path is missing"]),
        ("e.txt", b"\n \n", &["e.txt", "contains no images"]),
        ("f.txt", b"2.png\n3.png\n", &["f.txt", "none of the first 2", "2.png", "relative"]),
        ("g.txt", b"\xFF\xFE1\0.\0p\0n\0g\0", &["g.txt", "UTF-16", "UTF-8"]),
        ("h.csv", b"", &["h.csv", "contains no images"]),
        ("i.txt", b"\n\n2\x00.png\n", &["i.txt", "line 3", "NUL"]),
        ("j.csv", b"\"2\x00.png\",4\n", &["j.csv", "line 1", "NUL"]),
        ("k.txt", &[b'a'; 1 << 20], &["k.txt", "line 1", "longer than 65536 bytes"]),
        ("l.csv", &[b'a'; 1 << 20], &["l.csv", "line 1", "1048576 bytes"]),
    ] {
        write(&at(file), text);
        refused(SourceKind::Auto, &at(file), parts);
    }
    // Other columns of a line may be long.
    let caption = "a".repeat(1 << 20);
    write(&at("m.jsonl"), format!("{{\"path\": \"1.png\", \"caption\": \"{caption}\"}}\n"));
    assert_eq!(data::open(&config(SourceKind::Auto, &at("m.jsonl"))).unwrap().len(), 1);
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
    // The notices say which columns are used if that is not obvious.
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
    refused(SourceKind::Auto, &at("e.tsv"), &["fields of a .tsv file are separated by tabs"]);
    write(&at("f.csv"), "\"path,label\n0.png,cat\n");
    refused(SourceKind::Auto, &at("f.csv"), &["f.csv", "line 1", "a quote is not closed"]);
}

/// Returns the names and labels that are read from a list in `dir`, the lines that the notices
/// report as lost, and those whose labels they report as unreadable.
fn read_as(dir: &Path, file: &str, text: &str) -> (String, Vec<String>, Vec<String>) {
    write(&dir.join(file), text);
    let dataset = auto(&dir.join(file));
    let label = |index: usize| match dataset.label(index) {
        Some(class) => dataset.class_names().get(class as usize).cloned().unwrap(),
        None => "-".to_owned(),
    };
    let images: Vec<String> = (0..dataset.len())
        .map(|index| format!("{}={}", dataset.name(index), label(index)))
        .collect();
    let notices = dataset.notices();
    let named = |named: Named| {
        assert_eq!(named.first.len() as u64, named.count, "{named:?}");
        named.first.into_iter().map(|(line, _)| line).collect()
    };
    (images.join(" "), named(notices.lost), named(notices.unread_labels))
}

#[test]
fn a_quote_that_is_not_closed_costs_its_line_alone() {
    let dir = tempdir().unwrap();
    (0..4).for_each(|number| write_picture(&dir.path().join(format!("{number}.png")), number));
    for (file, text, images, lost) in [
        (
            "a.csv",
            "path,label\n0.png,\"5 inch\n1.png,a\n2.png,b\n",
            "1.png=a 2.png=b",
            &["line 2"][..],
        ),
        ("b.csv", "path,label\r\n\"0.png,a\r\n1.png,\"b\"\r\n", "1.png=b", &["line 2"]),
        ("c.csv", "0.png,a\n1.png,\"b\n2.png,\"a\"\n", "0.png=a 2.png=a", &["line 2"]),
        (
            "d.csv",
            "path,label\n0.png,\"a\"\"\n1.png,\"b\"\"c\"\n2.png,5\"\n",
            "1.png=b\"c 2.png=5\"",
            &["line 2"],
        ),
        // A text that spans several lines: none of its pieces is an image.
        (
            "e.csv",
            "path,text,label\n0.png,\"two\nor three\nlines\",a\n1.png,\"t, u\",b\n",
            "1.png=b",
            &["line 2", "line 3", "line 4"],
        ),
        ("f.csv", "path,label\r0.png,\"a\r1.png,b\r", "1.png=b", &["line 2"]),
        // Quotes are ordinary characters in a .tsv, unless its writer quotes every text.
        (
            "g.tsv",
            "path\tlabel\n0.png\t\"q\n1.png\t\"r\n2.png\t\"q\"\n",
            "0.png=\"q 1.png=\"r 2.png=\"q\"",
            &[],
        ),
        (
            "h.tsv",
            "\"path\"\t\"label\"\n\"0.png\"\t\"a\tb\"\n\"1.png\"\t\"c\n",
            "0.png=a\tb",
            &["line 3"],
        ),
    ] {
        let found = read_as(dir.path(), file, text);
        assert_eq!(
            (found.0.as_str(), found.1),
            (images, lost.iter().map(ToString::to_string).collect()),
            "{file}"
        );
        assert!(found.2.is_empty(), "{file}: {:?}", found.2);
    }
    let long: String = (0..1000).map(|i| format!("{}.png,{}\n", i % 4, i % 2)).collect();
    write(&dir.path().join("long.csv"), format!("path,label\n0.png,\"5 inch\n{long}"));
    assert_eq!(auto(&dir.path().join("long.csv")).len(), 1000);
}

/// Lists with lines of different lengths: the file name, the text, the images with their labels,
/// the lines without an image, and the lines without a label.
type Uneven =
    (&'static str, &'static str, &'static str, &'static [&'static str], &'static [&'static str]);
const UNEVEN: &[Uneven] = &[
    (
        "a.csv",
        "path,text,label\n0.png,hi,a\n1.png,hello, world,b\nhash0,x,y,b\n2.png,hi\n3.png,hi,b\n",
        "0.png=a 1.png=- hash0=- 2.png=- 3.png=b",
        &[],
        &["line 3, 1.png", "line 4, hash0", "line 5, 2.png"],
    ),
    // An extra empty field may come from an extra comma before the label.
    (
        "b.csv",
        "path,text,label\n0.png,hi,a\n1.png,hello, world,\n",
        "0.png=a 1.png=-",
        &[],
        &["line 3, 1.png"],
    ),
    // A field is missing before the label.
    (
        "c.csv",
        "path,width,label,split\n0.png,9,a,train\n1.png,b,train\n",
        "0.png=a 1.png=-",
        &[],
        &["line 3, 1.png"],
    ),
    // If the path is not the first field, it is as uncertain as the label.
    (
        "d.csv",
        "text,path,label\nhi,0.png,a\nhello, world,1.png,b\nhi,2.png\n",
        "0.png=a",
        &["line 3", "line 4"],
        &[],
    ),
    ("e.csv", "path,label\n0.png,a\ndogs, big/1.png,b\n", "0.png=a", &["line 3"], &[]),
    // Without a header, the first line determines the number of fields. A lone path has no label.
    ("f.csv", "0.png\n1.png,b\n2.png,b,c\n", "0.png=- 1.png=b 2.png=-", &[], &["line 3, 2.png"]),
    ("g.csv", "path,label\n0.png\n1.png,b\n", "0.png=- 1.png=b", &[], &[]),
    // Nothing is lost if there are no labels.
    ("h.csv", "path,text\n0.png,a\n1.png,a, b\n", "0.png=- 1.png=-", &[], &[]),
    (
        "i.tsv",
        "path\ttext\tlabel\n0.png\ta\tb\tc\n1.png\td\te\n",
        "0.png=- 1.png=e",
        &[],
        &["line 2, 0.png"],
    ),
];

#[test]
fn a_line_of_another_length_has_no_wrong_label() {
    let dir = tempdir().unwrap();
    (0..4).for_each(|number| write_picture(&dir.path().join(format!("{number}.png")), number));
    std::fs::copy(dir.path().join("0.png"), dir.path().join("hash0")).unwrap();
    for &(file, text, images, lost, unread) in UNEVEN {
        let (found, no_image, no_label) = read_as(dir.path(), file, text);
        assert_eq!(found, images, "{file}");
        assert_eq!(
            (no_image, no_label),
            (
                lost.iter().map(ToString::to_string).collect(),
                unread.iter().map(ToString::to_string).collect()
            ),
            "{file}"
        );
    }
}

#[test]
fn a_folder_says_why_it_has_no_labels() {
    let dir = tempdir().unwrap();
    let said = || auto(dir.path()).notices().sentences().join("; ");
    write_picture(&dir.path().join("b/0.png"), 0);
    write_picture(&dir.path().join("logo.png"), 1);
    assert_eq!(said(), "", "one folder is no class");
    write_picture(&dir.path().join("x/0.png"), 2);
    let sentence = "there are no labels: logo.png is next to the 2 folders";
    assert!(said().contains(sentence), "{}", said());
    assert_eq!(labels(&auto(dir.path())), [None; 3]);
    write_picture(&dir.path().join("zoo.png"), 3);
    assert!(said().contains("logo.png and 1 more are next to"), "{}", said());
    std::fs::remove_file(dir.path().join("logo.png")).unwrap();
    std::fs::remove_file(dir.path().join("zoo.png")).unwrap();
    assert_eq!(said(), "");
    assert_eq!(labels(&auto(dir.path())), [Some(0), Some(1)]);
}

#[test]
fn a_folder_says_that_its_metadata_is_not_read() {
    let dir = tempdir().unwrap();
    write_picture(&dir.path().join("0.png"), 0);
    write(&dir.path().join("metadata.jsonl"), "{\"file_name\": \"0.png\", \"label\": 1}");
    let said = auto(dir.path()).notices().sentences();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[1].contains(
            "metadata.jsonl is ignored: to use its list of images and labels, pass it as the path"
        ),
        "{said:?}"
    );
    assert_eq!(labels(&auto(&dir.path().join("metadata.jsonl"))), [Some(1)]);
}
