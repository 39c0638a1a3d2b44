//! Activation checkpointing: blocks whose activations are computed again in the backward pass.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tch::Tensor;

use crate::block::Block;
use crate::error::Result;
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

/// Runs `blocks` one after the other, `[B, T, D]` to `[B, T, D]`. With `every` above 0, only what enters
/// each `every` of them is kept for the backward pass.
///
/// # Source
/// Chen et al., Training Deep Nets with Sublinear Memory Cost (arXiv 1604.06174).
pub(crate) fn run(blocks: &[SharedBlock], x: Tensor, mode: Mode, every: usize) -> Result<Tensor> {
    if every == 0 {
        return Ok(blocks.iter().fold(x, |x, block| block.get().forward(&x, mode)));
    }
    blocks.chunks(every).try_fold(x, |x, part| {
        let params: Vec<Tensor> = part.iter().flat_map(|block| block.get().parameters()).collect();
        let part = part.to_vec();
        let forward = move |x: &Tensor| {
            part.iter().fold(x.shallow_clone(), |x, block| block.get().forward(&x, mode))
        };
        Ok(torch_ext::checkpoint(&x, &params, forward)?)
    })
}
