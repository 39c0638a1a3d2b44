//! A step receives exactly the loader's batches, however many are prepared in advance, on the CPU
//! and, if there is one, on a CUDA device.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use augment::{AugmentConfig, MultiCrop};
use data::batch::BatchGeometry;
use data::loader::{Batch, Crops, LoaderConfig, Position, TrainLoader, ViewPlan};
use data::masking::{MaskConfig, MaskGenerator};
use data::source::{Payload, Source};
use data::{DataConfig, Dataset, SourceKind, SyntheticConfig};
use model::normalize::Normalize;
use tch::{Cuda, Device, Kind, Tensor};
use trainer::Error;
use trainer::feed::DeviceLoader;
use trainer::input::{MaskedPatches, Views};

const START: Position = Position { epoch: 0, step: 0 };

fn devices() -> Vec<Device> {
    if Cuda::is_available() {
        return vec![Device::Cpu, Device::Cuda(0)];
    }
    eprintln!("skipped: no CUDA device");
    vec![Device::Cpu]
}

fn normalize() -> Normalize {
    Normalize { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] }
}

fn plan(local_crops: usize) -> ViewPlan {
    let crops = AugmentConfig {
        global_crops_size: 16,
        local_crops_size: 8,
        local_crops_number: local_crops,
        ..AugmentConfig::default()
    };
    let masks = MaskGenerator::new(&MaskConfig::default(), (4, 4)).unwrap();
    ViewPlan { crops: MultiCrop::new(&crops), masks: (local_crops > 0).then_some(masks) }
}

/// Returns settings with two micro-batches of four images per step, for the second process of two.
fn settings() -> LoaderConfig {
    LoaderConfig {
        seed: 5,
        geometry: BatchGeometry::new(16).unwrap().accumulated(2).unwrap().of_process(1, 2).unwrap(),
        workers: Some(2),
        prefetch: 2,
        max_bad_fraction: 0.1,
    }
}

fn pictures() -> Arc<Dataset> {
    let config = DataConfig {
        source: SourceKind::Synthetic,
        synthetic: SyntheticConfig { count: 40, size: 24, seed: 0 },
        ..DataConfig::default()
    };
    Arc::new(data::open(&config).unwrap())
}

fn feed(dataset: &Arc<Dataset>, plan: ViewPlan, start: Position, device: Device) -> DeviceLoader {
    feed_with(dataset, plan, settings(), start, device)
}

fn feed_with(
    dataset: &Arc<Dataset>,
    plan: ViewPlan,
    config: LoaderConfig,
    start: Position,
    device: Device,
) -> DeviceLoader {
    let normalizer = normalize().on(device, Kind::Float).unwrap();
    DeviceLoader::new(Arc::clone(dataset), plan, config, start, normalizer).unwrap()
}

/// Checks the formula of the normalization, pixel by pixel.
fn assert_normalized(got: &Tensor, crops: &Crops) {
    let [n, h, w, c] = crops.shape;
    assert_eq!(got.size(), [n, c, h, w].map(|length| length as i64));
    assert!(got.is_contiguous());
    let got = got.permute([0, 2, 3, 1]).contiguous().view([-1]).to_device(Device::Cpu);
    let got: Vec<f32> = got.try_into().unwrap();
    let Normalize { mean, std } = normalize();
    for (i, (got, &byte)) in got.iter().zip(&crops.pixels).enumerate() {
        let expected = (f32::from(byte) - mean[i % c] * 255.0) / (std[i % c] * 255.0);
        assert!((got - expected).abs() < 1e-6, "value {i}: {got} for {expected}");
    }
}

fn assert_same(views: &Views, batch: &Batch) {
    assert_normalized(&views.global, &batch.global);
    assert_eq!(views.local.is_some(), batch.local.is_some());
    if let (Some(got), Some(expected)) = (&views.local, &batch.local) {
        assert_normalized(got, expected);
    }
    assert_eq!(views.samples, batch.samples);
    let first = 8 * batch.micro as i64 + 4; // this is the second process
    assert_eq!((views.part.first, views.part.count, views.part.of), (first, 4, 16));
    assert_eq!(views.masks.is_some(), batch.masks.is_some());
    let (Some(MaskedPatches { masks, indices, masked }), Some(expected)) =
        (&views.masks, &batch.masks)
    else {
        return;
    };
    let flags: Vec<bool> = masks.view([-1]).try_into().unwrap();
    assert!(flags.iter().eq(expected.masks.iter()));
    assert_eq!(Vec::<i64>::try_from(indices).unwrap(), expected.indices);
    assert_eq!(Vec::<f32>::try_from(&masked.weights).unwrap(), expected.weights);
    assert_eq!((masks.size(), masked.crops), (vec![8, 16], 8));
}

#[test]
fn views_are_the_batches_of_the_loader_however_long_they_are_kept() {
    let dataset = pictures();
    for device in devices() {
        for local_crops in [0, 3] {
            let plan = || plan(local_crops);
            let mut loader = TrainLoader::new(dataset.clone(), plan(), settings(), START).unwrap();
            let batches: Vec<Batch> = (0..24).map(|_| loader.next_batch().unwrap()).collect();
            let mut feed = feed(&dataset, plan(), START, device);
            // All views are kept to the end, when their host memory has long been reused.
            let views: Vec<Views> = (0..24).map(|_| feed.next_views().unwrap()).collect();
            views.iter().zip(&batches).for_each(|(views, batch)| assert_same(views, batch));
            assert!(feed.take_broken().is_empty());
        }
    }
}

