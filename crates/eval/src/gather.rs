//! Work shared by several processes: each one does its share, and all of them get the whole result.
//!
//! A process that fails must not leave the others waiting. Everything that is exchanged is
//! therefore a result that may be an error, which then makes all processes fail.

use std::ops::Range;

use data::loader::BrokenImage;
use tch::{Device, Kind, Tensor};
use torch_ext::Collective;

use crate::error::{Error, Result};
use crate::features::FeatureSet;

/// Maximum number of values that each process sends at once: 64 MB.
const MOST: i64 = 16 << 20;

/// Returns this process's share of `count` items. Shares are contiguous, in the order of the ranks.
pub(crate) fn share(count: usize, processes: &dyn Collective) -> Range<usize> {
    share_of(count, (processes.rank(), processes.size()))
}

/// Returns the [`share`] of process `rank` of `size`.
pub(crate) fn share_of(count: usize, (rank, size): (usize, usize)) -> Range<usize> {
    rank * count / size..(rank + 1) * count / size
}

/// Fails in every process if `own` is an error in any of them.
///
/// # Errors
/// Returns the error of `own` if it is one, and [`Error::Elsewhere`] if another process failed.
pub(crate) fn agreed<T>(own: Result<T>, processes: &dyn Collective) -> Result<T> {
    if processes.size() > 1 {
        let mut any = Tensor::from_slice(&[f32::from(u8::from(own.is_err()))]);
        processes.all_reduce_max(&mut any)?;
        if any.double_value(&[0]) != 0.0 {
            return Err(own.err().unwrap_or(Error::Elsewhere));
        }
    }
    own
}

/// Gathers the numbers of all processes, in the order of their ranks.
///
/// # Errors
/// Fails like [`agreed`].
pub(crate) fn numbers(own: Result<Vec<u64>>, processes: &dyn Collective) -> Result<Vec<Vec<u64>>> {
    let own = agreed(own, processes)?;
    let bytes: Vec<u8> = own.iter().flat_map(|number| number.to_le_bytes()).collect();
    let all = processes.all_gather_bytes(&bytes)?;
    Ok(all.iter().map(|bytes| bytes.chunks_exact(8).map(number).collect()).collect())
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// Gathers the broken images of all processes, in the order of their ranks. No process may return
/// early before this call.
///
/// # Errors
/// Returns an error if a process does not answer.
pub(crate) fn broken(own: &[BrokenImage], processes: &dyn Collective) -> Result<Vec<BrokenImage>> {
    // Names and reasons may contain any character except NUL.
    let line = |image: &BrokenImage| format!("{}\0{}\0{}\0", image.index, image.name, image.reason);
    let own: String = own.iter().map(line).collect();
    let all = processes.all_gather_text(&own)?.concat();
    let fields: Vec<&str> = all.split('\0').collect();
    let image = |fields: &[&str]| {
        let &[index, name, reason] = fields else { return None };
        Some(BrokenImage { index: index.parse().ok()?, name: name.into(), reason: reason.into() })
    };
    Ok(fields.chunks_exact(3).filter_map(image).collect())
}

/// Gathers the features that the processes have extracted, in the order of their ranks and without
/// names of images. A share without readable images has no rows, but is not a failure. A single
/// process gets its own features unchanged.
///
/// # Errors
/// Returns an error in every process if one of them failed, or if none has a readable image.
pub(crate) fn features(
    own: Result<FeatureSet>,
    class_names: &[String],
    processes: &dyn Collective,
) -> Result<FeatureSet> {
    let own = agreed(own, processes)?;
    if processes.size() == 1 {
        return own.not_empty();
    }
    let features = rows(&own.features, processes)?.unwrap_or_else(|| own.features.copy());
    let labels = own.labels.iter().map(|label| label.map_or(u64::MAX, u64::from)).collect();
    let labels = numbers(Ok(labels), processes)?.concat();
    let labels = labels.into_iter().map(|label| u32::try_from(label).ok()).collect();
    let broken = broken(&own.broken, processes)?;
    let set = FeatureSet::new(features, labels);
    FeatureSet { class_names: class_names.to_vec(), broken, ..set }.not_empty()
}

/// Gathers the rows `[n_r, D]` of all processes as `[n, D]` on the CPU, in blocks of bounded size.
/// Returns `None` if there are no rows. A process without rows may have another `D`. No process may
/// return early before this call.
///
/// # Errors
/// Returns an error if a process does not answer.
pub(crate) fn rows(own: &Tensor, processes: &dyn Collective) -> Result<Option<Tensor>> {
    let sizes = processes.all_gather(&Tensor::from_slice(&own.size()))?;
    let sizes = sizes
        .iter()
        .map(|size| Ok(Vec::<i64>::try_from(size)?))
        .collect::<Result<Vec<Vec<i64>>>>()?;
    let most = sizes.iter().map(|size| size[0]).max().unwrap_or(0);
    let width = sizes.iter().map(|size| size[1]).max().unwrap_or(0);
    if most * width == 0 {
        return Ok(None);
    }
    let step = (MOST / width).clamp(1, most);
    let mut parts: Vec<Vec<Tensor>> = sizes.iter().map(|_| Vec::new()).collect();
    for start in (0..most).step_by(step as usize) {
        let rows_of = |size: i64| (size - start).clamp(0, step);
        let piece = Tensor::zeros([step, width], (Kind::Float, Device::Cpu));
        let rows = rows_of(own.size()[0]);
        if rows > 0 {
            piece.narrow(0, 0, rows).copy_(&own.narrow(0, start, rows));
        }
        let gathered = processes.all_gather(&piece)?;
        for ((parts, tensor), size) in parts.iter_mut().zip(gathered).zip(&sizes) {
            let rows = rows_of(size[0]);
            if rows > 0 {
                // A copy, so that the padding of the block is freed.
                parts.push(tensor.narrow(0, 0, rows).copy());
            }
        }
    }
    let parts: Vec<Tensor> = parts.into_iter().flatten().collect();
    Ok(Some(Tensor::f_cat(&parts, 0)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_broken_images_come_back() {
        let single = torch_ext::SingleProcess;
        let own = vec![0, 1, 0x0102_0304_0506_0708, u64::MAX];
        assert_eq!(numbers(Ok(own.clone()), &single).unwrap(), [own]);
        assert!(matches!(numbers(Err(Error::NothingLabeled), &single), Err(Error::NothingLabeled)));
        let image = |index, name: &str| BrokenImage {
            index,
            name: name.into(),
            reason: "two\nlines\tand a tab".into(),
        };
        let images = [image(3, "a b.png"), image(0, "")];
        let same = broken(&images, &single).unwrap();
        assert_eq!(format!("{same:?}"), format!("{images:?}"));
        assert!(broken(&[], &single).unwrap().is_empty());
    }
}
