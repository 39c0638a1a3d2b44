//! Patch features that are kept for the next evaluation.

use std::path::PathBuf;

use eval::segmentation::{DenseExtractor, Layers, MapStore};
use eval::store::Network;
use model::VisionTransformer;
use tch::Tensor;

use crate::commands::eval::networks::Opened;
use crate::console::note;
use crate::failure::{Context, Failure, Result};

/// The folder of patch features, for protocols that spend most of their time on computing them.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct KeptMaps {
    /// Folder that keeps the patch features of all images for the next evaluation: 1.2 MB per image
    /// with ViT-S/16 and 448 pixels, and as much again for the same network untrained
    #[arg(long, value_name = "FOLDER")]
    pub features: Option<PathBuf>,
}

/// A network whose patch features may be kept.
pub enum Extractor<'a> {
    Plain(&'a VisionTransformer),
    Kept(Box<MapStore<'a, VisionTransformer>>),
}

impl KeptMaps {
    /// Returns a network, whose patch features are kept if there is a folder for them.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be used.
    pub fn extractor<'a>(&self, opened: &Opened, network: Network<'a>) -> Result<Extractor<'a>> {
        let Some(folder) = &self.features else { return Ok(Extractor::Plain(network.backbone)) };
        let identity = format!("{} {}", network.fingerprint, opened.precision);
        let store = MapStore::open(network.backbone, &identity, folder)
            .context(|| format!("--features {}", folder.display()))?;
        if !store.is_empty() {
            let count = store.len();
            note(&format!("{}: {count} maps of patch features are kept", folder.display()));
        }
        Ok(Extractor::Kept(Box::new(store)))
    }
}

impl Extractor<'_> {
    /// Writes the features that are not written yet.
    ///
    /// # Errors
    /// Returns an error if features could not be written.
    pub fn flush(&self) -> Result<()> {
        let Self::Kept(store) = self else { return Ok(()) };
        match store.failure() {
            Some(failure) => Err(Failure::failed(failure)),
            None => Ok(store.flush()?),
        }
    }

    /// [`Self::flush`] at the end of a measurement, which is worth more than the features: an error
    /// is a warning.
    pub fn finish(&self) {
        if let Err(failure) = self.flush() {
            let why = failure.lines().join("; ");
            note(&format!("warning: patch features are not kept: {why}"));
        }
    }

    fn network(&self) -> &dyn DenseExtractor {
        match self {
            Self::Plain(network) => *network,
            Self::Kept(store) => &**store,
        }
    }
}

impl DenseExtractor for Extractor<'_> {
    fn maps(&self, images: &Tensor, layers: Layers, class_token: bool) -> eval::Result<Tensor> {
        self.network().maps(images, layers, class_token)
    }

    fn patch_size(&self) -> u32 {
        self.network().patch_size()
    }
}
