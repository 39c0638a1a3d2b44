//! Activation checkpointing: blocks whose activations are computed again in the backward pass.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tch::{Kind, Tensor};
use torch_ext::fused;

use crate::block::Block;
use crate::error::Result;
use crate::stream::Stream;
use crate::tokens::Mode;

/// A block that the backward pass reaches too, on a GPU from a thread of libtorch.
#[derive(Debug, Clone)]
pub(crate) struct SharedBlock(Arc<Mutex<Block>>);

impl SharedBlock {
    pub(crate) fn new(block: Block) -> Self {
        Self(Arc::new(Mutex::new(block)))
    }

    /// The block; nobody waits, since forward and backward passes take turns.
    pub(crate) fn get(&self) -> MutexGuard<'_, Block> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `blocks` one after the other, `[B, T, D]` to `[B, T, D]`. While training, with `every` above
/// 0, only what enters each `every` of them is kept.
///
/// # Source
/// Chen et al., Training Deep Nets with Sublinear Memory Cost (arXiv 1604.06174).
pub(crate) fn run(blocks: &[SharedBlock], x: Tensor, mode: Mode, every: i64) -> Result<Stream> {
    let Some(every) = usize::try_from(every).ok().filter(|&n| n > 0 && mode == Mode::Train) else {
        return match fusible(blocks, &x, mode) {
            Some(kind) => blocks.iter().try_fold(Stream::from(x), |stream, block| {
                block.get().forward_fused(stream, kind, mode)
            }),
            None => Ok(blocks.iter().fold(x, |x, block| block.get().forward(&x, mode)).into()),
        };
    };
    let x = blocks.chunks(every).try_fold(x, |x, part| {
        let params: Vec<Tensor> = part.iter().flat_map(|block| block.get().parameters()).collect();
        let part = part.to_vec();
        let forward = move |x: &Tensor| {
            part.iter().fold(x.shallow_clone(), |x, block| block.get().forward(&x, mode))
        };
        torch_ext::checkpoint(&x, &params, forward)
    })?;
    Ok(x.into())
}

/// The type of activations, where all blocks compute by fused steps.
pub(crate) fn fusible(blocks: &[SharedBlock], x: &Tensor, mode: Mode) -> Option<Kind> {
    let kind = torch_ext::autocast_kind(x.device())?;
    let supported = fused::supported(x.device(), x.size()[2]).is_ok();
    (supported && blocks.iter().all(|block| block.get().is_fusible(x, kind, mode))).then_some(kind)
}
