//! The forward pass of a step: the teacher sees the global views, and the student sees all views.
//!
//! Shapes: `B` images, `V` views of which 2 are global, `N` patches per crop, `m` masked patches
//! in total, `D` width of the backbone, `k` width of the head's output.

use model::{ImageRange, Mode, Network};
use objectives::{GLOBAL_VIEWS, Outputs};
use tch::{Kind, Tensor};

use crate::error::Result;
use crate::input::Views;

/// The inputs of the backbones.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Global views, `[2 B, C, S, S]`.
    pub global: Tensor,
    /// Local views, `[V_l B, C, s, s]`.
    pub local: Option<Tensor>,
    /// Masks of the global views, `[2 B, N]` bool, if the objective requires patches.
    pub masks: Option<Tensor>,
    /// Which images of the step these are.
    pub part: ImageRange,
}

impl Seen {
    /// Returns the inputs in the views of a step, sharing their tensors.
    pub(crate) fn of(views: &Views) -> Self {
        Self {
            global: views.global.shallow_clone(),
            local: views.local.as_ref().map(Tensor::shallow_clone),
            masks: views.masks.as_ref().map(|masks| masks.masks.shallow_clone()),
            part: views.part,
        }
    }
}

/// The outputs of a backbone.
#[derive(Debug)]
pub(crate) struct Features {
    /// Class tokens of the views that the network sees, `[2 B, D]` or `[V B, D]`.
    pub cls: Tensor,
    /// All patches of the global views, `[2 B N, D]`, if there are masks; without masks, the last
    /// block does not compute them.
    pub patches: Option<Tensor>,
}

/// Computes the teacher's features of the unmasked global views, without gradients.
///
/// # Errors
/// Returns an error if the network does not accept the views.
pub(crate) fn teacher(network: &Network, seen: &Seen) -> Result<Features> {
    tch::no_grad(|| global(network, seen, None, Mode::Eval))
}

/// Computes the student's features of all views, in one pass per resolution.
///
/// # Errors
/// Returns an error if the network does not accept the views.
pub(crate) fn student(network: &Network, seen: &Seen) -> Result<Features> {
    let mode = Mode::TrainPart(seen.part);
    let Features { mut cls, patches } = global(network, seen, seen.masks.as_ref(), mode)?;
    if let Some(local) = &seen.local {
        let local = network.backbone.forward_cls(local, mode)?;
        cls = Tensor::cat(&[cls, local], 0); // [2 B, D] -> [V B, D]
    }
    Ok(Features { cls, patches })
}

/// Computes the features of the global views; `hidden` masks their patches.
fn global(network: &Network, seen: &Seen, hidden: Option<&Tensor>, mode: Mode) -> Result<Features> {
    if seen.masks.is_none() {
        let cls = network.backbone.forward_cls(&seen.global, mode)?;
        return Ok(Features { cls, patches: None });
    }
    let tokens = network.backbone.forward_masked(&seen.global, hidden, mode)?;
    let patches = tokens.patches.flatten(0, 1); // [2 B, N, D] -> [2 B N, D]
    Ok(Features { cls: tokens.cls, patches: Some(patches) })
}

/// Applies the heads to class tokens and masked patches, and splits the result by view. With
/// `backbone`, also returns the class tokens of the global views before the head.
///
/// # Errors
/// Returns an error if the features do not fit the heads.
pub(crate) fn heads(
    network: &Network,
    features: &Features,
    views: &Views,
    backbone: bool,
) -> Result<Outputs> {
    let Features { cls, patches } = features;
    let (head, patches) = match patches.as_ref().zip(views.masks.as_ref()) {
        Some((patches, masks)) => {
            let masked = patches.index_select(0, &masks.indices); // [2 B N, D] -> [m, D]
            let (cls, patches) = network.project(cls, &masked)?;
            (cls, Some(full(&patches)))
        }
        None => (network.head.forward(cls)?, None),
    };
    let by_view = |x: &Tensor| full(x).view([-1, views.micro_batch_size(), x.size()[1]]);
    let backbone = backbone.then(|| by_view(cls).narrow(0, 0, GLOBAL_VIEWS)); // [2, B, D]
    Ok(Outputs { cls: by_view(&head), patches, backbone }) // [V B, k] -> [V, B, k]
}

/// Converts to single precision; double precision stays as it is.
fn full(x: &Tensor) -> Tensor {
    if x.kind() == Kind::Double { x.shallow_clone() } else { x.to_kind(Kind::Float) }
}
