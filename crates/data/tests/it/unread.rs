//! Labels that cannot be read: their images have no label, and all other images keep theirs.

use std::path::Path;

use data::Dataset;
use data::source::write_index;
use tempfile::tempdir;

use crate::shards::{gzip, tar_bytes};
use crate::support::{auto, labels, names, picture, png, write, write_picture};

/// Returns the names in the notice about labels.
fn unread(dataset: &Dataset) -> Vec<String> {
    let named = dataset.notices().unread_labels;
    assert_eq!(named.count, named.first.len() as u64);
    named.first.into_iter().map(|(name, _)| name).collect()
}

/// Opens members as a plain, an indexed, and a compressed shard, which must have the same contents.
fn shard(dir: &Path, members: &[(&str, &[u8])]) -> Dataset {
    let members: Vec<(String, Vec<u8>)> =
        members.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
    let bytes = tar_bytes(&members);
    let path = dir.join("x.tar");
    let _ = std::fs::remove_file(dir.join("x.tar.index"));
    write(&path, &bytes);
    let plain = auto(&path);
    write_index(&path, |_| ()).unwrap();
    write(&dir.join("zipped/x.tar"), gzip(&bytes));
    for other in [auto(&path), auto(&dir.join("zipped/x.tar"))] {
        assert_eq!(labels(&other), labels(&plain));
        assert_eq!(names(&other), names(&plain));
        assert_eq!(other.notices(), plain.notices());
    }
    plain
}

