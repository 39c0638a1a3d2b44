//! Dense evaluations that torchrun has started as several processes, which share the extraction of
//! features.

use std::path::Path;

use protocols::dense::{DenseImages, fill_maps};

use crate::commands::eval::shared::joined;
use crate::failure::{Failure, Result};

use super::args::DenseArgs;

/// What to do if several processes have no folder to share features in.
const NO_FOLDER: &str = "--features FOLDER: several processes need a folder for features, on a \
                         disk that all of them share";

/// Computes the patch features that are not kept in `folder` yet in all processes of torchrun, if
/// it has started several. `side` is that of the images if the options name none. Returns whether
/// this process goes on to evaluate them: only the first does.
///
/// # Errors
/// Returns an error if features cannot be computed in this or another process, or are not kept.
pub fn extract(
    args: &DenseArgs,
    images: &DenseImages,
    folder: Option<&Path>,
    side: u32,
) -> Result<bool> {
    let Some(context) = joined(&args.networks)? else { return Ok(true) };
    let share = (context.launch.rank, context.launch.size);
    let mut images = images.clone();
    images.workers = Some(context.workers(None));
    let (side, untrained) = (args.crop.unwrap_or(side), !args.skip_untrained);
    let fill_all = || -> Result<()> {
        let folder = folder.ok_or_else(|| Failure::usage(NO_FOLDER))?;
        args.networks.each(&mut |subject| {
            args.check_crop(subject)?;
            Ok(fill_maps(&images, subject, folder, side, untrained, share)?)
        })
    };
    fill_all().inspect_err(|failure| context.leave(failure))?;
    context.processes.collective().barrier()?;
    Ok(context.is_first())
}
