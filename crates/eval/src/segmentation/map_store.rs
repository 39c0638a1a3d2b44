//! Patch features that are kept on disk and shared by evaluations.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use model::weights::TensorFile;
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

use super::features::{DenseExtractor, Layers};
use crate::error::{Error, Result, unreadable, unwritten};
use crate::store::short;

/// Number of maps per file. An interrupted extraction loses the work on at most this many images.
const PER_FILE: usize = 64;

/// Identifies the computation of a network. Its details may change with every release, so it
/// contains the version. Between releases, increment the last number with any change to them, or to
/// the order in which random weights are drawn.
const COMPUTATION: &str = concat!(env!("CARGO_PKG_VERSION"), "/1");

/// A network whose patch features are kept in a folder.
///
/// Maps are looked up by the content of the normalized image and by everything else that determines
/// them, so that all protocols share those of equal images. Several processes may use a folder at
/// the same time. Maps take `4 D h w` bytes per image, and those of another version of this crate
/// are not used. If maps cannot be written, they are computed each time, and [`Self::failure`] says
/// why.
#[derive(Debug)]
pub struct MapStore<'a, N> {
    network: &'a N,
    /// Identifies the network and its precision.
    identity: String,
    folder: PathBuf,
    kept: RefCell<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Closed files, because there may be thousands of them.
    files: Vec<PathBuf>,
    /// The file of each map on disk, by the name of the map.
    places: HashMap<String, usize>,
    /// Maps `[D, h, w]` that are not written yet.
    new: BTreeMap<String, Tensor>,
    /// Why maps are no longer kept.
    failure: Option<String>,
}

impl<'a, N: DenseExtractor> MapStore<'a, N> {
    /// Opens or creates the store in `folder`. `identity` must differ between networks, and between
    /// precisions of a network. A file that is damaged is not used, and its maps are computed again.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be created or listed.
    pub fn open(network: &'a N, identity: &str, folder: &Path) -> Result<Self> {
        let identity = format!("{identity} {COMPUTATION}");
        let folder = folder.join(format!("maps-{}", short(Sha256::new_with_prefix(&identity))));
        fs::create_dir_all(&folder).map_err(unwritten(&folder))?;
        let mut kept = Kept::default();
        for entry in fs::read_dir(&folder).map_err(unreadable(&folder))? {
            let path = entry.map_err(unreadable(&folder))?.path();
            if path.extension().is_none_or(|extension| extension != "safetensors") {
                continue;
            }
            match TensorFile::open(&path) {
                Ok(file) => kept.add(&file),
                Err(error @ model::Error::Io { .. }) => return Err(Error::Tensors(error)),
                Err(_) => {} // a damaged file
            }
        }
        let kept = RefCell::new(kept);
        Ok(Self { network, identity, folder, kept })
    }
}

impl<N> MapStore<'_, N> {
    /// Writes the maps that are not written yet.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub fn flush(&self) -> Result<()> {
        let mut kept = self.kept.borrow_mut();
        let Some(first) = kept.new.keys().next() else { return Ok(()) };
        // The names of the maps make the name of the file, so processes do not overwrite files of
        // others, except with the same maps.
        let all = kept.new.keys().fold(Sha256::new(), |hash, name| hash.chain_update(name));
        let path = self.folder.join(format!("{}-{}.safetensors", &first[..8], short(all)));
        let tensors: Vec<(String, Tensor)> = std::mem::take(&mut kept.new).into_iter().collect();
        let about = BTreeMap::from([("network".to_owned(), self.identity.clone())]);
        model::weights::write_safetensors(&path, &tensors, &about).map_err(Error::Tensors)?;
        kept.add(&TensorFile::open(&path).map_err(Error::Tensors)?);
        Ok(())
    }

    /// Returns why maps are no longer kept; `None` if they are.
    pub fn failure(&self) -> Option<String> {
        self.kept.borrow().failure.clone()
    }

    /// Keeps a map, unless an earlier one could not be written.
    fn keep(&self, name: &str, map: &Tensor) {
        let mut kept = self.kept.borrow_mut();
        if kept.failure.is_some() {
            return;
        }
        kept.new.insert(name.to_owned(), map.shallow_clone());
        let full = kept.new.len() >= PER_FILE;
        drop(kept);
        if let Some(error) = full.then(|| self.flush().err()).flatten() {
            self.kept.borrow_mut().failure = Some(base::error_chain(&error));
        }
    }

    /// Returns the number of maps that are on disk.
    pub fn len(&self) -> usize {
        self.kept.borrow().places.len()
    }

    /// Returns whether no map is on disk.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the map of this name on the CPU, if it is known.
    fn find(&self, name: &str) -> Option<Tensor> {
        let kept = self.kept.borrow();
        if let Some(map) = kept.new.get(name) {
            return Some(map.shallow_clone());
        }
        let file = TensorFile::open(kept.files.get(*kept.places.get(name)?)?).ok()?;
        file.read(name).ok().filter(|map| map.kind() == Kind::Float && map.dim() == 3)
    }
}

impl Kept {
    fn add(&mut self, file: &TensorFile) {
        let place = self.files.len();
        self.places.extend(file.tensors().map(|(name, _)| (name.to_owned(), place)));
        self.files.push(file.path().to_owned());
    }
}

impl<N: DenseExtractor> DenseExtractor for MapStore<'_, N> {
    fn maps(&self, images: &Tensor, layers: Layers, class_token: bool) -> Result<Tensor> {
        let names = names(images, layers, class_token)?;
        let mut found: Vec<Option<Tensor>> = names.iter().map(|name| self.find(name)).collect();
        let missing: Vec<i64> =
            (0..).zip(&found).filter(|(_, map)| map.is_none()).map(|(i, _)| i).collect();
        if !missing.is_empty() {
            let rows = Tensor::from_slice(&missing).to_device(images.device());
            let new = self.network.maps(&images.f_index_select(0, &rows)?, layers, class_token)?;
            let new = new.f_to_device(Device::Cpu)?;
            for (row, &i) in (0..).zip(&missing) {
                let map = new.get(row).copy();
                self.keep(&names[i as usize], &map);
                found[i as usize] = Some(map);
            }
        }
        let maps: Vec<Tensor> = found.into_iter().flatten().collect();
        Ok(Tensor::f_stack(&maps, 0)?.f_to_device(images.device())?)
    }

    fn patch_size(&self) -> u32 {
        self.network.patch_size()
    }
}

impl<N> Drop for MapStore<'_, N> {
    /// Writes the rest, without which only time would be lost.
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

/// Returns a name for the map of each of the normalized images `[B, C, H, W]`: a digest of the
/// pixels and of what is computed from them.
fn names(images: &Tensor, layers: Layers, class_token: bool) -> Result<Vec<String>> {
    let size = images.size();
    let images = images.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
    let about = format!("{layers:?} {class_token} {:?}", size.get(1..));
    let mut bytes = vec![0; images.numel() * 4 / (size[0].max(1) as usize)];
    let name = |row: i64| -> Result<String> {
        let image = images.get(row);
        image.f_copy_data_u8(&mut bytes, image.numel())?;
        let digest = Sha256::new_with_prefix(&about).chain_update(&bytes).finalize();
        Ok(digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    };
    (0..size[0]).map(name).collect()
}
