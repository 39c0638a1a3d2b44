#![doc = include_str!("../README.md")]
//!
//! # Overview
//!
//! Start with [`autocast`], [`fused_adamw_`], [`checkpoint`], and [`Uploader`]; for transformer
//! blocks, with [`fused`]; for several processes, with [`Launch`], [`ProcessGroup`], and
//! [`Reducer`], which share the interface [`Collective`].

#![warn(unreachable_pub)]

mod adamw;
mod autocast;
mod checkpoint;
mod cpu_attention;
mod device;
mod dist;
mod error;
mod ffi;
mod foreach;
pub mod fused;
mod graph;
mod memory;
mod numerics;
mod parallel;
mod profiler;
mod read;
mod rng;
mod transfer;
mod unit_rows;
mod values;

pub use adamw::{AdamWStep, fused_adamw_};
pub use autocast::{autocast, autocast_kind};
pub use checkpoint::checkpoint;
pub use cpu_attention::{cpu_attention, has_cpu_attention};
pub use device::{cuda_version, device_name, libtorch_version, set_current_device};
pub use dist::{
    Collective, Count, Launch, Launcher, ProcessGroup, Reducer, ReducerOptions, Rendezvous,
    SingleProcess, Traffic, has_nccl, host_name,
};
pub use error::{Error, GroupFailure, Result};
pub use foreach::{drop_gradients, foreach_lerp_, foreach_mul_, foreach_norm};
pub use graph::CudaGraph;
pub use memory::{DeviceMemory, device_memory, reset_peak_memory};
pub use numerics::{is_deterministic, set_deterministic, tf32_allowed, with_tf32};
pub use parallel::in_parallel;
pub use profiler::profile;
pub use read::read_into;
pub use rng::{manual_seed, rng_state, set_rng_state};
pub use transfer::{HostBuffer, HostPool, Upload, Uploader};
pub use unit_rows::unit_rows;
pub use values::{with_bf16, with_values};
