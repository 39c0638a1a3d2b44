//! Shards on a web server that is slow, truncates responses, fails, or changes files.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use data::source::{PackOptions, pack};
use data::{DataConfig, Dataset, Error, SourceKind, open};
use tempfile::tempdir;

use crate::remote_server::{Fault, Server, Tags};
use crate::support::{auto, config, labels, names, same, settings, start, take, write_picture};

/// Serves two shards of four images, with or without indexes; returns their folder and the server.
fn serve(indexes: bool) -> (tempfile::TempDir, Server) {
    let dir = tempdir().unwrap();
    for number in 0..8 {
        let class = ["cat", "dog"][number % 2];
        write_picture(&dir.path().join(format!("images/{class}/{number}.png")), number as u32);
    }
    let images = data::source::open(&config(SourceKind::Folder, &dir.path().join("images")));
    let options = PackOptions { shard_images: 4, ..PackOptions::default() };
    let packed = dir.path().join("packed");
    pack(images.unwrap().as_ref(), &packed, &options, |_| ()).unwrap();
    if !indexes {
        for name in ["000000.tar.index", "000001.tar.index"] {
            std::fs::remove_file(packed.join(name)).unwrap();
        }
    }
    let server = Server::start(&packed);
    (dir, server)
}

const SHARDS: &str = "/data/{000000..000001}.tar";

fn equal(dataset: &Dataset, local: &Dataset) {
    assert_eq!(names(dataset), names(local));
    assert_eq!(labels(dataset), labels(local));
    for index in 0..local.len() {
        assert_eq!(dataset.image(index).unwrap(), local.image(index).unwrap());
    }
}

#[test]
fn shards_behind_an_address_are_those_of_the_folder() {
    for indexes in [true, false] {
        let (dir, server) = serve(indexes);
        let local = auto(&dir.path().join("packed"));
        let dataset = server.open(SHARDS).unwrap();
        let opening = server.requests.load(Ordering::Relaxed);
        equal(&dataset, &local);
        assert_eq!(dataset.fingerprint(), local.fingerprint());
        assert_eq!(server.requests.load(Ordering::Relaxed) - opening, 8, "one request an image");
        let (a, b) = (Arc::new(dataset), Arc::new(local));
        let batches = |dataset| take(&mut start(dataset, settings(4), (0, 0)), 4);
        assert!(batches(&a).iter().zip(&batches(&b)).all(|(a, b)| same(a, b)));
    }
}

#[test]
fn compressed_shards_come_as_a_stream() {
    let (dir, server) = serve(false);
    let bytes = std::fs::read(dir.path().join("packed/000000.tar")).unwrap();
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zipped.write_all(&bytes).unwrap();
    server.files.lock().unwrap().insert("/data/z.tar.gz".into(), zipped.finish().unwrap());
    let dataset = server.open("/data/z.tar.gz").unwrap();
    let local = auto(&dir.path().join("packed/000000.tar"));
    assert_eq!(dataset.len(), 4);
    (0..4).for_each(|i| assert_eq!(dataset.image(i).unwrap(), local.image(i).unwrap()));
}

#[test]
fn what_passes_is_tried_again() {
    let (dir, server) = serve(true);
    let local = auto(&dir.path().join("packed"));
    let dataset = server.open_impatient(SHARDS).unwrap();
    for fault in [Fault::Busy(2), Fault::Cut(2), Fault::Slow(1)] {
        server.set(fault);
        assert_eq!(dataset.image(5).unwrap(), local.image(5).unwrap(), "{fault:?}");
        assert_eq!(*server.fault.lock().unwrap(), Fault::None);
    }
    for fault in [Fault::Busy(2), Fault::Cut(2)] {
        server.set(fault);
        equal(&server.open("/data/{000000..000001}.tar").unwrap(), &local);
    }
}

