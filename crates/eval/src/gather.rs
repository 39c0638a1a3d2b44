//! The features of a set whose images several processes share.

use tch::{Device, Kind, Tensor};
use torch_ext::Collective;

use crate::error::{Error, Result};
use crate::features::FeatureSet;

/// Values that each process sends at once: 64 MB.
const MOST: i64 = 16 << 20;

/// The images of process `rank` out of `size`: neighbors, so that all of them follow each other in the
/// order of the processes.
pub(crate) fn share(chosen: &[usize], collective: &dyn Collective) -> Vec<usize> {
    let (rank, size, count) = (collective.rank(), collective.size(), chosen.len());
    chosen[rank * count / size..(rank + 1) * count / size].to_vec()
}

/// Brings the features that each process has extracted to process 0, in the order of the processes,
/// without names of images and broken images; the others get `None`. A single process gets what it has.
///
/// # Errors
/// Returns an error in every process if it has failed in one, or if none has an image.
pub(crate) fn gather(
    own: Result<FeatureSet>,
    class_names: &[String],
    collective: &dyn Collective,
) -> Result<Option<FeatureSet>> {
    if collective.size() == 1 {
        return own.map(Some);
    }
    // A share without a readable image is one of no rows.
    let failed = own.as_ref().is_err_and(|error| !is_empty(error));
    let mut any = Tensor::from_slice(&[f32::from(u8::from(failed))]);
    collective.all_reduce_max(&mut any)?;
    if any.double_value(&[0]) != 0.0 {
        return Err(own.err().filter(|_| failed).unwrap_or(Error::Elsewhere));
    }
    let (own, empty) = match own {
        Ok(set) => (set, None),
        Err(error) => {
            let nothing = Tensor::zeros([0, 0], (Kind::Float, Device::Cpu));
            (FeatureSet::new(nothing, Vec::new()), Some(error))
        }
    };
    let Some(features) = gather_rows(&own.features, collective)? else {
        return Err(empty.unwrap_or(Error::Elsewhere));
    };
    let labels: Vec<u8> = own.labels.iter().flat_map(|label| encode(*label)).collect();
    let labels = collective.all_gather_bytes(&labels)?;
    if collective.rank() > 0 {
        return Ok(None);
    }
    let labels = labels.iter().flat_map(|bytes| bytes.chunks_exact(8)).map(decode).collect();
    let set = FeatureSet::new(Tensor::cat(&features, 0), labels);
    Ok(Some(FeatureSet { class_names: class_names.to_vec(), ..set }))
}

/// Whether a process has no image that it could read.
fn is_empty(error: &Error) -> bool {
    matches!(error, Error::NoImages { .. } | Error::Data(data::Error::NoReadableImage { .. }))
}

/// The rows `[n_r, D]` of all processes in process 0, in pieces, so that memory is bounded in the others;
/// no piece there. `None` if there is no row.
fn gather_rows(own: &Tensor, collective: &dyn Collective) -> Result<Option<Vec<Tensor>>> {
    let sizes = collective.all_gather(&Tensor::from_slice(&own.size()))?;
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
        let gathered = collective.all_gather(&piece)?;
        if collective.rank() == 0 {
            for ((parts, tensor), size) in parts.iter_mut().zip(gathered).zip(&sizes) {
                parts.push(tensor.narrow(0, 0, rows_of(size[0])));
            }
        }
    }
    Ok(Some(parts.into_iter().flatten().collect()))
}

fn encode(label: Option<u32>) -> [u8; 8] {
    label.map_or(-1, i64::from).to_le_bytes()
}

fn decode(bytes: &[u8]) -> Option<u32> {
    let value = <[u8; 8]>::try_from(bytes).map(i64::from_le_bytes).ok()?;
    u32::try_from(value).ok()
}
