//! The forward pass of a step: the teacher sees the global views, and the student sees all views.
//!
//! Shapes: `B` images, `V` views of which 2 are global, `N` patches per crop, `m` masked patches
//! in total, `D` width of the backbone, `k` width of the head's output.

use model::{Mode, Network};
use objectives::{GLOBAL_VIEWS, Needs, Outputs};
use tch::{Kind, Tensor};

use crate::error::Result;
use crate::input::{MaskedPatches, Views};

/// Computes the teacher's outputs for the global views, none of them masked, without gradients.
///
/// # Errors
/// Returns an error if the network does not accept the views.
pub(crate) fn teacher(network: &Network, views: &Views, needs: Needs) -> Result<Outputs> {
    tch::no_grad(|| {
        let (cls, patches) = global(network, views, false, Mode::Eval)?;
        outputs(network, &cls, patches.as_ref(), views, needs.backbone || needs.prototypes)
    })
}

/// Computes the student's outputs for all views: one backbone pass per resolution, and one pass of
/// the head.
///
/// # Errors
/// Returns an error if the network does not accept the views.
pub(crate) fn student(network: &Network, views: &Views, needs: Needs) -> Result<Outputs> {
    let mode = Mode::TrainPart(views.part);
    let (mut cls, patches) = global(network, views, true, mode)?;
    if let Some(local) = &views.local {
        let local = network.backbone.forward_cls(local, mode)?;
        cls = Tensor::cat(&[cls, local], 0); // [2 B, D] -> [V B, D]
    }
    outputs(network, &cls, patches.as_ref(), views, needs.backbone)
}

/// Class tokens of the global views, `[2 B, D]`, and their masked patches, `[m, D]`. If no patches
/// are requested, the last block computes none.
fn global(
    network: &Network,
    views: &Views,
    hide: bool,
    mode: Mode,
) -> Result<(Tensor, Option<Tensor>)> {
    let Some(MaskedPatches { masks, indices, .. }) = &views.masks else {
        return Ok((network.backbone.forward_cls(&views.global, mode)?, None));
    };
    let tokens = network.backbone.forward_masked(&views.global, hide.then_some(masks), mode)?;
    let patches = tokens.patches.flatten(0, 1); // [2 B, N, D] -> [2 B N, D]
    Ok((tokens.cls, Some(patches.index_select(0, indices))))
}

/// Applies the heads and splits the result by view.
fn outputs(
    network: &Network,
    cls: &Tensor,
    patches: Option<&Tensor>,
    views: &Views,
    backbone: bool,
) -> Result<Outputs> {
    let (head, patches) = match patches {
        Some(patches) => {
            let (cls, patches) = network.project(cls, patches)?;
            (cls, Some(full(&patches)))
        }
        None => (network.head.forward(cls)?, None),
    };
    let by_view = |x: &Tensor| full(x).view([-1, views.micro_batch_size(), x.size()[1]]);
    let backbone = backbone.then(|| by_view(cls).narrow(0, 0, GLOBAL_VIEWS)); // [2, B, D]
    Ok(Outputs { cls: by_view(&head), patches, backbone }) // [V B, k] -> [V, B, k]
}

/// Converts to single precision if autocast has reduced the precision.
fn full(x: &Tensor) -> Tensor {
    if x.kind() == Kind::Double { x.shallow_clone() } else { x.to_kind(Kind::Float) }
}