#[test]
fn what_stays_is_an_error_with_the_reason() {
    let (_dir, server) = serve(true);
    let dataset = server.open_impatient(SHARDS).unwrap();
    let said = |dataset: &Dataset| dataset.image(0).unwrap_err().chain();
    for (fault, words) in [
        (Fault::Busy(1000), &["503", "attempt 3", "data.remote_retries"][..]),
        (Fault::Cut(1000), &["attempt 3", "data.remote_timeout_s"]),
        (Fault::Slow(1000), &["within 1 s", "attempt 3"]),
        (Fault::NoRanges, &["Range request not supported", "/data/000000.tar"]),
    ] {
        server.set(fault);
        let text = said(&dataset);
        for word in words {
            assert!(text.contains(word), "{fault:?}: {word:?} is not in {text:?}");
        }
        assert!(!text.contains('\n'));
    }
    server.set(Fault::Busy(1000));
    let text = server.open(SHARDS).unwrap_err().chain();
    assert!(text.contains("503") && text.contains("/data/00000"), "{text}");
}

#[test]
fn a_file_that_changed_on_the_server_is_noticed() {
    let (_dir, server) = serve(true);
    let dataset = server.open(SHARDS).unwrap();
    dataset.image(0).unwrap();
    let mut files = server.files.lock().unwrap();
    files.get_mut("/data/000000.tar").unwrap()[600] ^= 1;
    drop(files);
    let text = dataset.image(0).unwrap_err().chain();
    assert!(text.contains("000000.tar") && text.contains("has changed"), "{text}");
    // If the dataset is reopened, the checksum in the index reveals the change; a change of length
    // is reported at once.
    let text = server.open(SHARDS).unwrap().image(0).unwrap_err().chain();
    assert!(text.contains("000000.tar has changed") && text.contains("data index"), "{text}");
    server.files.lock().unwrap().get_mut("/data/000000.tar").unwrap().push(0);
    let text = server.open(SHARDS).unwrap_err().chain();
    assert!(text.contains("000000.tar has changed"), "{text}");
}

#[test]
fn tags_are_compared_whatever_the_server_does_with_them() {
    for tags in [Tags::Strong, Tags::Weak, Tags::Unasked] {
        let (dir, server) = serve(false);
        *server.tags.lock().unwrap() = tags;
        let dataset = server.open(SHARDS).unwrap();
        equal(&dataset, &auto(&dir.path().join("packed")));
        server.files.lock().unwrap().get_mut("/data/000000.tar").unwrap()[600] ^= 1;
        let error = dataset.image(0).unwrap_err();
        let text = error.chain();
        assert!(text.contains("000000.tar has changed"), "{tags:?}: {text}");
        let Error::Image { source, .. } = error else { panic!("{error:?}") };
        assert!(matches!(*source, Error::ShardChanged { .. }), "{tags:?}: {source:?}");
    }
}

#[test]
fn without_tags_sizes_are_compared() {
    let (_dir, server) = serve(false);
    *server.tags.lock().unwrap() = Tags::Absent;
    let dataset = server.open(SHARDS).unwrap();
    dataset.image(0).unwrap();
    server.files.lock().unwrap().get_mut("/data/000000.tar").unwrap().push(0);
    let text = dataset.image(0).unwrap_err().chain();
    assert!(text.contains("000000.tar has changed") && text.contains("bytes instead"), "{text}");
}

#[test]
fn a_missing_index_may_be_forbidden() {
    let (dir, server) = serve(false);
    server.set(Fault::Secretive);
    equal(&server.open(SHARDS).unwrap(), &auto(&dir.path().join("packed")));
    let text = server.open("/data/000002.tar").unwrap_err().chain();
    assert!(text.contains("000002.tar") && text.contains("403"), "{text}");
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_files_behind_an_address() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    crate::parquet::write_pictures(&path, 0);
    let server = Server::start(dir.path());
    let (dataset, local) = (server.open("/data/x.parquet").unwrap(), auto(&path));
    assert_eq!((dataset.len(), dataset.kind()), (60, "parquet"));
    assert_eq!(dataset.fingerprint(), local.fingerprint());
    assert_eq!(dataset.image(59).unwrap(), local.image(59).unwrap());
    // A failing server is reported as such, for a file that is already open and for one that is
    // being opened.
    let other = server.open("/data/x.parquet").unwrap();
    server.set(Fault::Busy(1000));
    for error in [other.image(1).unwrap_err(), server.open("/data/x.parquet").unwrap_err()] {
        let text = error.chain();
        assert!(text.contains("503") && !text.contains("not a parquet file"), "{text}");
    }
    for skipped in 1..5 {
        server.set(Fault::BusyAfter(skipped));
        let text = server.open("/data/x.parquet").unwrap_err().chain();
        assert!(text.contains("503") && !text.contains("parquet file"), "{skipped}: {text}");
    }
    server.set(Fault::None);
    server.files.lock().unwrap().get_mut("/data/x.parquet").unwrap()[600] ^= 1;
    let text = other.image(1).unwrap_err().chain();
    assert!(text.contains("x.parquet has changed"), "{text}");
}

