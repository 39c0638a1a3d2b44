//! Opens the dataset of a run, and rejects an unusable one before anything is written.

use std::sync::Arc;

use base::counted;
use data::Dataset;
use trainer::plan::Plan;

use crate::assemble::plan;
use crate::config::{GROUP_ROWS, RunConfig};
use crate::error::{Error, Result};

/// Number of images tried before a dataset counts as unreadable.
const TRIES: usize = 64;

/// Opens the dataset of a run with this number of processes, and plans the steps.
///
/// # Errors
/// Returns an error if the dataset cannot be opened, if none of the images tried can be read, or if
/// there are too few for a batch; the message then suggests numbers that work.
pub fn open_data(config: &RunConfig, processes: usize) -> Result<(Arc<Dataset>, Plan)> {
    let dataset = Arc::new(data::open(&config.data)?);
    let plan = plan_data(config, &dataset, processes)?;
    Ok((dataset, plan))
}

/// Plans the steps of a run on a dataset that is already open.
///
/// # Errors
/// Returns an error if none of the images tried can be read, or if there are too few for a batch.
pub fn plan_data(config: &RunConfig, dataset: &Dataset, processes: usize) -> Result<Plan> {
    if dataset.len() < config.train.batch_size {
        return Err(Error::Batch(batch_too_large(config, dataset.len(), processes)));
    }
    let plan = plan(config, dataset)?;
    ensure_readable(dataset)?;
    Ok(plan)
}

/// Describes what to do about a batch that is larger than the dataset.
fn batch_too_large(config: &RunConfig, images: usize, processes: usize) -> String {
    let (batch, groups) = (config.train.batch_size, config.groups());
    // A batch must consist of whole passes of all processes, and of whole groups of the loss.
    let parts = (config.train.accumulate * processes).max(1);
    let rows =
        config.simdino.group_rows.filter(|_| groups.iter().any(|(key, _)| *key == GROUP_ROWS));
    // A batch that is smaller than `group_rows` forms a single group.
    let whole_groups = rows.filter(|rows| parts > 1 || images >= *rows);
    let counts =
        groups.iter().filter(|(key, _)| *key != GROUP_ROWS).map(|&(_, groups)| groups.max(1));
    let unit = counts.fold(parts.saturating_mul(whole_groups.unwrap_or(1)), least_common_multiple);
    let two = |&(key, groups): &(&str, usize)| if key == GROUP_ROWS { 2 } else { 2 * groups };
    let least = groups.iter().map(two).max().unwrap_or(1).max(unit);
    let fits = images / unit * unit;
    let advice = match fits >= least {
        true if unit == 1 => format!("set train.batch_size={fits}, or add images"),
        true => {
            format!("set train.batch_size={fits} (it must be a multiple of {unit}), or add images")
        }
        // A single group may span all processes.
        false
            if rows.is_some()
                && groups.len() == 1
                && config.train.accumulate == 1
                && images / processes * processes >= 2 =>
        {
            let one = rows.unwrap_or(images).min(images) / processes * processes;
            format!("set train.batch_size={one}, which is one group, or add images")
        }
        false => {
            let value = |&(key, groups): &(&str, usize)| match rows.filter(|_| key == GROUP_ROWS) {
                Some(rows) => format!("{key} = {rows}"),
                None => format!("{key} = {groups}"),
            };
            let keys = groups.iter().map(value);
            let keys: Vec<String> = keys.collect();
            format!(
                "add images; at least {least} are needed with {}",
                if keys.is_empty() { "train.accumulate".to_owned() } else { keys.join(", ") }
            )
        }
    };
    let images = counted(images, "image", "images");
    format!("train.batch_size = {batch} is larger than the dataset of {images}: {advice}")
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x.max(1)).saturating_mul(b)
}

/// Returns an error if none of a few images across the dataset can be read.
fn ensure_readable(dataset: &Dataset) -> Result<()> {
    let tries = dataset.len().min(TRIES);
    let indices = (0..tries).map(|i| i * (dataset.len() / tries));
    let mut first_error = None;
    for index in indices {
        match dataset.image(index) {
            Ok(_) => return Ok(()),
            Err(error) => first_error = first_error.or(Some((index, error))),
        }
    }
    match first_error {
        Some((index, source)) => {
            Err(Error::Unreadable { tries, name: dataset.name(index), source })
        }
        None => Ok(()),
    }
}
