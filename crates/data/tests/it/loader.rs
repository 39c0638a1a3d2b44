//! The loaders: order, determinism, resuming, and broken images.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use augment::{AugmentConfig, CropKey, EvalTransform, MultiCrop};
use data::Dataset;
use data::loader::{Batch, EvalLoader, LoaderConfig, Position, TrainLoader};
use data::source::{Payload, Source};
use proptest::prelude::*;
use tempfile::{TempDir, tempdir};

use crate::support::{augment, evaluate, folder, same, settings, start, take, write_picture};

/// Creates a dataset of `count` pictures in two classes.
fn pictures(count: u32) -> (TempDir, Arc<Dataset>) {
    let dir = tempdir().unwrap();
    for number in 0..count {
        let class = if number % 2 == 0 { "even" } else { "odd" };
        write_picture(&dir.path().join(format!("{class}/{number:04}.png")), number);
    }
    let dataset = folder(dir.path());
    (dir, dataset)
}

#[test]
fn rows_hold_the_crops_of_their_image_view_by_view() {
    let (_dir, dataset) = pictures(10);
    let mut loader = start(&dataset, settings(4), (0, 0));
    assert_eq!(loader.steps_per_epoch(), 2);
    let crops = MultiCrop::new(&augment());
    for (number, batch) in take(&mut loader, 5).iter().enumerate() {
        let epoch = number as u64 / 2;
        assert_eq!(batch.position, Position { epoch, step: number as u64 % 2 });
        assert_eq!((batch.micro_batch_size, batch.micro), (4, 0));
        assert_eq!(batch.global.shape, [8, 16, 16, 3]);
        let local = batch.local.as_ref().unwrap();
        assert_eq!(local.shape, [12, 8, 8, 3]);
        for (row, &sample) in batch.samples.iter().enumerate() {
            let image = dataset.image(sample as usize).unwrap();
            let (mut global, mut small) =
                (vec![vec![0; 16 * 16 * 3]; 2], vec![vec![0; 8 * 8 * 3]; 3]);
            let mut global_out: Vec<&mut [u8]> = global.iter_mut().map(Vec::as_mut_slice).collect();
            let mut small_out: Vec<&mut [u8]> = small.iter_mut().map(Vec::as_mut_slice).collect();
            let key = CropKey { seed: 7, epoch, sample };
            crops.apply((&image).into(), key, &mut global_out, &mut small_out).unwrap();
            for (view, crop) in global.iter().enumerate() {
                assert!(batch.global.crop(view * 4 + row) == crop, "global view {view}, row {row}");
            }
            for (view, crop) in small.iter().enumerate() {
                assert!(local.crop(view * 4 + row) == crop, "local view {view}, row {row}");
            }
        }
    }
}

#[test]
fn every_image_comes_once_an_epoch_in_another_order() {
    let (_dir, dataset) = pictures(12);
    let batches = take(&mut start(&dataset, settings(4), (0, 0)), 6);
    let epochs: Vec<Vec<u64>> = batches
        .chunks(3)
        .map(|epoch| epoch.iter().flat_map(|b| b.samples.clone()).collect())
        .collect();
    assert_ne!(epochs[0], epochs[1]);
    for mut epoch in epochs {
        epoch.sort_unstable();
        assert!(epoch.into_iter().eq(0..12));
    }
}

#[test]
fn without_local_crops_there_are_none() {
    let (_dir, dataset) = pictures(4);
    let crops = MultiCrop::new(&AugmentConfig { local_crops_number: 0, ..augment() });
    let mut loader = TrainLoader::new(dataset, crops, settings(2), Position::default()).unwrap();
    assert!(loader.next_batch().unwrap().local.is_none());
}

#[test]
fn threads_and_prefetch_change_nothing() {
    let (_dir, dataset) = pictures(30);
    let expected = take(&mut start(&dataset, settings(6), (0, 0)), 12);
    for (workers, prefetch) in [(1, 1), (1, 5), (2, 1), (8, 3), (8, 20), (0, 2)] {
        let config = LoaderConfig { workers: Some(workers), prefetch, ..settings(6) };
        let got = take(&mut start(&dataset, config, (0, 0)), 12);
        assert!(expected.iter().zip(&got).all(|(a, b)| same(a, b)), "{workers} {prefetch}");
    }
    let other = LoaderConfig { seed: 8, ..settings(6) };
    assert_ne!(expected[0].samples, take(&mut start(&dataset, other, (0, 0)), 1)[0].samples);
}

