//! Evaluations that torchrun has started as several processes, which share the extraction of
//! features.

use std::collections::BTreeSet;

use eval::store::ImageFeature;
use protocols::Subject;
use simdino::RunConfig;

use crate::failure::{Failure, Result};
use crate::train::distributed::DistributedContext;

use super::labeled::LabeledArgs;
use super::networks::{Networks, launch};
use super::outcome::check_folders;

/// Computes the features that are not kept yet in all processes of torchrun, if it has started
/// several. Returns whether this process goes on to evaluate them: only the first does.
///
/// # Errors
/// Returns an error if features cannot be computed in this or another process.
pub fn extract(
    args: &LabeledArgs,
    wanted: &BTreeSet<ImageFeature>,
    untrained: bool,
) -> Result<bool> {
    let Some(context) = joined(&args.networks)? else { return Ok(true) };
    let share = (context.launch.rank, context.launch.size);
    let workers = context.workers(None);
    let fill = |subject: &Subject| -> Result<()> {
        let mut images = args.images(subject)?;
        images.workers = Some(workers);
        Ok(images.fill(subject, wanted, untrained, share)?)
    };
    args.networks
        .each(&mut |subject| fill(subject))
        .inspect_err(|failure| context.leave(failure))?;
    context.processes.collective().barrier()?;
    Ok(context.is_first())
}

/// Joins the processes of torchrun; `None` if there is only one.
///
/// # Errors
/// Returns an error if the others cannot be reached, or results cannot be written.
pub fn joined(networks: &Networks) -> Result<Option<DistributedContext>> {
    let Some(launch) = launch()? else { return Ok(None) };
    check_folders(networks)?;
    let mut config = RunConfig::default();
    config.run.device = networks.device;
    Ok(Some(DistributedContext::join(&config, launch, config.run.timeout_s)?))
}

/// Returns an error if torchrun has started several processes.
///
/// # Errors
/// Says which protocols several processes can share.
pub fn refuse() -> Result<()> {
    match launch()? {
        None => Ok(()),
        Some(launch) => Err(Failure::usage(format!(
            "{} processes of torchrun cannot share this protocol: start it once, without torchrun; \
             knn, logistic, linear, in-context, and segment-knn share the extraction of features",
            launch.size
        ))),
    }
}
