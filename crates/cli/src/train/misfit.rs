//! Explains why the weights of `init.from` do not fit the network of the config.

use model::ModelConfig;
use trainer::config::InitConfig;

use crate::commands::import::name;
use crate::failure::Failure;

/// Converts the error of loading weights of the model `theirs` into a run with the model `ours`.
/// The failure describes both models if their architectures differ, and names the key that would
/// accept a partial match.
pub fn explain(
    error: trainer::Error,
    init: &InitConfig,
    theirs: &ModelConfig,
    ours: &ModelConfig,
) -> Failure {
    let trainer::Error::Model(inner) = &error else { return error.into() };
    let (path, fewer) = match inner {
        model::Error::TooFewMatched { path, matched, total, .. } => {
            (path.display(), (*matched > 0).then_some((*matched, *total)))
        }
        model::Error::Unused { path, .. } if theirs.arch != ours.arch => (path.display(), None),
        _ => return error.into(),
    };
    let accept = fewer.map(|(matched, total)| {
        format!(
            "to load {matched} of {total} tensors and initialize the rest randomly, lower \
             init.min_matched, which is {}",
            init.min_matched
        )
    });
    if theirs.arch != ours.arch {
        let accept = accept.map(|accept| format!("; {accept}")).unwrap_or_default();
        return Failure::failed(format!(
            "init.from: {path} contains {}, but the config has {}: set model.arch={}, or use other \
             weights{accept}",
            sizes(theirs),
            sizes(ours),
            name(theirs.arch)
        ));
    }
    match (inner, accept) {
        (model::Error::TooFewMatched { names, .. }, Some(accept)) => {
            Failure::failed(format!("init.from: {path}: {names}; {accept}"))
        }
        _ => error.into(),
    }
}

/// Describes the size of a network.
fn sizes(model: &ModelConfig) -> String {
    let sizes = model.arch.dimensions();
    format!(
        "a {} (width {}, {} blocks, patch size {})",
        name(model.arch),
        sizes.embed_dim,
        sizes.depth,
        model.patch_size
    )
}
