//! Measures the parts of this crate on the input in a folder, for `cargo xtask bench objects`.
//!
//! ```text
//! cargo run -p simdino-objects --example bench_objects -- \
//!     FOLDER [THREADS [cuts|crf|video|image ...]]
//! ```
//!
//! The default is one thread and all parts. `benches/peers/objects.py prepare FOLDER` writes the
//! input. Results are written to the same folder, for comparison. The last line is JSON: seconds,
//! and peak memory in bytes.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ndarray::{Array2, ArrayView2};
use objects::propagate::one_hot;
use objects::{
    Affinity, Crf, CrfOptions, Grid, Mask, MaskCutOptions, PropagateOptions, Propagator, maskcut,
    ncut,
};
use serde_json::{Map, Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const SIDE: usize = 480;
const VIDEO: Grid = Grid { height: 30, width: 52 };
const CLASSES: usize = 3;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let Some(folder) = arguments.next().map(PathBuf::from) else {
        return Err("bench_objects needs the folder that `objects.py prepare` has filled".into());
    };
    let threads = arguments.next().map_or(Ok(1), |threads| threads.parse())?;
    let parts: Vec<String> = arguments.collect();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let result = pool.install(|| run(&folder, &parts))?;
    println!("{}", Value::from(result));
    Ok(())
}

fn run(folder: &Path, parts: &[String]) -> Result<Map<String, Value>> {
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    let mut result = Map::new();
    if wanted("cuts") {
        cuts(folder, 3600, &mut result)?;
        result.insert("peak_memory_3600".into(), peak_memory().into());
        cuts(folder, 900, &mut result)?;
    }
    for (part, run) in [
        ("crf", crf as fn(&Path, &mut Map<String, Value>) -> Result<()>),
        ("video", video),
        ("image", image),
    ] {
        if wanted(part) {
            run(folder, &mut result)?;
        }
    }
    Ok(result)
}

fn cuts(folder: &Path, patches: usize, result: &mut Map<String, Value>) -> Result<()> {
    let options = MaskCutOptions::default();
    let features = features(&folder.join(format!("features_{patches}.f32")), patches)?;
    let (graph, affinity) = timed(|| Affinity::from_features(features.view(), options.tau))?;
    let (solve, cut) = timed(|| ncut(&affinity, options.eps))?;
    result.insert(format!("graph_{patches}"), graph.into());
    result.insert(format!("solve_{patches}"), solve.into());
    let found = json!({
        "value": cut.value, "gap": cut.gap, "residual": cut.residual, "products": cut.products,
        "edges": affinity.degrees().iter().sum::<u32>(),
    });
    result.insert(format!("cut_{patches}"), found);
    let bytes: Vec<u8> = cut.vector.iter().flat_map(|y| y.to_le_bytes()).collect();
    fs::write(folder.join(format!("ours_{patches}.f64")), bytes)?;
    Ok(())
}

fn crf(folder: &Path, result: &mut Map<String, Value>) -> Result<()> {
    let (rgb, grid) = (fs::read(folder.join("image.u8"))?, Grid::new(SIDE, SIDE));
    // The two probabilities are the softmax of 1 and 0.
    let soft = |inside: &u8| if *inside == 1 { 0.731_058_6 } else { 0.268_941_4 };
    let map: Vec<f32> = fs::read(folder.join("mask_0.u8"))?.iter().map(soft).collect();
    let maps = [map];
    let (seconds, marginal) = timed(|| {
        let crf = Crf::new(&rgb, grid, &CrfOptions::default())?;
        crf.marginals(&maps)
    })?;
    result.insert("crf".into(), seconds.into());
    write(&folder.join("ours_crf.f32"), marginal[0].iter())
}

fn video(folder: &Path, result: &mut Map<String, Value>) -> Result<()> {
    let all = features(&folder.join("video.f32"), 9 * VIDEO.cells())?;
    let frame = |k: usize| -> ArrayView2<'_, f32> {
        let positions = k * VIDEO.cells()..(k + 1) * VIDEO.cells();
        all.slice_axis(ndarray::Axis(0), positions.into())
    };
    let ids: Vec<u8> = (0..VIDEO.cells()).map(|i| (i * CLASSES / VIDEO.cells()) as u8).collect();
    let labels = one_hot(&ids);
    let mut video = Propagator::new(frame(0), labels.view(), VIDEO, &PropagateOptions::default())?;
    for k in 1..8 {
        video.push(frame(k), labels.view())?;
    }
    let (seconds, soft) = timed(|| video.labels_of(frame(8)))?;
    result.insert("vos".into(), seconds.into());
    write(&folder.join("ours_vos.f32"), soft.iter())
}

/// Times three masks of an image, from its features to their refinement by the CRF.
fn image(folder: &Path, result: &mut Map<String, Value>) -> Result<()> {
    let features = features(&folder.join("features_900.f32"), 900)?;
    let (rgb, grid) = (fs::read(folder.join("image.u8"))?, Grid::new(SIDE, SIDE));
    let (seconds, found) =
        timed(|| maskcut(features.view(), Grid::new(30, 30), &MaskCutOptions::default()))?;
    result.insert("masks_900".into(), seconds.into());
    let mut masks = found.masks_at(grid);
    for (k, mask) in masks.iter_mut().enumerate() {
        if mask.is_empty() {
            let cells =
                fs::read(folder.join(format!("mask_{k}.u8")))?.iter().map(|&x| x == 1).collect();
            *mask = Mask::new(grid, cells)?;
        }
    }
    let (seconds, _) = timed(|| Crf::new(&rgb, grid, &CrfOptions::default())?.refine(&masks))?;
    result.insert("crf_of_3_masks".into(), seconds.into());
    Ok(())
}

/// Returns the best time of three in seconds, and the result. The clock is coarse, so short work is
/// repeated.
fn timed<T>(mut work: impl FnMut() -> objects::Result<T>) -> Result<(f64, T)> {
    let start = Instant::now();
    let mut value = work()?;
    let repeats = (0.1 / start.elapsed().as_secs_f64().max(1e-4)).ceil() as u32;
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let clock = Clock::start();
        for _ in 0..repeats {
            value = work()?;
        }
        best = best.min(clock.seconds() / f64::from(repeats));
    }
    Ok((best, value))
}

/// Measures the time that the only thread has been running, so that other load on the machine
/// matters less. With several threads, or if the system does not report it, measures wall time.
struct Clock {
    wall: Instant,
    running: Option<u64>,
}

impl Clock {
    fn start() -> Self {
        Self { wall: Instant::now(), running: Self::running() }
    }

    fn seconds(&self) -> f64 {
        match (self.running, Self::running()) {
            (Some(before), Some(after)) => (after - before) as f64 / 1e9,
            _ => self.wall.elapsed().as_secs_f64(),
        }
    }

    /// Returns the nanoseconds that this thread has been running, if it is the only one.
    fn running() -> Option<u64> {
        if rayon::current_num_threads() > 1 {
            return None;
        }
        let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        text.split_whitespace().next()?.parse().ok()
    }
}

fn features(path: &Path, rows: usize) -> Result<Array2<f32>> {
    let bytes =
        fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let values: Vec<f32> =
        bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    Ok(Array2::from_shape_vec((rows, values.len() / rows), values)?)
}

fn write<'a>(path: &Path, values: impl Iterator<Item = &'a f32>) -> Result<()> {
    Ok(fs::write(path, values.flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())?)
}

/// Returns the peak memory of this process in bytes; `None` if the system does not report it.
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kilobytes| 1024 * kilobytes)
}
