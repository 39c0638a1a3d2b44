//! Mixes of sources, and images cached in memory: only time and proportions change.

use std::path::Path;
use std::sync::Arc;

use data::{CacheKind, DataConfig, Dataset, MixEntry, SourceKind, open};
use tempfile::tempdir;

use crate::support::{config, labels, names, same, settings, start, take, write, write_picture};

fn entry(path: &Path, weight: Option<f64>) -> MixEntry {
    MixEntry { path: Some(path.to_str().unwrap().into()), source: SourceKind::Auto, weight }
}

fn mix(entries: Vec<MixEntry>) -> DataConfig {
    DataConfig { mix: entries, ..DataConfig::default() }
}

/// Two folders of classes, `a` (4 images: cat, dog) and `b` (6 images: dog, emu).
fn folders(dir: &Path) -> [std::path::PathBuf; 2] {
    let paths = ["a", "b"].map(|name| dir.join(name));
    for number in 0..4 {
        let class = ["cat", "dog"][number % 2];
        write_picture(&paths[0].join(format!("{class}/{number}.png")), number as u32);
    }
    for number in 0..6 {
        let class = ["dog", "emu"][number % 2];
        write_picture(&paths[1].join(format!("{class}/{number}.png")), 100 + number as u32);
    }
    paths
}

#[test]
fn a_mix_holds_all_images_with_joined_classes() {
    let dir = tempdir().unwrap();
    let [a, b] = folders(dir.path());
    let mixed = open(&mix(vec![entry(&a, None), entry(&b, None)])).unwrap();
    let [first, second] = [&a, &b].map(|path| open(&config(SourceKind::Folder, path)).unwrap());
    assert_eq!((mixed.len(), mixed.kind()), (10, "mix"));
    assert_eq!(mixed.class_names(), ["cat", "dog", "emu"]);
    assert_eq!(labels(&mixed), [0, 0, 1, 1, 1, 1, 1, 2, 2, 2].map(Some));
    assert_eq!(names(&mixed)[4], format!("{}/dog/0.png", b.display()));
    for index in 0..10 {
        let (of, place) = if index < 4 { (&first, index) } else { (&second, index - 4) };
        assert_eq!(mixed.image(index).unwrap(), of.image(place).unwrap());
    }
    assert!(mixed.image(10).is_err());
    let other = open(&mix(vec![entry(&b, None), entry(&a, None)])).unwrap();
    assert_ne!(other.fingerprint(), mixed.fingerprint());
    let weighted = open(&mix(vec![entry(&a, Some(1.0)), entry(&b, Some(9.0))])).unwrap();
    assert_ne!(weighted.fingerprint(), mixed.fingerprint());
}

#[test]
fn weights_are_shares_of_every_epoch() {
    let dir = tempdir().unwrap();
    let [a, b] = folders(dir.path());
    let mixed = Arc::new(open(&mix(vec![entry(&a, Some(4.0)), entry(&b, Some(1.0))])).unwrap());
    let mut loader = start(&mixed, settings(5), (0, 0));
    assert_eq!(loader.steps_per_epoch(), 2);
    let batches = take(&mut loader, 6);
    for epoch in batches.chunks(2) {
        let from_a = epoch.iter().flat_map(|batch| &batch.samples).filter(|&&s| s < 4).count();
        assert_eq!(from_a, 8);
    }
    // An image that occurs twice in an epoch gets different crops each time.
    let crops = |image: u64| {
        let rows = batches[..2].iter().flat_map(|batch| {
            let rows = batch.samples.iter().enumerate().filter(move |(_, s)| **s == image);
            rows.map(|(row, _)| batch.global.crop(row).to_vec())
        });
        rows.collect::<Vec<_>>()
    };
    let twice = crops(0);
    assert_eq!(twice.len(), 2);
    assert_ne!(twice[0], twice[1]);
    // Starting elsewhere, or with a different number of threads, gives the same batches.
    let mut late =
        start(&mixed, data::loader::LoaderConfig { workers: Some(1), ..settings(5) }, (1, 1));
    assert!(take(&mut late, 3).iter().zip(&batches[3..]).all(|(a, b)| same(a, b)));
}

#[test]
fn wrong_mixes_say_what_is_wrong() {
    let dir = tempdir().unwrap();
    let [a, b] = folders(dir.path());
    let said = |config: &DataConfig| {
        config.validate().iter().map(|(key, what)| format!("{key}: {what}; ")).collect::<String>()
    };
    assert_eq!(said(&mix(vec![entry(&a, None)])), "");
    let both = DataConfig { path: Some("x".into()), ..mix(vec![entry(&a, None)]) };
    assert!(said(&both).contains("not both"));
    assert!(said(&mix(vec![entry(&a, None), entry(&b, Some(1.0))])).contains("all sources"));
    assert!(said(&mix(vec![entry(&a, Some(0.0))])).contains("greater than 0"));
    assert!(said(&mix(vec![MixEntry::default()])).contains("needs a path"));
    let missing = open(&mix(vec![entry(&a, None), entry(&dir.path().join("no"), None)]));
    assert!(missing.unwrap_err().to_string().contains("/no: no such file"));
}

fn cached(path: &Path, cache: CacheKind, cache_gb: f64) -> Arc<Dataset> {
    let config = DataConfig { cache, cache_gb, ..config(SourceKind::Folder, path) };
    Arc::new(open(&config).unwrap())
}

#[test]
fn a_cache_changes_no_batch() {
    let dir = tempdir().unwrap();
    let [a, _] = folders(dir.path());
    write(&a.join("cat/broken.png"), "text");
    let batches = |dataset: &Arc<Dataset>| {
        let settings = data::loader::LoaderConfig { max_bad_fraction: 1.0, ..settings(5) };
        take(&mut start(dataset, settings, (0, 0)), 6)
    };
    let plain = batches(&cached(&a, CacheKind::None, 0.0));
    for kind in [CacheKind::Encoded, CacheKind::Decoded] {
        for budget in [1.0, 4e-6, 0.0] {
            let got = batches(&cached(&a, kind, budget));
            assert!(got.iter().zip(&plain).all(|(a, b)| same(a, b)), "{kind:?} {budget}");
            assert_eq!(got[0].broken, plain[0].broken);
        }
    }
}

#[test]
fn what_is_kept_is_not_read_again() {
    let dir = tempdir().unwrap();
    let [a, _] = folders(dir.path());
    for (kind, gb, kept) in
        [(CacheKind::Decoded, 1.0, 4), (CacheKind::Decoded, 5e-6, 2), (CacheKind::Encoded, 1.0, 4)]
    {
        let dataset = cached(&a, kind, gb);
        let before: Vec<_> = (0..4).map(|index| dataset.image(index).unwrap()).collect();
        let away = dir.path().join("away");
        std::fs::rename(&a, &away).unwrap();
        // 32 x 24 pixels take 2304 bytes.
        let found = (0..4).filter(|&index| match dataset.image(index) {
            Ok(image) => {
                assert_eq!(image, before[index]);
                true
            }
            Err(_) => false,
        });
        assert_eq!(found.count(), kept, "{kind:?} {gb}");
        std::fs::rename(&away, &a).unwrap();
    }
}
