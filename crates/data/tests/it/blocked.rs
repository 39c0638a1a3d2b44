//! Files that are not regular files, and sources that never respond.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use augment::{EvalTransform, MultiCrop};
use data::loader::{EvalLoader, LoaderConfig, Position, TrainLoader};
use data::source::{Payload, Source};
use data::{Dataset, Error, SourceKind};
use tempfile::tempdir;

use crate::support::{
    augment, auto, config, names, picture, refused, settings, write, write_picture,
};

fn make_pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Fills a folder with a picture and with non-files of every kind that are named like images.
fn odd_folder(dir: &Path) -> Vec<(&'static str, &'static str)> {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    write_picture(&dir.join("good.png"), 1);
    make_pipe(&dir.join("pipe.jpg"));
    symlink(dir.join("pipe.jpg"), dir.join("to_pipe.jpg")).unwrap();
    symlink("/dev/zero", dir.join("zero.png")).unwrap();
    symlink("/dev/null", dir.join("null.png")).unwrap();
    UnixListener::bind(dir.join("socket.webp")).unwrap();
    vec![
        ("null.png", "a device, not a file"),
        ("pipe.jpg", "a pipe, not a file"),
        ("socket.webp", "a socket, not a file"),
        ("to_pipe.jpg", "a pipe, not a file"),
        ("zero.png", "a device, not a file"),
    ]
}

#[test]
fn what_is_no_file_is_a_broken_image() {
    let dir = tempdir().unwrap();
    let expected = odd_folder(dir.path());
    let list = dir.path().join("list.txt");
    let lines: Vec<String> = expected.iter().map(|(name, _)| (*name).to_owned()).collect();
    write(&list, format!("good.png\n{}\n/dev/zero\nfolder\n", lines.join("\n")));
    std::fs::create_dir(dir.path().join("folder")).unwrap();
    for path in [dir.path(), &list] {
        let dataset = auto(path);
        let report = data::check::check(&dataset, |_| ());
        let broken = |name: &str| report.broken.iter().find(|image| image.name == name).unwrap();
        for (name, reason) in &expected {
            assert!(broken(name).reason.ends_with(reason), "{:?}", broken(name));
        }
        assert_eq!(report.images - report.broken.len(), 1, "{:?}", names(&dataset));
    }
    let report = data::check::check(&auto(&list), |_| ());
    let reason = |name: &str| &report.broken.iter().find(|b| b.name == name).unwrap().reason;
    assert!(reason("/dev/zero").ends_with("a device, not a file"));
    assert!(reason("folder").ends_with("a folder, not a file"));
    // Packing can skip them.
    let source = data::source::open(&config(SourceKind::Folder, dir.path())).unwrap();
    let options = data::source::PackOptions { skip_unreadable: true, ..Default::default() };
    let out = tempdir().unwrap();
    let report = data::source::pack(source.as_ref(), &out.path().join("x"), &options, |_| ());
    assert_eq!(report.unwrap().skipped.len(), 5);
}

#[test]
fn a_pipe_in_the_place_of_a_list_or_shard_is_refused() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["a.txt", "a.csv", "a.jsonl", "a.tar", "a.tar.gz"] {
        make_pipe(&at(name));
        refused(SourceKind::Auto, &at(name), &[name, "a pipe, not a file"]);
    }
    // A pipe in place of an index, or of a shard in a folder, is ignored or reported.
    let bytes = crate::shards::tar_bytes(&[("0.png".into(), crate::support::png(0))]);
    write(&at("s/x.tar"), &bytes);
    make_pipe(&at("s/x.tar.index"));
    make_pipe(&at("s/y.tar"));
    let dataset = auto(&at("s"));
    assert_eq!(dataset.image(0).unwrap(), picture(0, 32, 24));
    let lost = dataset.notices().lost;
    assert_eq!(lost.first, [("y.tar".to_owned(), "a pipe, not a file".to_owned())]);
}

#[test]
fn a_file_larger_than_any_image_is_not_read() {
    let dir = tempdir().unwrap();
    write_picture(&dir.path().join("a.png"), 0);
    let huge = std::fs::File::create(dir.path().join("b.png")).unwrap();
    huge.set_len(1 << 40).unwrap(); // takes no space on the disk
    let error = auto(dir.path()).image(1).unwrap_err().chain();
    assert!(error.contains("b.png") && error.contains("the file has 1048576 MiB"), "{error}");
}

/// A source whose images from 40 on never arrive until the sender is dropped.
struct Stuck(Mutex<Receiver<()>>);

impl Stuck {
    fn dataset() -> (Sender<()>, Arc<Dataset>, Arc<AtomicBool>) {
        let (sender, receiver) = channel();
        let dataset = Arc::new(Dataset::new(Box::new(Self(Mutex::new(receiver))), 8));
        let flag = Arc::new(AtomicBool::new(false));
        dataset.stop_on(Arc::clone(&flag));
        (sender, dataset, flag)
    }
}

impl Source for Stuck {
    fn kind(&self) -> &'static str {
        "stuck"
    }

    fn len(&self) -> usize {
        60
    }

    fn name(&self, index: usize) -> String {
        index.to_string()
    }

    fn label(&self, _index: usize) -> Option<u32> {
        None
    }

    fn class_names(&self) -> &[String] {
        &[]
    }

    fn load(&self, index: usize) -> data::Result<Payload> {
        if index >= 40 {
            let _ = self.0.lock().unwrap().recv();
        }
        Ok(Payload::Pixels(picture(index as u32, 32, 24).into()))
    }

    fn fingerprint(&self) -> String {
        "stuck".into()
    }
}

#[test]
fn a_loader_that_waits_for_ever_is_called_back() {
    let (sender, dataset, flag) = Stuck::dataset();
    let config = LoaderConfig { workers: Some(2), ..settings(20) };
    let crops = MultiCrop::new(&augment());
    let mut loader = TrainLoader::new(dataset, crops, config, Position::default()).unwrap();
    flag.store(true, Ordering::Relaxed);
    let start = Instant::now();
    // No epoch can be completed, because some images never arrive; batches before them may still be
    // complete.
    let error = (0..4).find_map(|_| loader.next_batch().err()).unwrap();
    assert!(matches!(error, Error::Interrupted), "{error:?}");
    drop(loader);
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    drop(sender);
}

#[test]
fn an_evaluation_that_is_asked_to_stop_ends_at_once() {
    for stuck in [true, false] {
        let (sender, dataset, flag) = Stuck::dataset();
        let transform = EvalTransform { resize: 20, crop: 16 };
        let indices = Some(if stuck { (40..60).collect() } else { (0..40).collect() });
        let mut loader = EvalLoader::new(dataset, transform, 4, 2, indices).unwrap();
        if !stuck {
            loader.next().unwrap().unwrap();
        }
        flag.store(true, Ordering::Relaxed);
        let error = loader.next().unwrap().unwrap_err();
        assert!(matches!(error, Error::Interrupted), "{error:?}");
        assert!(loader.next().is_none());
        drop(loader);
        drop(sender);
    }
}
