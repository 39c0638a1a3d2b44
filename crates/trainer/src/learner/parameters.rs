//! The tensors that a step trains, changes, and measures.

use objectives::Needs;
use tch::{Device, Tensor};

use crate::branch::Branch;
use crate::error::Result;

/// Returns the student's parameters that the objective reaches, by name.
pub(super) fn trainable(student: &Branch, needs: Needs) -> Vec<(String, Tensor)> {
    // Without masked patches, the mask token is not used and would have no gradient.
    let reached = |name: &str| needs.patches || name != "backbone.mask_token";
    let named = student.named().into_iter();
    named.filter(|(name, p)| p.requires_grad() && reached(name)).collect()
}

/// Selects the attention of the first, middle, and last block: enough to see how fast weights
/// change, and little to copy.
pub(super) fn tracked(named: &[(String, Tensor)], depth: i64) -> Vec<Tensor> {
    let blocks = [0, depth / 2, depth - 1];
    let names = blocks.map(|block| format!("backbone.blocks.{block}.attn.qkv.weight"));
    let found = named.iter().filter(|(name, _)| names.contains(name));
    found.map(|(_, matrix)| matrix.shallow_clone()).collect()
}

/// Returns the running means and variances of batch norm in these networks.
pub(super) fn running_statistics(sides: [&Branch; 2]) -> Vec<Tensor> {
    let named = sides.into_iter().flat_map(Branch::named);
    let is_statistic =
        |name: &str| ["running_mean", "running_var"].iter().any(|of| name.ends_with(of));
    named.filter(|(name, _)| is_statistic(name)).map(|(_, tensor)| tensor).collect()
}

/// Gives tensors the values of their [`copies`].
pub(super) fn restore(tensors: &[Tensor], copies: &[Tensor]) {
    tch::no_grad(|| {
        for (tensor, copy) in tensors.iter().zip(copies) {
            tensor.shallow_clone().copy_(copy);
        }
    });
}

pub(super) fn copies(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(|tensor| tensor.detach().copy()).collect()
}

/// Moves state to the device of the learner, because a checkpoint is read to the CPU.
pub(super) fn moved(state: Vec<(String, Tensor)>, device: Device) -> Result<Vec<(String, Tensor)>> {
    state.into_iter().map(|(name, value)| Ok((name, value.f_to_device(device)?))).collect()
}

/// Returns the mean of `|after - before| / |before|`; 0-dimensional.
pub(super) fn update_ratio(before: &[Tensor], after: &[Tensor]) -> Tensor {
    let ratio = |(before, after): (&Tensor, &Tensor)| {
        (after.detach() - before).norm() / before.norm().clamp_min(f64::MIN_POSITIVE)
    };
    let ratios: Vec<Tensor> = before.iter().zip(after).map(ratio).collect();
    Tensor::stack(&ratios, 0).mean(None)
}