#[test]
fn a_run_goes_on_from_any_step_as_if_never_stopped() {
    let (_dir, dataset) = pictures(20);
    let geometry = settings(6).geometry.accumulated(2).unwrap();
    let config = LoaderConfig { geometry, ..settings(6) };
    // There are 3 steps per epoch and 2 micro-batches per step.
    let whole = take(&mut start(&dataset, config.clone(), (0, 0)), 24);
    for (step, from) in whole.iter().step_by(2).enumerate() {
        assert_eq!(from.position, Position { epoch: step as u64 / 3, step: step as u64 % 3 });
        let at = (from.position.epoch, from.position.step);
        let got = take(&mut start(&dataset, config.clone(), at), 3);
        assert!(whole[2 * step..].iter().zip(&got).all(|(a, b)| same(a, b)), "{at:?}");
    }
    // The end of an epoch is the beginning of the next one.
    let end = take(&mut start(&dataset, config, (0, 3)), 1);
    assert!(same(&end[0], &whole[6]));
}

#[test]
fn processes_and_micro_batches_share_the_same_batch() {
    let (_dir, dataset) = pictures(24);
    let whole = take(&mut start(&dataset, settings(12), (0, 0)), 2);
    let parts = |rank, world_size| {
        let geometry = settings(12).geometry.accumulated(3).unwrap();
        let geometry = geometry.of_process(rank, world_size).unwrap();
        let config = LoaderConfig { geometry, ..settings(12) };
        take(&mut start(&dataset, config, (0, 0)), 6)
    };
    let (first, second) = (parts(0, 2), parts(1, 2));
    for (step, whole) in whole.iter().enumerate() {
        for micro in 0..3 {
            let (a, b) = (&first[3 * step + micro], &second[3 * step + micro]);
            assert_eq!((a.micro, b.micro, a.micro_batch_size), (micro, micro, 2));
            let rows = &whole.samples[4 * micro..4 * micro + 4];
            assert_eq!([&a.samples[..], &b.samples[..]].concat(), *rows);
            // The crops of an image do not depend on which process makes them.
            let crop = |batch: &Batch, row: usize| batch.global.crop(row).to_vec();
            assert_eq!(crop(a, 1), crop(whole, 4 * micro + 1));
            assert_eq!(crop(b, 2), crop(whole, 12 + 4 * micro + 2));
        }
    }
}

