//! Checks a whole dataset: what it contains, and which images are broken.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::dataset::{Dataset, Inspection};
use crate::loader::BrokenImage;

/// Minimum, median, and maximum of a size, in pixels; all 0 if there are no images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Extent {
    /// The smallest size.
    pub min: u32,
    /// The median; the lower of the two middle values if there are two.
    pub median: u32,
    /// The largest size.
    pub max: u32,
}

/// The result of [`check`].
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct CheckReport {
    /// Number of images, including broken ones.
    pub images: usize,
    /// The broken images, by index.
    pub broken: Vec<BrokenImage>,
    /// Readable images by format.
    pub formats: BTreeMap<&'static str, usize>,
    /// Widths of the readable images.
    pub width: Extent,
    /// Heights of the readable images.
    pub height: Extent,
    /// Shorter sides of the readable images.
    pub shorter_side: Extent,
    /// Number of readable images by shorter side; the key is the largest power of two not above
    /// it.
    pub side_histogram: BTreeMap<u32, usize>,
    /// Number of images by label, including broken ones.
    pub labels: BTreeMap<u32, usize>,
    /// Number of images without a label.
    pub unlabeled: usize,
    /// Groups of images whose files are identical, by index; keep the first of each group.
    pub duplicates: Vec<Vec<usize>>,
    /// For images with more than 8 bits per value, the 2nd and the 98th percentile of each channel,
    /// on the scale of the files, from a sample of pixels. They help to choose `data.value_range`.
    /// Empty if all images have 8 bits.
    pub value_percentiles: Vec<[f64; 2]>,
    /// Mean of each channel over all pixels, on the scale [0, 1].
    pub mean: Vec<f64>,
    /// Standard deviation of each channel over all pixels, on the scale [0, 1].
    pub std: Vec<f64>,
}

/// Number of pixels whose values are kept, over all images.
const SAMPLED_PIXELS: usize = 1 << 18;
/// Minimum number of pixels kept per image.
const LEAST_SAMPLED: usize = 8;

/// Reads every image, on the threads of the current rayon pool. `progress` is called from many
/// threads, once per image, with the number of images done so far.
pub fn check(dataset: &Dataset, progress: impl Fn(usize) + Sync) -> CheckReport {
    let done = AtomicUsize::new(0);
    let sample = (SAMPLED_PIXELS / dataset.len().max(1)).max(LEAST_SAMPLED);
    let looks: Vec<Result<Look, BrokenImage>> = (0..dataset.len())
        .into_par_iter()
        .map(|index| {
            let look = look(dataset, index, sample);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
            look
        })
        .collect();
    let mut report = CheckReport { images: dataset.len(), ..CheckReport::default() };
    for label in (0..dataset.len()).map(|index| dataset.label(index)) {
        match label {
            Some(label) => *report.labels.entry(label).or_default() += 1,
            None => report.unlabeled += 1,
        }
    }
    let mut good = Vec::with_capacity(looks.len());
    let mut seen: HashMap<[u8; 16], Vec<usize>> = HashMap::with_capacity(looks.len());
    for (index, look) in looks.into_iter().enumerate() {
        if let Ok(look) = &look {
            seen.entry(look.digest).or_default().push(index);
        }
        match look {
            Ok(look) => good.push(look),
            Err(broken) => report.broken.push(broken),
        }
    }
    report.duplicates = seen.into_values().filter(|group| group.len() > 1).collect();
    report.duplicates.sort_unstable();
    summarize(&good, dataset.channels(), &mut report);
    report.value_percentiles = percentiles(&good, dataset.channels());
    report
}

impl CheckReport {
    /// Returns the number of redundant images: the members of all groups of duplicates except the
    /// first of each.
    pub fn superfluous(&self) -> usize {
        self.duplicates.iter().map(|group| group.len() - 1).sum()
    }
}

/// Measurements of one readable image.
struct Look {
    digest: [u8; 16],
    format: &'static str,
    width: u32,
    height: u32,
    /// Sums of the values of each channel, and sums of their squares. They are integers, so the
    /// order of summation does not affect the result.
    sums: Vec<u64>,
    squares: Vec<u64>,
    values: Option<Vec<Vec<f64>>>,
}

fn look(dataset: &Dataset, index: usize, sample: usize) -> Result<Look, BrokenImage> {
    let Inspection { image, format, digest, values } = dataset
        .inspect(index, sample)
        .map_err(|error| BrokenImage::new(index, dataset.name(index), error))?;
    let channels = image.channels();
    let (mut sums, mut squares) = (vec![0; channels], vec![0; channels]);
    for pixel in image.data().chunks_exact(channels) {
        for ((sum, square), &value) in sums.iter_mut().zip(&mut squares).zip(pixel) {
            *sum += u64::from(value);
            *square += u64::from(value) * u64::from(value);
        }
    }
    let (width, height) = image.dimensions();
    Ok(Look { digest, format, width, height, sums, squares, values })
}

fn summarize(looks: &[Look], channels: usize, report: &mut CheckReport) {
    (report.mean, report.std) = (vec![0.0; channels], vec![0.0; channels]);
    for look in looks {
        *report.formats.entry(look.format).or_default() += 1;
        let bin = 1 << look.width.min(look.height).max(1).ilog2();
        *report.side_histogram.entry(bin).or_default() += 1;
    }
    report.width = extent(looks.iter().map(|look| look.width));
    report.height = extent(looks.iter().map(|look| look.height));
    report.shorter_side = extent(looks.iter().map(|look| look.width.min(look.height)));
    let pixels: f64 = looks.iter().map(|look| f64::from(look.width) * f64::from(look.height)).sum();
    if pixels == 0.0 {
        return;
    }
    for channel in 0..channels {
        let sum: u128 = looks.iter().map(|look| u128::from(look.sums[channel])).sum();
        let squares: u128 = looks.iter().map(|look| u128::from(look.squares[channel])).sum();
        let mean = sum as f64 / pixels;
        report.mean[channel] = mean / 255.0;
        report.std[channel] = (squares as f64 / pixels - mean * mean).max(0.0).sqrt() / 255.0;
    }
}

/// Computes [`CheckReport::value_percentiles`].
fn percentiles(looks: &[Look], channels: usize) -> Vec<[f64; 2]> {
    let sampled = |channel: usize| {
        // A gray image among color images counts for every channel.
        let values = looks.iter().filter_map(|look| look.values.as_ref());
        let values = values.filter_map(|values| values.get(channel).or(values.first()));
        let mut values: Vec<f64> = values.flatten().copied().filter(|v| v.is_finite()).collect();
        values.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| values.get((share * (values.len().max(1) - 1) as f64) as usize);
        Some([*at(0.02)?, *at(0.98)?])
    };
    (0..channels).map_while(sampled).collect()
}

fn extent(sizes: impl Iterator<Item = u32>) -> Extent {
    let mut sizes: Vec<u32> = sizes.collect();
    sizes.sort_unstable();
    match (sizes.first(), sizes.last()) {
        (Some(&min), Some(&max)) => Extent { min, median: sizes[(sizes.len() - 1) / 2], max },
        _ => Extent::default(),
    }
}
