//! How the loaders and `data check` handle broken images, and what the check counts.

use std::sync::Arc;

use augment::EvalTransform;
use data::loader::{EvalBatch, EvalLoader, LoaderConfig};
use data::{Dataset, Error};
use tempfile::{TempDir, tempdir};

use crate::support::{
    evaluate, folder, jpeg, picture, same, settings, start, take, write, write_picture,
};

/// Creates a folder with good pictures and one broken file of each kind.
fn damaged(good: u32) -> (TempDir, Arc<Dataset>) {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for number in 0..good {
        write_picture(&at(&format!("good-{number:03}.png")), number);
    }
    let whole = jpeg(1);
    write(&at("cut.jpg"), &whole[..whole.len() / 2]);
    write(&at("text.jpg"), "this is text");
    write(&at("zero.jpg"), "");
    picture(0, 1, 1).save(at("tiny.png")).unwrap();
    let dataset = folder(dir.path());
    (dir, dataset)
}

#[test]
fn broken_images_are_replaced_named_once_and_the_same_for_any_threads() {
    let (_dir, dataset) = damaged(56);
    let run = |workers, prefetch| {
        let config = LoaderConfig {
            workers: Some(workers),
            prefetch,
            max_bad_fraction: 0.12,
            ..settings(20)
        };
        take(&mut start(&dataset, config, (0, 0)), 9)
    };
    let expected = run(1, 1);
    let mut reported: Vec<(String, String)> = Vec::new();
    for batch in &expected {
        assert_eq!(batch.samples.len(), 20);
        for &sample in &batch.samples {
            assert!(dataset.name(sample as usize).starts_with("good"), "{sample}");
        }
        for broken in &batch.broken {
            assert_eq!(dataset.name(broken.index), broken.name);
            reported.push((broken.name.clone(), broken.reason.clone()));
        }
    }
    reported.sort();
    let reasons = [
        ("cut.jpg", "cut off"),
        ("text.jpg", "not an image"),
        ("tiny.png", "1x1 pixels, smaller than data.min_side = 8"),
        ("zero.jpg", "0 bytes"),
    ];
    assert_eq!(reported.len(), reasons.len(), "{reported:?}");
    for ((name, reason), (file, part)) in reported.iter().zip(reasons) {
        assert_eq!(name, file);
        assert!(reason.contains(part), "{reason}");
    }
    for (workers, prefetch) in [(2, 2), (8, 6)] {
        let got = run(workers, prefetch);
        assert!(expected.iter().zip(&got).all(|(a, b)| same(a, b) && a.broken == b.broken));
    }
}

#[test]
fn too_many_broken_images_stop_the_run_with_counts_and_the_first() {
    let (dir, _) = damaged(30);
    for number in 0..20 {
        write(&dir.path().join(format!("more-{number:02}.jpg")), "text");
    }
    let dataset = folder(dir.path());
    let verdict = |workers, prefetch| {
        let config = LoaderConfig { workers: Some(workers), prefetch, ..settings(10) };
        let mut loader = start(&dataset, config, (0, 0));
        let mut before = 0;
        loop {
            match loader.next_batch() {
                Ok(_) => before += 1,
                Err(error) => {
                    // The broken images of the batch that is not delivered are reported, too.
                    assert!(!loader.take_undelivered().is_empty());
                    return (before, error);
                }
            }
            assert!(before < 10, "no verdict");
        }
    };
    let (before, error) = verdict(1, 1);
    let Error::TooManyBroken { broken, read, .. } = error else {
        panic!("{error:?}");
    };
    // The fraction is not checked before 50 images have been read.
    assert!(before >= 2 && read >= 50 && broken * 10 > read, "{before} {error}");
    let message = error.to_string();
    for part in ["data.max_bad_fraction = 0.1", ".jpg", &format!("{broken} of the first {read}")] {
        assert!(message.contains(part), "{message}");
    }
    let again = verdict(8, 5);
    assert_eq!((again.0, again.1.to_string()), (before, message));
}

