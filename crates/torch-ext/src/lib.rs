//! What tch lacks of libtorch, through a small C++ shim: autocast with a choice of data type,
//! operations on lists of tensors and the fused AdamW step, generator state, memory statistics;
//! and, in `dist`, what several processes need: who they are ([`Launch`]), process groups and the
//! gradient reducer of c10d, the engine under PyTorch's own distributed training
//! ([`ProcessGroup`], [`Reducer`]), behind the interface [`Collective`].
//!
//! The only crate with `unsafe` and the only one with C++. Each function of the shim catches C++
//! exceptions and hands back a message, which becomes an [`Error`]; nothing unwinds across the
//! boundary. It holds no training logic: which tensors, which numbers and when is the caller's.
//!
//! Linking this crate also keeps `libtorch_cuda` in the program, which linkers otherwise drop,
//! so that `tch::Cuda` sees the devices that are there.

mod adamw;
mod autocast;
mod checkpoint;
mod device;
pub mod dist;
mod error;
mod ffi;
mod foreach;
mod memory;
mod read;
mod rng;

pub use adamw::{AdamWStep, fused_adamw_};
pub use autocast::autocast;
pub use checkpoint::checkpoint;
pub use device::{cuda_version, device_name, libtorch_version, set_current_device};
pub use dist::{
    Alone, Collective, Launch, Launcher, Meeting, ProcessGroup, Reducer, ReducerOptions, has_nccl,
    host_name,
};
pub use error::{Error, GroupFailure, Result};
pub use foreach::{drop_gradients, foreach_lerp_, foreach_mul_, foreach_norm};
pub use memory::{DeviceMemory, device_memory, reset_peak_memory};
pub use read::read_into;
pub use rng::{manual_seed, rng_state, set_rng_state};