#[test]
fn a_run_goes_on_from_any_step() {
    let dataset = pictures();
    let mut loader = TrainLoader::new(dataset.clone(), plan(3), settings(), START).unwrap();
    let batches: Vec<Batch> = (0..16).map(|_| loader.next_batch().unwrap()).collect();
    for (step, of_step) in batches.chunks(2).enumerate() {
        let at = of_step[0].position;
        assert_eq!(at, Position { epoch: step as u64 / 2, step: step as u64 % 2 });
        let mut feed = feed(&dataset, plan(3), at, Device::Cpu);
        let rest = batches[2 * step..].iter().take(5);
        rest.for_each(|batch| assert_same(&feed.next_views().unwrap(), batch));
    }
}

/// A source whose images return what the function returns for their n-th read.
struct Scripted<F>(F, AtomicUsize);

fn scripted<F: Fn(usize, usize) -> data::Result<()> + Send + Sync + 'static>(
    load: F,
) -> Arc<Dataset> {
    Arc::new(Dataset::new(Box::new(Scripted(load, AtomicUsize::new(0))), 8))
}

impl<F: Fn(usize, usize) -> data::Result<()> + Send + Sync> Source for Scripted<F> {
    fn kind(&self) -> &'static str {
        "scripted"
    }
    fn len(&self) -> usize {
        64
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
        (self.0)(index, self.1.fetch_add(1, Ordering::SeqCst))?;
        let pixels = (0..20 * 20 * 3).map(|place| (place * 7 + index * 50) as u8).collect();
        Ok(Payload::Pixels(data::decode::Image::new(pixels, 20, 20, 3).unwrap()))
    }
    fn fingerprint(&self) -> String {
        String::new()
    }
}

fn broken(index: usize) -> data::Result<()> {
    let problem = format!("image {index} is broken");
    if index % 9 == 4 { Err(data::Error::Path { path: "x".into(), problem }) } else { Ok(()) }
}

#[test]
fn an_error_and_broken_images_come_with_the_batch_that_met_them() {
    let dataset = scripted(|index, _| broken(index));
    let config = LoaderConfig { max_bad_fraction: 0.05, ..settings() };
    let mut loader = TrainLoader::new(dataset.clone(), plan(3), config.clone(), START).unwrap();
    let mut feed = feed_with(&dataset, plan(3), config, START, Device::Cpu);
    let mut named = 0;
    for number in 0..100 {
        let (batch, views) = (loader.next_batch(), feed.next_views());
        match (batch, views) {
            (Ok(batch), Ok(views)) => {
                assert_same(&views, &batch);
                assert_eq!(feed.take_broken(), batch.broken, "batch {number}");
                named += batch.broken.len();
            }
            (Err(expected), Err(got)) => {
                assert_eq!(got.to_string(), expected.to_string());
                assert!(matches!(got, Error::Data(data::Error::TooManyBroken { .. })));
                assert!(named > 0 && number > 5);
                return;
            }
            (batch, views) => panic!("batch {number}: {:?}, {:?}", batch.err(), views.err()),
        }
    }
    panic!("no error came");
}

/// Returns a dataset whose first `free` reads succeed at once; the others wait until the sender
/// sends or is dropped.
fn blocked(free: usize) -> (Sender<()>, Arc<Dataset>) {
    let (sender, receiver) = channel::<()>();
    let receiver: Mutex<Receiver<()>> = Mutex::new(receiver);
    let dataset = scripted(move |_, number| {
        if number >= free {
            let _ = receiver.lock().unwrap().recv();
        }
        Ok(())
    });
    (sender, dataset)
}

#[test]
fn a_step_waits_for_no_image_of_the_next_and_a_stop_is_seen_while_it_waits() {
    let (sender, dataset) = blocked(4);
    let asked = Arc::new(AtomicBool::new(false));
    dataset.stop_on(Arc::clone(&asked));
    let config = LoaderConfig { workers: Some(1), prefetch: 1, ..settings() };
    let mut feed = feed_with(&dataset, plan(3), config, START, Device::Cpu);
    assert_eq!(feed.next_views().unwrap().samples.len(), 4);
    let waited = feed.take_wait_time();
    asked.store(true, Ordering::Relaxed);
    let error = feed.next_views().err().unwrap();
    assert!(matches!(error, Error::Data(data::Error::Interrupted)), "{error}");
    assert!(waited.as_nanos() > 0, "the first batch was not there yet");
    assert!(feed.take_wait_time().is_zero(), "a wait in vain is of no step");
    drop(sender);
}

#[test]
fn dropping_it_at_any_point_ends_its_threads() {
    for device in devices() {
        for taken in 0..6 {
            let dataset = pictures();
            let mut feed = feed(&dataset, plan(3), START, device);
            for _ in 0..taken {
                feed.next_views().unwrap();
            }
            drop(feed);
            assert_eq!(Arc::strong_count(&dataset), 1, "after {taken} batches");
        }
    }
}
