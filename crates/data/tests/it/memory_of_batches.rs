//! Memory that the caller provides to the loader, masks delivered with the crops, and batches that
//! are taken without waiting.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use augment::MultiCrop;
use data::loader::{Batch, LoaderConfig, Position, TrainLoader, ViewPlan};
use data::masking::{MaskConfig, MaskGenerator, MaskKey};
use data::{Dataset, Error};
use tempfile::{TempDir, tempdir};

use crate::support::{augment, folder, settings, start, take, write, write_picture};

fn pictures(count: u32) -> (TempDir, Arc<Dataset>) {
    let dir = tempdir().unwrap();
    (0..count).for_each(|n| write_picture(&dir.path().join(format!("{n:04}.png")), n));
    let dataset = folder(dir.path());
    (dir, dataset)
}

fn plan() -> ViewPlan {
    MultiCrop::new(&augment()).into()
}

/// Memory that is returned to a pool when it is dropped, with its contents unchanged.
struct Lent(Vec<u8>, Arc<Mutex<Vec<Vec<u8>>>>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl AsMut<[u8]> for Lent {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.1.lock().unwrap().push(std::mem::take(&mut self.0));
    }
}

fn equal<A: AsRef<[u8]>, B: AsRef<[u8]>>(a: &Batch<A>, b: &Batch<B>) -> bool {
    let local = a.local.as_ref().zip(b.local.as_ref());
    a.global.pixels.as_ref() == b.global.pixels.as_ref()
        && a.global.shape == b.global.shape
        && local.is_some_and(|(a, b)| a.pixels.as_ref() == b.pixels.as_ref() && a.shape == b.shape)
        && (&a.samples, a.position, a.micro) == (&b.samples, b.position, b.micro)
}

#[test]
fn memory_that_is_used_again_holds_nothing_of_the_batch_before() {
    let (_dir, dataset) = pictures(20);
    let expected = take(&mut start(&dataset, settings(4), (0, 0)), 30);
    let free = Arc::new(Mutex::new(Vec::<Vec<u8>>::new()));
    let made = Arc::new(AtomicUsize::new(0));
    let (back, count) = (Arc::clone(&free), Arc::clone(&made));
    let memory = move |bytes: usize| {
        let mut free = back.lock().unwrap();
        let place = free.iter().position(|piece| piece.len() == bytes);
        let piece = place.map(|place| free.remove(place)).unwrap_or_else(|| {
            count.fetch_add(1, Ordering::SeqCst);
            vec![0xa5; bytes]
        });
        drop(free);
        Ok(Lent(piece, Arc::clone(&back)))
    };
    let mut loader =
        TrainLoader::with_memory(dataset, plan(), settings(4), Position::default(), memory)
            .unwrap();
    for expected in &expected {
        assert!(equal(&loader.next_batch().unwrap(), expected), "{:?}", expected.position);
    }
    // There is memory for the global and local crops of the batches prepared ahead and of the one
    // in use.
    assert!(made.load(Ordering::SeqCst) <= 2 * (settings(4).prefetch + 1));
    drop(loader);
    assert_eq!(free.lock().unwrap().len(), made.load(Ordering::SeqCst), "all came back");
}

#[test]
fn memory_that_is_refused_or_too_small_is_an_error_of_its_batch() {
    let (_dir, dataset) = pictures(8);
    let global = 8 * 16 * 16 * 3;
    let asked = AtomicUsize::new(0);
    // Batches are made one at a time here, each with two pieces of memory.
    let memory = move |bytes| match asked.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => Ok(vec![0; bytes]),
        _ => Err("the pool is empty".into()),
    };
    let config = LoaderConfig { prefetch: 1, ..settings(4) };
    let at = Position::default();
    let mut loader =
        TrainLoader::with_memory(dataset.clone(), plan(), config.clone(), at, memory).unwrap();
    loader.next_batch().unwrap();
    let error = loader.next_batch().unwrap_err();
    assert!(matches!(error, Error::BatchMemory { bytes, .. } if bytes == global), "{error:?}");
    let text = error.chain();
    assert!(text.contains("6144 bytes") && text.contains("the pool is empty"), "{text}");
    assert!(text.contains("data.prefetch"), "{text}");

    let short = |bytes: usize| Ok(vec![0; bytes - 1]);
    let mut loader = TrainLoader::with_memory(dataset, plan(), config, at, short).unwrap();
    let error = loader.next_batch().unwrap_err().to_string();
    assert!(error.contains("6144") && error.contains("6143"), "{error}");
}

#[test]
fn masks_come_with_the_crops_that_they_belong_to() {
    let (_dir, dataset) = pictures(20);
    let masks = MaskGenerator::new(&MaskConfig::default(), (4, 4)).unwrap();
    let geometry = settings(8).geometry.accumulated(2).unwrap().of_process(1, 2).unwrap();
    let config = LoaderConfig { geometry, ..settings(8) };
    let views = ViewPlan { masks: Some(masks.clone()), ..plan() };
    let begin = Position { epoch: 3, step: 1 };
    let mut loader = TrainLoader::new(dataset.clone(), views, config.clone(), begin).unwrap();
    let mut seen = 0;
    for batch in take(&mut loader, 6) {
        let Position { epoch, step } = batch.position;
        let key = MaskKey { seed: config.seed, epoch, step };
        let expected = masks.batch(key, geometry, batch.micro);
        seen += expected.indices.len();
        assert_eq!(batch.masks, Some(expected), "{:?}, {}", batch.position, batch.micro);
    }
    assert!(seen > 0);
    let mut without = TrainLoader::new(dataset, plan(), config, begin).unwrap();
    assert_eq!(without.next_batch().unwrap().masks, None);
}

#[test]
fn a_batch_that_is_not_waited_for_is_the_next_one_or_none() {
    let (dir, dataset) = pictures(12);
    let expected = take(&mut start(&dataset, settings(4), (0, 0)), 20);
    let mut loader = start(&dataset, settings(4), (0, 0));
    for (number, expected) in expected.iter().enumerate() {
        // Sometimes the consumer waits until a batch is ready.
        let mut made = loader.try_next_batch();
        while number % 3 == 2 && made.is_none() {
            std::thread::yield_now();
            made = loader.try_next_batch();
        }
        let batch = made.unwrap_or_else(|| loader.next_batch());
        assert!(equal(&batch.unwrap(), expected), "{:?}", expected.position);
    }
    // Errors are delivered as by `next_batch`.
    write(&dir.path().join("0000.png"), "text");
    let config = LoaderConfig { max_bad_fraction: 0.0, ..settings(12) };
    let mut loader = start(&folder(dir.path()), config, (0, 0));
    let mut next = || {
        loop {
            match loader.try_next_batch() {
                Some(batch) => return batch,
                None => std::thread::yield_now(),
            }
        }
    };
    let error = (0..100).find_map(|_| next().err());
    assert!(matches!(error, Some(Error::TooManyBroken { .. })), "{error:?}");
}
