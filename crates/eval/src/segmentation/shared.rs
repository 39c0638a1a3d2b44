//! Segmentation with several processes, each of which reads its share of the images.

use data::dense::{DenseSample, IGNORE};
use tch::Tensor;
use torch_ext::Collective;

use super::confusion::Confusion;
use super::evaluate::{DenseData, Evaluated, MaskSize, ReadSet, Segmenter, counts};
use super::features::{DenseNetwork, resized};
use super::patches::PatchLabels;
use crate::error::Result;
use crate::gather::{agreed, broken, numbers, rows, share, share_of};

/// Patches read from the training images.
#[derive(Default)]
pub(super) struct Read {
    /// Features of the kept patches of each image, `[m, D]` each.
    pub(super) features: Vec<Tensor>,
    /// Classes of the pixels of the kept patches.
    pub(super) pixels: Vec<u8>,
    /// Number of kept patches of images that are not held out.
    pub(super) kept: usize,
    /// Features of all patches of this process's held-out images, and their labels.
    pub(super) held_out: Vec<(Tensor, PatchLabels)>,
    /// Number of held-out images with a labeled pixel.
    pub(super) scorable: usize,
}

impl Read {
    /// Keeps the chosen patches of an image; `all` are the features of all of its patches.
    pub(super) fn keep(&mut self, all: &Tensor, labels: &PatchLabels, chosen: &[usize]) {
        let places: Vec<i64> = chosen.iter().map(|&patch| patch as i64).collect();
        self.features
            .push(all.index_select(0, &Tensor::from_slice(&places).to_device(all.device())));
        labels.chosen(chosen).for_each(|patch| self.pixels.extend_from_slice(patch));
    }

    /// Keeps all patches of a held-out image, on which candidates are compared.
    pub(super) fn hold_out(&mut self, all: Tensor, labels: PatchLabels) {
        self.scorable += usize::from(labels.pixels.iter().any(|&class| class != IGNORE));
        self.held_out.push((all, labels));
    }

    /// Gathers the patches of all processes, in the order of their ranks. Held-out images stay with
    /// the process that has read them.
    ///
    /// # Errors
    /// Returns an error in every process if `own` is an error in any of them, or if no image could
    /// be read.
    pub(super) fn of_all(
        own: Result<(Self, ReadSet)>,
        processes: &dyn Collective,
    ) -> Result<(Self, ReadSet)> {
        let (mut read, set) = agreed(own, processes)?;
        let set = set.of_all(processes)?.not_empty()?;
        if processes.size() == 1 {
            return Ok((read, set));
        }
        let device = read.features.first().map_or(tch::Device::Cpu, Tensor::device);
        let own = match read.features.is_empty() {
            true => Tensor::zeros([0, 0], (tch::Kind::Float, device)),
            false => Tensor::cat(&read.features, 0),
        };
        read.features = rows(&own, processes)?.into_iter().collect();
        read.pixels = processes.all_gather_bytes(&read.pixels)?.concat();
        let counts = numbers(Ok(vec![read.kept as u64, read.scorable as u64]), processes)?;
        let sum = |i: usize| counts.iter().filter_map(|counts| counts.get(i)).sum::<u64>() as usize;
        (read.kept, read.scorable) = (sum(0), sum(1));
        Ok((read, set))
    }
}

impl ReadSet {
    /// Combines what all processes have read. No process may return early before this call.
    fn of_all(self, processes: &dyn Collective) -> Result<Self> {
        let images = numbers(Ok(vec![self.images as u64]), processes)?.concat();
        let broken = broken(&self.broken, processes)?;
        Ok(Self { images: images.iter().sum::<u64>() as usize, broken })
    }
}

/// Scores `segmenter` on a set. Each process segments its share of the images, and all of them get
/// the counts of the whole set.
///
/// # Errors
/// Returns an error in every process if one fails, or if no image is readable.
pub fn evaluate_shared(
    data: &DenseData<'_>,
    segmenter: &dyn Segmenter,
    mask: MaskSize,
    processes: &dyn Collective,
) -> Result<Evaluated> {
    let indices = data.indices();
    let own = &indices[share(indices.len(), processes)];
    let own = counts(data, own, segmenter, mask, &mut |_, _, _| Ok(()));
    let (confusion, read) = agreed(own, processes)?;
    let mut confusions = Confusion::sums(Ok(vec![confusion]), processes)?;
    let read = read.of_all(processes)?.not_empty()?;
    Ok(Evaluated { confusion: confusions.swap_remove(0), images: read.images, broken: read.broken })
}

/// Computes the features of the share of process `rank` of `size` of the images, resized to squares
/// of `side` pixels. The network is one that keeps them, a [`MapStore`](super::MapStore). Images
/// that cannot be read are left out.
///
/// # Errors
/// Returns an error if the network fails.
pub fn fill_maps(
    network: &DenseNetwork<'_>,
    data: &DenseData<'_>,
    side: u32,
    process: (usize, usize),
) -> Result<()> {
    let (side, all) = (network.whole_patches(side), data.indices());
    let own = &all[share_of(all.len(), process)];
    let make = |_, sample: DenseSample| resized(&sample.image, side, side);
    data.each_readable(own, make, |_, image| network.maps(&network.input(&[&image])?).map(|_| ()))?;
    Ok(())
}