#[test]
fn a_folder_of_broken_images_only_is_an_error() {
    let dir = tempdir().unwrap();
    for number in 0..5 {
        write(&dir.path().join(format!("{number}.jpg")), "text");
    }
    let dataset = folder(dir.path());
    let config = LoaderConfig { max_bad_fraction: 1.0, ..settings(4) };
    let mut loader = start(&dataset, config, (0, 0));
    let error = loader.next_batch().unwrap_err();
    assert!(matches!(error, Error::NoReadableImage { tried: 64, .. }), "{error:?}");
    assert!(error.to_string().contains(".jpg (not an image"), "{error}");
    let mut named: Vec<String> =
        loader.take_undelivered().into_iter().map(|broken| broken.name).collect();
    named.sort();
    assert_eq!(named, ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"]);
    let transform = EvalTransform { resize: 16, crop: 16 };
    let mut loader = EvalLoader::new(dataset, transform, 2, 1, None).unwrap();
    let error = loader.next().unwrap().unwrap_err();
    assert!(matches!(error, Error::NoReadableImage { tried: 5, .. }), "{error:?}");
    assert!(loader.next().is_none());
    let named: Vec<String> = loader.take_undelivered().into_iter().map(|b| b.name).collect();
    assert_eq!(named, ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"]);
}

#[test]
fn evaluation_leaves_broken_images_out_and_names_them() {
    // In sorted order: cut.jpg, good-000 .. good-002, text.jpg, tiny.png, zero.jpg
    let (_dir, dataset) = damaged(3);
    for batch in [1, 2, 3, 7] {
        let batches = evaluate(&dataset, batch, 2, None);
        assert!(batches.iter().all(|batch| !batch.indices.is_empty()));
        let indices: Vec<usize> = batches.iter().flat_map(|b| b.indices.clone()).collect();
        assert_eq!(indices, [1, 2, 3], "batch {batch}");
        let broken: Vec<&str> =
            batches.iter().flat_map(|b| &b.broken).map(|broken| broken.name.as_str()).collect();
        assert_eq!(broken, ["cut.jpg", "text.jpg", "tiny.png", "zero.jpg"], "batch {batch}");
        let alone = evaluate(&dataset, 3, 1, Some(vec![1, 2, 3]));
        let pixels = |batches: &[EvalBatch]| -> Vec<u8> {
            batches.iter().flat_map(|batch| batch.images.iter().copied()).collect()
        };
        assert_eq!(pixels(&batches), pixels(&alone), "batch {batch}");
    }
}

#[test]
fn a_check_counts_everything() {
    let (dir, _) = damaged(3);
    picture(9, 40, 50).save(dir.path().join("z.bmp")).unwrap();
    image::RgbImage::from_pixel(8, 100, image::Rgb([0, 0, 0]))
        .save(dir.path().join("y.png"))
        .unwrap();
    let dataset = folder(dir.path());
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let report = data::check::check(&dataset, |_| {
        calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!((report.images, calls.into_inner()), (9, 9));
    let broken: Vec<&str> = report.broken.iter().map(|broken| broken.name.as_str()).collect();
    assert_eq!(broken, ["cut.jpg", "text.jpg", "tiny.png", "zero.jpg"]);
    assert_eq!(report.formats.into_iter().collect::<Vec<_>>(), [("bmp", 1), ("png", 4)]);
    let extent = |extent: data::check::Extent| [extent.min, extent.median, extent.max];
    assert_eq!(extent(report.width), [8, 32, 40]);
    assert_eq!(extent(report.height), [24, 24, 100]);
    assert_eq!(extent(report.shorter_side), [8, 24, 40]);
    let histogram: Vec<(u32, usize)> = report.side_histogram.into_iter().collect();
    assert_eq!(histogram, [(8, 1), (16, 3), (32, 1)]);
    assert_eq!((report.unlabeled, report.labels.len()), (9, 0));
}

#[test]
fn a_check_finds_files_that_are_there_twice() {
    let dir = tempdir().unwrap();
    for (name, number) in [("a", 1), ("b", 2), ("c", 1), ("d", 3), ("e", 1), ("f", 2)] {
        write_picture(&dir.path().join(format!("{name}.png")), number);
    }
    let report = data::check::check(&folder(dir.path()), |_| ());
    assert_eq!(report.duplicates, [vec![0, 2, 4], vec![1, 5]]);
    assert_eq!(report.superfluous(), 3);
}

#[test]
fn a_check_measures_color_and_labels() {
    let dir = tempdir().unwrap();
    let fill = |name: &str, value: [u8; 3], height| {
        std::fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
        let image = image::RgbImage::from_pixel(10, height, image::Rgb(value));
        image.save(dir.path().join(name)).unwrap();
    };
    fill("a/1.png", [255, 0, 51], 10);
    fill("b/2.png", [0, 0, 51], 30);
    fill("b/3.png", [0, 255, 51], 40);
    let report = data::check::check(&folder(dir.path()), |_| ());
    assert_eq!(report.labels.into_iter().collect::<Vec<_>>(), [(0, 1), (1, 2)]);
    for (got, expected) in report.mean.iter().zip([0.125, 0.5, 0.2]) {
        assert!((got - expected).abs() < 1e-12, "{:?}", report.mean);
    }
    for (got, expected) in report.std.iter().zip([(0.125_f64 * 0.875).sqrt(), 0.5, 0.0]) {
        assert!((got - expected).abs() < 1e-7, "{:?}", report.std);
    }
}

#[test]
fn a_file_that_vanishes_while_in_use_is_a_broken_image() {
    let (dir, dataset) = damaged(60);
    let file = dataset.name(3);
    std::fs::remove_file(dir.path().join(&file)).unwrap();
    let config = LoaderConfig { max_bad_fraction: 1.0, ..settings(4) };
    let mut loader = start(&dataset, config, (0, 0));
    let batches = take(&mut loader, loader_steps(&dataset));
    let named: Vec<_> = batches.iter().flat_map(|batch| &batch.broken).collect();
    let vanished = named.iter().find(|image| image.name == file).unwrap();
    assert!(vanished.reason.contains("cannot read"), "{}", vanished.reason);
}

fn loader_steps(dataset: &Dataset) -> usize {
    dataset.len() / 4
}
