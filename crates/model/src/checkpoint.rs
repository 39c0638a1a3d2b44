//! Activation checkpointing: the backward pass recomputes the activations of blocks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tch::Tensor;

use crate::block::Block;
use crate::error::Result;
use crate::tokens::Mode;

/// A block that is shared with the backward pass, which for a GPU runs in a libtorch thread.
#[derive(Debug, Clone)]
pub(crate) struct SharedBlock(Arc<Mutex<Block>>);

impl SharedBlock {
    pub(crate) fn new(block: Block) -> Self {
        Self(Arc::new(Mutex::new(block)))
    }

    /// Returns the block. The lock is never contended, because forward and backward passes
    /// alternate.
    pub(crate) fn get(&self) -> MutexGuard<'_, Block> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `blocks` one after the other, `[B, T, D]` to `[B, T, D]`. If `every` is above 0, only the
/// input of each group of `every` blocks is kept for the backward pass.
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