#[test]
fn impossible_settings_are_refused() {
    let (_dir, dataset) = pictures(8);
    let refuse = |config: LoaderConfig, parts: &[&str]| {
        let crops = MultiCrop::new(&augment());
        let made = TrainLoader::new(dataset.clone(), crops, config, Position::default());
        let message = made.err().unwrap().to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    refuse(settings(64), &["train.batch_size = 64", "8 images", "lower train.batch_size"]);
    refuse(LoaderConfig { prefetch: 0, ..settings(8) }, &["data.prefetch"]);
    let transform = EvalTransform { resize: 16, crop: 16 };
    assert!(EvalLoader::new(dataset.clone(), transform, 0, 1, None).is_err());
    assert!(EvalLoader::new(dataset.clone(), transform, 1, 1, Some(vec![8])).is_err());
    let nothing = EvalTransform { resize: 16, crop: 0 };
    assert!(EvalLoader::new(dataset, nothing, 1, 1, None).is_err());
}

#[test]
fn dropping_a_loader_frees_everything_it_held() {
    let (_dir, dataset) = pictures(20);
    let config = LoaderConfig { prefetch: 10, ..settings(10) };
    let mut loader = start(&dataset, config, (0, 0));
    loader.next_batch().unwrap();
    drop(loader);
    // The threads held references to the dataset, so they have ended.
    assert_eq!(Arc::strong_count(&dataset), 1);
}

#[test]
fn evaluation_goes_through_all_images_in_order() {
    let (_dir, dataset) = pictures(11);
    let batches = evaluate(&dataset, 4, 3, None);
    let sizes: Vec<usize> = batches.iter().map(|batch| batch.indices.len()).collect();
    assert_eq!(sizes, [4, 4, 3]);
    let transform = EvalTransform { resize: 20, crop: 16 };
    let mut next = 0;
    for batch in &batches {
        assert_eq!(batch.images.dim(), (batch.indices.len(), 16, 16, 3));
        for (row, &index) in batch.indices.iter().enumerate() {
            assert_eq!(index, next);
            next += 1;
            assert_eq!(batch.labels[row], dataset.label(index));
            let expected = transform.apply((&dataset.image(index).unwrap()).into()).unwrap();
            let got = batch.images.index_axis(ndarray::Axis(0), row);
            assert!(got.iter().eq(expected.data().iter()), "{index}");
        }
    }
    assert_eq!(next, 11);
    let chosen = evaluate(&dataset, 2, 1, Some(vec![7, 3, 7]));
    let indices: Vec<usize> = chosen.iter().flat_map(|batch| batch.indices.clone()).collect();
    assert_eq!(indices, [7, 3, 7]);
    assert!(evaluate(&dataset, 2, 1, Some(vec![])).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_split_of_the_work_gives_the_same_images(
        world_size in 1_usize..4,
        accumulate in 1_usize..3,
        workers in 1_usize..5,
        prefetch in 1_usize..6,
        step in 0_u64..4,
    ) {
        let (_dir, dataset) = pictures(25);
        let batch_size = 12 / (world_size * accumulate) * world_size * accumulate;
        let steps = 25 / batch_size as u64;
        let mut union = Vec::new();
        for rank in 0..world_size {
            let geometry = settings(batch_size).geometry.accumulated(accumulate).unwrap();
            let geometry = geometry.of_process(rank, world_size).unwrap();
            let config =
                LoaderConfig { geometry, workers: Some(workers), prefetch, ..settings(batch_size) };
            let mut loader = start(&dataset, config, (step / steps, step % steps));
            union.extend(take(&mut loader, accumulate).iter().flat_map(|b| b.samples.clone()));
        }
        let mut alone = start(&dataset, settings(batch_size), (step / steps, step % steps));
        let mut expected = alone.next_batch().unwrap().samples;
        union.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(union, expected);
    }
}

/// A source that counts how often it is read.
struct Counted(u32, Arc<AtomicUsize>);

impl Source for Counted {
    fn kind(&self) -> &'static str {
        "counted"
    }
    fn len(&self) -> usize {
        self.0 as usize
    }
    fn name(&self, index: usize) -> String {
        index.to_string()
    }
    fn label(&self, _: usize) -> Option<u32> {
        None
    }
    fn class_names(&self) -> &[String] {
        &[]
    }
    fn load(&self, index: usize) -> data::Result<Payload> {
        self.1.fetch_add(1, Ordering::SeqCst);
        let pixel = image::Rgb([index as u8, 1, 2]);
        Ok(Payload::Pixels(image::RgbImage::from_pixel(20, 20, pixel).into()))
    }
    fn fingerprint(&self) -> String {
        String::new()
    }
}

#[test]
fn a_slow_consumer_bounds_what_is_prepared() {
    for (workers, prefetch, taken) in [(1, 1, 0), (2, 3, 1), (4, 2, 5)] {
        let reads = Arc::new(AtomicUsize::new(0));
        let dataset = Arc::new(Dataset::new(Box::new(Counted(64, reads.clone())), 8));
        let config = LoaderConfig { workers: Some(workers), prefetch, ..settings(4) };
        let mut loader = start(&dataset, config, (0, 0));
        take(&mut loader, taken);
        // Dropping waits for the threads, so nothing is read later. However slow the consumer is,
        // at most `prefetch` batches are prepared for it.
        drop(loader);
        let read = reads.load(Ordering::SeqCst);
        assert!(read <= (taken + prefetch) * 4, "{read} images read for {taken} batches");
        assert!(read >= taken * 4);
    }
}

#[test]
fn another_number_of_processes_in_the_middle_of_an_epoch_loses_and_repeats_nothing() {
    let (_dir, dataset) = pictures(60);
    let mut seen = Vec::new();
    // Steps 0 and 1 run with two processes, and steps 2 to 4 with three.
    for (steps, world_size) in [(0..2, 2), (2..5, 3)] {
        for rank in 0..world_size {
            let geometry = settings(12).geometry.of_process(rank, world_size).unwrap();
            let config = LoaderConfig { geometry, ..settings(12) };
            let mut loader = start(&dataset, config, (0, steps.start));
            for batch in take(&mut loader, (steps.end - steps.start) as usize) {
                seen.extend(batch.samples);
            }
        }
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..60));
}
