//! The features of a part of a dataset's images, in one file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use data::loader::BrokenImage;
use tch::{Device, Kind, Tensor};

use super::feature::ImageFeature;
use crate::error::{Error, Result, unwritten};

/// Name of the tensor with the indices of the images that have a row.
const INDICES: &str = "indices";
/// Key in the file's metadata of the images that could not be read, as JSON.
const BROKEN: &str = "broken";

/// The rows of consecutive chosen images.
#[derive(Debug)]
pub(super) struct Part {
    path: Option<PathBuf>,
    chosen: Vec<usize>,
    indices: Vec<usize>,
    broken: Vec<BrokenImage>,
    features: BTreeMap<ImageFeature, Vec<Tensor>>,
    /// Whether the file contains everything in this part.
    written: bool,
}

impl Part {
    /// Opens part `number`, which covers the images `chosen`, at least one. If the folder has a
    /// readable file of these images with all `wanted` features, the part takes its rows;
    /// otherwise, it is empty. Images that could not be read are [missing](Self::missing) again,
    /// because the disk may have failed or the files may have been repaired.
    pub(super) fn open(
        folder: Option<&Path>,
        number: usize,
        chosen: Vec<usize>,
        wanted: &BTreeSet<ImageFeature>,
    ) -> Self {
        let path = folder.map(|folder| folder.join(format!("part-{number:05}.safetensors")));
        let empty = Self {
            path,
            chosen,
            indices: Vec::new(),
            broken: Vec::new(),
            features: BTreeMap::new(),
            written: false,
        };
        // A file that is damaged or lacks a feature will be replaced.
        empty.read(wanted).unwrap_or(empty)
    }

    fn read(&self, wanted: &BTreeSet<ImageFeature>) -> Option<Self> {
        let path = self.path.as_ref().filter(|path| path.is_file())?;
        let mut file = model::weights::read_safetensors(path).ok()?;
        let indices = Vec::<i64>::try_from(file.tensors.get(INDICES)?).ok()?;
        let indices: Vec<usize> = indices.iter().map(|&i| i as usize).collect();
        let broken: Vec<(usize, String, String)> =
            serde_json::from_str(file.metadata.get(BROKEN)?).ok()?;
        let unreadable = broken.iter().map(|&(index, ..)| index);
        let known: BTreeSet<usize> = indices.iter().copied().chain(unreadable).collect();
        let all: BTreeSet<usize> = self.chosen.iter().copied().collect();
        let mut features = BTreeMap::new();
        // If no image could be read, there are no rows, and the feature width is unknown.
        for &feature in wanted.iter().filter(|_| !indices.is_empty()) {
            let rows = file.tensors.remove(&feature.name())?;
            let fits = rows.dim() == 2 && rows.size()[0] == indices.len() as i64;
            if !fits || rows.kind() != Kind::Float {
                return None;
            }
            features.insert(feature, vec![rows]);
        }
        let (path, chosen, broken) = (self.path.clone(), self.chosen.clone(), Vec::new());
        (known == all).then_some(Self { path, chosen, indices, broken, features, written: true })
    }

    /// Returns the indices of the images, readable or not.
    pub(super) fn chosen(&self) -> &[usize] {
        &self.chosen
    }

    /// Returns whether the image belongs to this part or an earlier one.
    pub(super) fn holds(&self, index: usize) -> bool {
        self.chosen.last().is_some_and(|&last| index <= last)
    }

    /// Adds the images `indices`, whose rows in `features` start at `row`.
    pub(super) fn push(
        &mut self,
        indices: &[usize],
        features: &BTreeMap<ImageFeature, Tensor>,
        row: usize,
    ) {
        if indices.is_empty() {
            return;
        }
        self.written = false;
        self.indices.extend_from_slice(indices);
        for (&feature, rows) in features {
            let rows = rows.narrow(0, row as i64, indices.len() as i64);
            self.features.entry(feature).or_default().push(rows);
        }
    }

    /// Returns the images without a row that are not known to be broken.
    pub(super) fn missing(&self) -> Vec<usize> {
        let broken = self.broken.iter().map(|image| image.index);
        let known: BTreeSet<usize> = self.indices.iter().copied().chain(broken).collect();
        self.chosen.iter().copied().filter(|index| !known.contains(index)).collect()
    }

    pub(super) fn push_broken(&mut self, image: BrokenImage) {
        self.broken.push(image);
    }

    /// Copies the rows to the CPU, sorts them, and writes the file, unless it is complete already.
    pub(super) fn finish(&mut self) -> Result<()> {
        if self.written {
            return Ok(());
        }
        self.written = true;
        // Images that only became readable in this run are at the end.
        let mut order: Vec<i64> = (0..self.indices.len() as i64).collect();
        order.sort_by_key(|&row| self.indices[row as usize]);
        self.indices.sort_unstable();
        let order = Tensor::from_slice(&order);
        for rows in self.features.values_mut() {
            let parts: Vec<Tensor> = rows
                .iter()
                .map(|rows| rows.f_to_device(Device::Cpu))
                .collect::<std::result::Result<_, _>>()?;
            *rows = vec![Tensor::f_cat(&parts, 0)?.f_index_select(0, &order)?];
        }
        let Some(path) = &self.path else { return Ok(()) };
        let indices: Vec<i64> = self.indices.iter().map(|&index| index as i64).collect();
        let mut tensors = kept(path, &indices);
        tensors.insert(INDICES.to_owned(), Tensor::from_slice(&indices));
        for (feature, rows) in &self.features {
            tensors.extend(rows.iter().map(|rows| (feature.name(), rows.shallow_clone())));
        }
        let tensors: Vec<_> = tensors.into_iter().collect();
        let broken: Vec<_> = self.broken.iter().map(|b| (b.index, &b.name, &b.reason)).collect();
        let broken = serde_json::to_string(&broken).map_err(unwritten(path))?;
        let header = BTreeMap::from([(BROKEN.to_owned(), broken)]);
        model::weights::write_safetensors(path, &tensors, &header).map_err(Error::Tensors)
    }

    /// Returns the image index of each row, the rows of each feature, and the broken images.
    pub(super) fn into_contents(
        self,
    ) -> (Vec<usize>, Vec<(ImageFeature, Tensor)>, Vec<BrokenImage>) {
        let features = self.features.into_iter();
        let rows = features.flat_map(|(feature, rows)| rows.into_iter().map(move |r| (feature, r)));
        (self.indices, rows.collect(), self.broken)
    }
}

/// Returns the tensors of a file that is about to be replaced, if they belong to the same images.
fn kept(path: &Path, indices: &[i64]) -> BTreeMap<String, Tensor> {
    let tensors = model::weights::read_safetensors(path).map(|file| file.tensors);
    let tensors = tensors.unwrap_or_default();
    let same = tensors.get(INDICES).is_some_and(|old| *old == Tensor::from_slice(indices));
    if same { tensors } else { BTreeMap::new() }
}