#[test]
fn a_server_that_fails_is_not_a_damaged_file() {
    let (_dir, server) = serve(false);
    // The first request asks for the size; the following ones read the whole shard.
    let config = DataConfig { remote_retries: 0, ..server.config("/data/000000.tar") };
    for skipped in 1..3 {
        server.set(Fault::BusyAfter(skipped));
        let error = open(&config).unwrap_err();
        let text = error.chain();
        assert!(matches!(error, Error::Remote { .. }), "{skipped}: {error:?}");
        assert!(text.contains("503") && text.contains("/data/000000.tar"), "{skipped}: {text}");
    }
}

/// Runs in a process of its own, because the settings of a bucket come from environment variables.
#[test]
fn buckets_are_listed_and_read() {
    const ENDPOINT: &str = "AWS_ENDPOINT";
    const NAME: &str = "remote::buckets_are_listed_and_read";
    if std::env::var_os("SIMDINO_TEST_BUCKET").is_some() {
        for path in ["s3://data/", "s3://data/0*.tar", "s3://data/000000.tar"] {
            let dataset =
                open(&DataConfig { path: Some(path.into()), ..DataConfig::default() }).unwrap();
            println!("{path}: {}", names(&dataset).join(" "));
            dataset.image(3).unwrap();
        }
        return;
    }
    let (_dir, server) = serve(true);
    let keys = ["000001.tar", "000000.tar", "000000.tar.index"];
    let entry = |key: &str| {
        format!(
            "<Contents><Key>{key}</Key><Size>1</Size><ETag>1</ETag>\
             <LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        )
    };
    let entries = keys.map(entry).concat();
    let list = format!("<ListBucketResult><KeyCount>3</KeyCount>{entries}</ListBucketResult>");
    server.files.lock().unwrap().insert("/data".into(), list.into_bytes());
    let process = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env("SIMDINO_TEST_BUCKET", "1")
        .env(ENDPOINT, &server.address)
        .env("AWS_SKIP_SIGNATURE", "true")
        .env("AWS_ALLOW_HTTP", "true")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&process.stdout);
    assert!(process.status.success(), "{said}{}", String::from_utf8_lossy(&process.stderr));
    let one = "000000.tar/cat/0.png";
    for path in ["s3://data/", "s3://data/0*.tar", "s3://data/000000.tar"] {
        assert!(said.contains(&format!("{path}: {one}")), "{said}");
    }
    assert_eq!(said.matches("000001.tar/").count(), 8, "{said}");
}

#[test]
fn addresses_that_cannot_be_used_say_why() {
    let (_dir, server) = serve(true);
    for (path, words) in [
        ("/data/{000000..000002}.tar", &["000002.tar", "not found"][..]),
        ("/data/{3..1}.tar", &["expands to no files"]),
        ("/data/*.tar", &["does not list its files", "{0000..0127}"]),
        ("/data/", &["does not list its files"]),
        ("/data/000000.tar?key=1", &["a query"]),
    ] {
        let text = server.open(path).unwrap_err().chain();
        for word in words {
            assert!(text.to_lowercase().contains(word), "{path}: {word:?} is not in {text:?}");
        }
    }
    for (path, word) in
        [("ftp://host/a.tar", "supported scheme"), ("http://[host/a.tar", "not a valid URL")]
    {
        let config = DataConfig { path: Some(path.into()), ..DataConfig::default() };
        let text = open(&config).unwrap_err().chain();
        assert!(text.contains(word), "{path}: {text}");
    }
    // A time limit that `validate` rejects does not cause a panic either.
    let config = DataConfig { remote_timeout_s: f64::NAN, ..server.config("/data/000000.tar") };
    open(&config).unwrap();
    // Nothing listens on that port.
    let config = DataConfig { path: Some("http://127.0.0.1:1/a.tar".into()), ..server.config("") };
    let text = open(&config).unwrap_err().chain();
    assert!(text.contains("127.0.0.1:1/a.tar") && text.contains("attempt 3"), "{text}");
}
