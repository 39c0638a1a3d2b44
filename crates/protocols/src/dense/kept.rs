//! Patch features that are kept for the next evaluation.

use std::path::Path;

use eval::segmentation::{self, DenseExtractor, DenseNetwork, Layers, MapStore, Metered};
use eval::store::Network;
use model::VisionTransformer;
use tch::Tensor;

use super::images::{DenseImages, dense_network};
use super::scored::Context;
use crate::error::{Error, Result};
use crate::observer::{Observer, Silent};
use crate::subject::Subject;

/// A network whose patch features may be kept.
enum Extractor<'a> {
    Plain(&'a VisionTransformer),
    Kept(Box<MapStore<'a, VisionTransformer>>),
}

impl<'a> Extractor<'a> {
    /// Returns a network, whose patch features are kept if there is a folder for them.
    fn open(
        folder: Option<&Path>,
        subject: &Subject,
        network: Network<'a>,
        observer: &dyn Observer,
    ) -> Result<Self> {
        let Some(folder) = folder else { return Ok(Self::Plain(network.backbone)) };
        let identity = format!("{} {}", network.fingerprint, subject.precision);
        let store = MapStore::open(network.backbone, &identity, folder).map_err(|source| {
            Error::Features { path: folder.to_owned(), source: Box::new(source) }
        })?;
        if !store.is_empty() {
            let (folder, count) = (folder.display(), store.len());
            observer.note(&format!("{folder}: has {count} maps of patch features"));
        }
        Ok(Self::Kept(Box::new(store)))
    }

    /// Writes the features that are not written yet.
    fn flush(&self) -> Result<()> {
        let Self::Kept(store) = self else { return Ok(()) };
        match store.failure() {
            Some(failure) => Err(Error::Input(failure)),
            None => Ok(store.flush()?),
        }
    }

    /// [`Self::flush`] at the end of a measurement, which is worth more than the features: an error
    /// is a warning.
    fn finish(&self, observer: &dyn Observer) {
        if let Err(error) = self.flush() {
            let why = base::error_chain(&error);
            observer.note(&format!("warning: patch features are not kept: {why}"));
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

/// Measures a network with the patch tokens of its last block, which may be kept in a folder, and,
/// unless it is to be skipped, the same network untrained. The meter is that of the network itself.
pub(super) fn both<T>(
    about: &Context<'_>,
    folder: Option<&Path>,
    skip_untrained: bool,
    measure: impl Fn(DenseNetwork<'_>, Option<&Metered<'_>>) -> Result<T>,
) -> Result<(T, Option<T>)> {
    let Context { subject, observer, .. } = *about;
    let kept = Extractor::open(folder, subject, subject.network(), observer)?;
    let meter = subject.metered(&kept);
    let trained = measure(dense_network(subject, &meter, Layers::Last(1)), Some(&meter))?;
    kept.finish(observer);
    if skip_untrained {
        return Ok((trained, None));
    }
    let random = subject.untrained()?;
    let kept = Extractor::open(folder, subject, random.network(), observer)?;
    let untrained = measure(dense_network(subject, &kept, Layers::Last(1)), None)?;
    Ok((trained, Some(untrained)))
}

/// Computes the share of a process, `(rank, size)`, of the patch features of squares of `side`
/// pixels that are not kept in `folder` yet, and, with `untrained`, of those of the same network
/// untrained. Once all processes have done so, the protocols find them in the folder, which all
/// must see.
///
/// # Errors
/// Returns an error if features cannot be computed or written.
pub fn fill_maps(
    images: &DenseImages,
    subject: &Subject,
    folder: &Path,
    side: u32,
    untrained: bool,
    share: (usize, usize),
) -> Result<()> {
    let random = untrained.then(|| subject.untrained()).transpose()?;
    let sets = images.open(subject, &Silent)?;
    let random = random.iter().map(|random| random.network());
    for network in std::iter::once(subject.network()).chain(random) {
        let kept = Extractor::open(Some(folder), subject, network, &Silent)?;
        let network = dense_network(subject, &kept, Layers::Last(1));
        for data in images.data(&sets) {
            segmentation::fill_maps(&network, &data, side, share)?;
        }
        kept.flush()?;
    }
    Ok(())
}
