//! Tests with real photographs, if the data packs are available.

use std::sync::Arc;

use crate::support::{config, packs};
use augment::EvalTransform;
use data::loader::EvalLoader;
use data::{SourceKind, open};

#[test]
fn a_cifar_shard_is_read_whole() {
    let Some(packs) = packs() else { return };
    let shard = packs.join("cifar10_jpg/cifar10-test-00000.tar.gz");
    let dataset = Arc::new(open(&config(SourceKind::Auto, &shard)).unwrap());
    assert_eq!((dataset.len(), dataset.num_classes(), dataset.kind()), (5000, 10, "shards"));
    let mut counts = [0; 10];
    for index in 0..dataset.len() {
        counts[dataset.label(index).unwrap() as usize] += 1;
    }
    assert!(counts.iter().all(|&count| count > 300), "{counts:?}");
    let transform = EvalTransform { resize: 32, crop: 32 };
    let loader = EvalLoader::new(dataset, transform, 500, 0, None).unwrap();
    let (mut images, mut sum) = (0, 0_u64);
    for batch in loader.map(Result::unwrap) {
        assert!(batch.broken.is_empty());
        images += batch.indices.len();
        sum += batch.images.iter().map(|&value| u64::from(value)).sum::<u64>();
    }
    assert_eq!(images, 5000);
    // The mean of CIFAR-10 over all channels is 0.473.
    let mean = sum as f64 / (5000.0 * 3072.0 * 255.0);
    assert!((mean - 0.473).abs() < 0.01, "{mean}");
}

#[test]
fn a_pattern_joins_shards() {
    let Some(packs) = packs() else { return };
    let pattern = packs.join("cifar10_jpg/cifar10-train-0000[89].tar.gz");
    assert!(open(&config(SourceKind::Auto, &pattern)).is_err(), "only * is a pattern");
    let pattern = packs.join("cifar10_jpg/cifar10-t*-00000.tar.gz");
    assert_eq!(open(&config(SourceKind::Auto, &pattern)).unwrap().len(), 10_000);
}

#[test]
fn photographs_in_a_plain_tar_are_read_at_random() {
    let Some(packs) = packs() else { return };
    let dataset = open(&config(SourceKind::Auto, &packs.join("photos.tar"))).unwrap();
    assert_eq!(dataset.len(), 350);
    for index in [349, 0, 175] {
        let image = dataset.image(index).unwrap();
        assert!(image.width().min(image.height()) >= 224, "{}", dataset.name(index));
    }
}
