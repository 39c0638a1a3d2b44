//! Labeled images of a training and a test set with matched classes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use tch::Tensor;

use crate::error::{Error, Result};
use crate::features::{FeatureSet, check_images};
use crate::torch_random::TorchRandom;

/// The labeled images of a set.
#[derive(Debug)]
pub(crate) struct Labeled {
    pub features: Tensor, // [n, D]
    pub labels: Vec<u32>, // n
}

impl Labeled {
    /// Returns the labels as a tensor, `[n]` int64 on the CPU.
    pub(crate) fn label_tensor(&self) -> Tensor {
        Tensor::from_slice(&self.labels.iter().map(|&l| i64::from(l)).collect::<Vec<_>>())
    }

    /// Splits the images at random, as PyTorch does after `manual_seed(seed)`. Returns the indices of
    /// the images that are kept and of the fraction `held_out`, both int64.
    pub(crate) fn split(&self, held_out: f64, seed: u64) -> [Tensor; 2] {
        let count = self.labels.len() as i64;
        let order = Tensor::from_slice(&TorchRandom::new(seed).permutation(self.labels.len()));
        let first = (count as f64 * held_out) as i64;
        [order.narrow(0, first, count - first), order.narrow(0, 0, first)]
    }

    /// Returns the images of a range.
    pub(crate) fn range(&self, range: Range<usize>) -> Self {
        let (start, count) = (range.start as i64, range.len() as i64);
        let features = self.features.narrow(0, start, count);
        Self { features, labels: self.labels[range].to_vec() }
    }

    /// Returns the images with these indices, `[m]` int64.
    pub(crate) fn chosen(&self, rows: &Tensor) -> Result<Self> {
        let indices = Vec::<i64>::try_from(rows)?;
        let labels = indices.iter().filter_map(|&i| self.labels.get(i as usize).copied());
        Ok(Self { features: self.features.f_index_select(0, rows)?, labels: labels.collect() })
    }
}

/// Returns the labeled images of both sets with matched classes. Classes are renumbered without
/// gaps in the order of their labels, first those with training images, then those with only test
/// images. The memory needed per class therefore does not depend on the original labels.
pub(crate) fn comparable(
    train: &FeatureSet,
    test: &FeatureSet,
    notes: &mut Vec<String>,
) -> Result<(Labeled, Labeled)> {
    let mut known = labeled(train, "training", notes)?;
    let mut asked = labeled(test, "test", notes)?;
    let (train_width, test_width) = (known.features.size()[1], asked.features.size()[1]);
    if train_width != test_width {
        return Err(Error::Width { train: train_width, test: test_width });
    }
    let classes: BTreeSet<u32> = known.labels.iter().copied().collect();
    if classes.len() < 2 {
        return Err(Error::OneClass { count: known.labels.len() });
    }
    asked.labels = match_classes(train, test, &asked.labels)?;
    note_unseen(&classes, &asked.labels, &train.class_names, notes)?;
    let unseen: BTreeSet<u32> = asked.labels.iter().copied().collect();
    let unseen = unseen.difference(&classes);
    let places: BTreeMap<u32, u32> = classes.iter().chain(unseen).copied().zip(0..).collect();
    for label in known.labels.iter_mut().chain(&mut asked.labels) {
        *label = places[label];
    }
    Ok((known, asked))
}

/// Returns the labeled images of `set`.
fn labeled(set: &FeatureSet, name: &'static str, notes: &mut Vec<String>) -> Result<Labeled> {
    let size = set.features.size();
    if size.len() != 2 || size[0] != set.labels.len() as i64 {
        let expected = "[number of labels, D]";
        return Err(Error::Shape { what: "features", expected, got: size });
    }
    let (rows, labels): (Vec<i64>, Vec<u32>) =
        (0..).zip(&set.labels).filter_map(|(i, label)| label.map(|label| (i, label))).unzip();
    if rows.is_empty() {
        return Err(Error::Unlabeled { set: name });
    }
    check_images(&set.features, name)?;
    let skipped = set.labels.len() - labels.len();
    if skipped > 0 {
        notes.push(format!("{skipped} {name} images have no label and are left out"));
    }
    let rows = Tensor::from_slice(&rows).to_device(set.features.device());
    Ok(Labeled { features: set.features.index_select(0, &rows), labels })
}

/// Returns the test labels in the numbering of the training set. Classes are matched by name. If
/// only one set has names (such as folders called `0` to `9`, while the other is a list of
/// numbers), the names must be the numbers.
fn match_classes(train: &FeatureSet, test: &FeatureSet, labels: &[u32]) -> Result<Vec<u32>> {
    let one_sided = |named, numbered| Error::NamesAndNumbers { named, numbered };
    match (train.class_names.as_slice(), test.class_names.as_slice()) {
        ([], []) => Ok(labels.to_vec()),
        ([], names) => {
            let numbers = as_numbers(names).ok_or(one_sided("test", "train"))?;
            let number = |&label: &u32| numbers.get(label as usize).copied().unwrap_or(label);
            Ok(labels.iter().map(number).collect())
        }
        (names, []) => {
            let numbers = as_numbers(names).ok_or(one_sided("train", "test"))?;
            let labels_by_number: BTreeMap<u32, u32> = numbers.into_iter().zip(0..).collect();
            translated(labels, |label| {
                labels_by_number.get(&label).copied().ok_or(format!("number {label}"))
            })
        }
        (names, others) => {
            let labels_by_name: BTreeMap<&str, u32> =
                names.iter().map(String::as_str).zip(0..).collect();
            translated(labels, |label| {
                let name = others.get(label as usize).ok_or(format!("number {label}"))?;
                labels_by_name.get(name.as_str()).copied().ok_or(name.clone())
            })
        }
    }
}

/// Translates every label to the other numbering. A single error lists all missing classes.
fn translated(
    labels: &[u32],
    translate: impl Fn(u32) -> std::result::Result<u32, String>,
) -> Result<Vec<u32>> {
    let (mut matched, mut unknown) = (Vec::with_capacity(labels.len()), BTreeSet::new());
    for &label in labels {
        match translate(label) {
            Ok(number) => matched.push(number),
            Err(name) => _ = unknown.insert(name),
        }
    }
    if unknown.is_empty() {
        return Ok(matched);
    }
    Err(Error::ClassMismatch { classes: unknown.into_iter().collect::<Vec<_>>().join(", ") })
}

/// Parses names as whole numbers in canonical form, such as `7` but not `07`. Returns `None` if any
/// name is something else.
fn as_numbers(names: &[String]) -> Option<Vec<u32>> {
    let number = |name: &String| name.parse::<u32>().ok().filter(|n| n.to_string() == *name);
    names.iter().map(number).collect()
}

/// Adds a note about test images of classes without training images, which cannot be classified
/// correctly. Fails if there are no others, listing them by name if they are in `names`.
fn note_unseen(
    classes: &BTreeSet<u32>,
    labels: &[u32],
    names: &[String],
    notes: &mut Vec<String>,
) -> Result<()> {
    let unseen = labels.iter().filter(|label| !classes.contains(label)).count();
    if unseen == labels.len() {
        let missing: BTreeSet<u32> = labels.iter().copied().collect();
        let name = |&label: &u32| names.get(label as usize).cloned();
        let named = missing.iter().map(|l| name(l).unwrap_or_else(|| format!("number {l}")));
        return Err(Error::ClassMismatch { classes: named.collect::<Vec<_>>().join(", ") });
    }
    if unseen > 0 {
        notes.push(format!("{unseen} test images belong to classes without training images"));
    }
    Ok(())
}
