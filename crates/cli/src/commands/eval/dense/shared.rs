//! Dense evaluations that torchrun has started as several processes, which share the extraction of
//! features.

use eval::segmentation::{Layers, fill_maps};

use crate::commands::eval::shared::joined;
use crate::commands::eval::subject::NO_FOLDER;
use crate::failure::{Failure, Result};

use super::kept::KeptMaps;
use super::subject::DenseSubject;

/// Computes the patch features that are not kept yet in all processes of torchrun, if it has
/// started several. `side` is that of the images if the options name none. Returns whether this
/// process goes on to evaluate them: only the first does.
///
/// # Errors
/// Returns an error if features cannot be computed in this or another process, or are not kept.
pub fn extract(subject: &DenseSubject, maps: &KeptMaps, side: u32) -> Result<bool> {
    let Some(context) = joined(&subject.networks)? else { return Ok(true) };
    let share = (context.launch.rank, context.launch.size);
    let side = subject.crop().unwrap_or(side);
    fill(subject, maps, side, share, context.workers(None))
        .inspect_err(|failure| context.leave(failure))?;
    context.processes.collective().barrier()?;
    Ok(context.is_first())
}

fn fill(
    subject: &DenseSubject,
    maps: &KeptMaps,
    side: u32,
    share: (usize, usize),
    workers: usize,
) -> Result<()> {
    if maps.features.is_none() {
        return Err(Failure::usage(NO_FOLDER));
    }
    subject.networks.each(&mut |_, opened| {
        let untrained = (!subject.skip_untrained).then(|| opened.untrained()).transpose()?;
        let sets = subject.sets(opened)?;
        let untrained = untrained.iter().map(|untrained| untrained.network());
        for network in std::iter::once(opened.network()).chain(untrained) {
            let kept = maps.extractor(opened, network)?;
            let network = subject.network(opened, &kept, Layers::Last(1));
            for mut data in subject.data(&sets) {
                data.workers = Some(workers);
                fill_maps(&network, &data, side, share)?;
            }
            kept.flush()?;
        }
        Ok(())
    })
}
