#![doc = include_str!("../README.md")]
//!
//! # Overview
//!
//! A [`Protocol`] measures a [`Subject`] and returns [`Record`](eval::record::Record)s. [`labeled`]
//! has [k-NN](labeled::Knn), [logistic regression](labeled::Logistic), and [linear
//! heads](labeled::Linear); [`dense`] has segmentation [in context](dense::InContext), [by
//! classifiers of patches](dense::SegmentPatches), and [by a linear head](dense::Segment).
//! [`Depth`], [`Retrieval`], [`CopyDetection`], [`MaskCut`], and [`Video`] are the others. An
//! [`Observer`] receives notes, progress, and pictures.

#![forbid(unsafe_code)]
#![warn(missing_debug_implementations, unreachable_pub)]

pub mod dense;
mod depth;
mod error;
pub mod labeled;
mod maskcut;
mod notes;
mod observer;
mod protocol;
mod ranking;
mod subject;
mod video;

pub use depth::{Depth, DepthFolder};
pub use error::{Error, Result};
pub use maskcut::MaskCut;
pub use observer::{Observer, Silent};
pub use protocol::Protocol;
pub use ranking::{CopyDetection, Retrieval};
pub use subject::{Subject, Untrained};
pub use video::Video;