#[test]
fn one_bad_member_costs_one_label() {
    let dir = tempdir().unwrap();
    let (a, b) = (png(0), png(1));
    let bad: [(&str, &[u8]); 14] = [
        ("0.json", br#"{"label": 1, "similarity": NaN}"#),
        ("0.json", br#"{"label": 1, "x": [Infinity, -Infinity]}"#),
        ("0.json", br#"{"label": "\ud800"}"#),
        ("0.json", b""),
        ("0.json", b"  \n"),
        ("0.json", b"\xEF\xBB\xBF{\"label\": 1}"),
        ("0.json", b"{\"label\": \"caf\xE9\"}"),
        ("0.json", br#"{"label": 1"#),
        ("0.json", br#"{"label": 1.5}"#),
        ("0.json", br#"{"label": {"name": "cat"}}"#),
        ("0.cls", b""),
        ("0.cls", b"caf\xE9"),
        ("0.cls", b"\xEF\xBB\xBF1"),
        ("0.CLS", b"1\0"),
    ];
    for (name, text) in bad {
        let dataset = shard(
            dir.path(),
            &[("0.png", &a), (name, text), ("1.png", &b), ("1.json", br#"{"label": 2}"#)],
        );
        assert_eq!(labels(&dataset), [None, Some(2)], "{name} {text:?}");
        assert_eq!(unread(&dataset), [format!("x.tar/{name}")], "{name} {text:?}");
        assert_eq!(dataset.image(0).unwrap(), picture(0, 32, 24));
    }
    // A document without a label, or with one that says that there is none, is valid.
    for text in [&br#"{"caption": "x"}"#[..], br#"{"label": null}"#, br#"{"label": -1}"#] {
        let dataset = shard(dir.path(), &[("0.png", &a), ("0.json", text)]);
        assert_eq!((labels(&dataset), unread(&dataset).len()), (vec![None], 0), "{text:?}");
    }
    // A document that is too large is not read, which is reported.
    let large = format!(r#"{{"label": 1, "x": "{}"}}"#, "y".repeat(1 << 20));
    let dataset = shard(dir.path(), &[("0.png", &a), ("0.json", large.as_bytes())]);
    assert_eq!((labels(&dataset), unread(&dataset)), (vec![None], vec!["x.tar/0.json".to_owned()]));
}

#[test]
fn samples_of_one_key_have_each_its_own_label() {
    let dir = tempdir().unwrap();
    let (a, b) = (png(0), png(1));
    let dataset = shard(
        dir.path(),
        &[
            ("0.png", &a),
            ("0.cls", b"1"),
            ("0.png", &b),
            ("0.cls", b"2"),
            ("1.png", &a),
            ("1.cls", b"3"),
        ],
    );
    assert_eq!(labels(&dataset), [Some(1), Some(2), Some(3)]);
    assert_eq!(dataset.image(0).unwrap(), picture(0, 32, 24));
    assert_eq!(dataset.image(1).unwrap(), picture(1, 32, 24));
    // It is unclear to which sample the label belongs.
    let dataset = shard(dir.path(), &[("0.png", &a), ("0.png", &b), ("0.cls", b"2")]);
    assert_eq!(labels(&dataset), [None, None]);
    let why = dataset.notices().label_sentence().unwrap();
    assert!(why.contains("2 labels") && why.contains("the key 0"), "{why}");
}

#[test]
fn one_bad_label_of_a_list_costs_no_other() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for number in 0..3 {
        write_picture(&at(&format!("{number}.png")), number);
    }
    let row = |label: &str| format!("{{\"path\": \"1.png\", \"label\": {label}}}");
    let rest = "{\"path\": \"0.png\", \"label\": 4}\n{\"path\": \"2.png\", \"label\": 5}\n";
    let lines = [
        row("NaN"),
        row("1.5"),
        row("[1]"),
        row("true"),
        row("\"\\ud800\""),
        row("3, \"score\": Infinity"),
    ];
    for line in lines {
        write(&at("l.jsonl"), format!("{line}\n{rest}"));
        let dataset = auto(&at("l.jsonl"));
        assert_eq!(labels(&dataset), [None, Some(4), Some(5)], "{line}");
        assert_eq!(unread(&dataset), ["line 1, 1.png"], "{line}");
        assert_eq!(dataset.image(0).unwrap(), picture(1, 32, 24), "{line}");
    }
    // If a line has no label, nothing is lost because it is not strict JSON.
    write(&at("l.jsonl"), format!("{{\"path\": \"1.png\", \"score\": NaN}}\n{rest}"));
    assert_eq!(
        (labels(&auto(&at("l.jsonl"))), unread(&auto(&at("l.jsonl"))).len()),
        (vec![None, Some(4), Some(5)], 0)
    );
    for name in ["l.csv", "l.jsonl"] {
        let text: &[u8] = match name {
            "l.csv" => b"path,label\n0.png,4\n1.png,caf\xE9\n2.png,5\n",
            _ => b"{\"path\": \"0.png\", \"label\": 4}\n{\"path\": \"1.png\", \"label\": \"caf\xE9\"}\n{\"path\": \"2.png\", \"label\": 5}\n",
        };
        write(&at(name), text);
        let dataset = auto(&at(name));
        assert_eq!(labels(&dataset), [Some(4), None, Some(5)], "{name}");
        assert_eq!(unread(&dataset).len(), 1, "{name}");
    }
}

/// The notices of a long list are also reported if it is read from its cache.
#[test]
fn what_is_kept_of_a_list_keeps_its_notices() {
    let dir = tempdir().unwrap();
    write_picture(&dir.path().join("1.png"), 1);
    let list = dir.path().join("long.jsonl");
    let line = |i: usize| match i {
        7 => "{\"path\": \"1.png\", \"label\": NaN}\n".to_owned(),
        9 => "{\"path\"\n".to_owned(),
        _ => format!("{{\"path\": \"1.png\", \"label\": {}}}\n", i % 3),
    };
    write(&list, (0..40_000).map(line).collect::<String>());
    let fresh = auto(&list);
    assert!(dir.path().join(".long.jsonl.index").exists());
    let again = auto(&list);
    assert_eq!((again.len(), labels(&again)), (39_999, labels(&fresh)));
    assert_eq!(again.notices(), fresh.notices());
    assert_eq!((again.notices().lost.count, again.notices().unread_labels.count), (1, 1));
}
