//! Combines several sources into one.

use super::{Notices, Payload, Source, SourcePart};
use crate::error::{Error, Result};
use image::GrayImage;

/// The images of several sources, one source after the other.
///
/// If every source names its classes, classes with the same name are merged. If none does, class
/// numbers are kept. Otherwise there are no labels.
pub struct Mix {
    sources: Vec<Box<dyn Source>>,
    /// Prefix of each source for the names of its images.
    prefixes: Vec<String>,
    /// Index of each source's first image.
    starts: Vec<usize>,
    len: usize,
    parts: Vec<SourcePart>,
    labels: MixedLabels,
}

enum MixedLabels {
    /// Names of all classes; and for each source, a map from its classes to these.
    Named(Vec<String>, Vec<Vec<u32>>),
    Numbers,
    None,
}

impl std::fmt::Debug for Mix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mix")
            .field("prefixes", &self.prefixes)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl Mix {
    /// Combines `sources`, each with a prefix for the names of its images and an optional weight.
    /// The number of a source's images in an epoch is proportional to its weight; without weights,
    /// each image occurs once.
    ///
    /// # Errors
    /// Returns an error if some sources have a weight and others do not, or if a weight is not
    /// finite and above 0.
    pub fn new(sources: Vec<(String, Box<dyn Source>, Option<f64>)>) -> Result<Self> {
        let (mut starts, mut len) = (Vec::new(), 0);
        let lens: Vec<usize> = sources.iter().map(|(_, source, _)| source.len()).collect();
        for count in &lens {
            starts.push(len);
            len += count;
        }
        let weights: Vec<Option<f64>> = sources.iter().map(|(_, _, weight)| *weight).collect();
        let parts = shares(&lens, &weights)?;
        let (prefixes, sources): (Vec<_>, Vec<_>) =
            sources.into_iter().map(|(prefix, source, _)| (prefix, source)).unzip();
        let labels = mixed_labels(&sources);
        Ok(Self { sources, prefixes, starts, len, parts, labels })
    }

    /// Returns the number of the source of image `index`, and the index of the image in that
    /// source.
    fn find(&self, index: usize) -> Option<(usize, usize)> {
        let source = self.starts.partition_point(|&start| start <= index).checked_sub(1)?;
        (index < self.len).then(|| (source, index - self.starts[source]))
    }
}

/// Returns how many images of an epoch come from each source. The total number of images is divided
/// by weight; what is left after rounding down goes to the largest remainders.
fn shares(lens: &[usize], weights: &[Option<f64>]) -> Result<Vec<SourcePart>> {
    let problem = |problem: &str| Error::Config { key: "data.mix", problem: problem.into() };
    let part = |(&len, per_epoch)| SourcePart { len, per_epoch };
    if weights.iter().all(Option::is_none) {
        return Ok(lens.iter().zip(lens.iter().copied()).map(part).collect());
    }
    let weights: Option<Vec<f64>> = weights.iter().copied().collect();
    let weights = weights.ok_or_else(|| problem("set the weight of all sources or of none"))?;
    if weights.iter().any(|&weight| !(weight > 0.0 && weight.is_finite())) {
        return Err(problem("every weight must be greater than 0"));
    }
    let (total, sum) = (lens.iter().sum::<usize>(), weights.iter().sum::<f64>());
    let exact: Vec<f64> = weights.iter().map(|weight| total as f64 * (weight / sum)).collect();
    let mut counts: Vec<usize> = exact.iter().map(|count| count.floor() as usize).collect();
    let mut order: Vec<usize> = (0..counts.len()).collect();
    order.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()).then(a.cmp(&b)));
    let missing = total.saturating_sub(counts.iter().sum());
    order.iter().cycle().take(missing).for_each(|&i| counts[i] += 1);
    Ok(lens.iter().zip(counts).map(part).collect())
}

fn mixed_labels(sources: &[Box<dyn Source>]) -> MixedLabels {
    let named = sources.iter().filter(|source| !source.class_names().is_empty()).count();
    if named == 0 {
        return MixedLabels::Numbers;
    }
    if named < sources.len() {
        return MixedLabels::None;
    }
    let mut names: Vec<String> =
        sources.iter().flat_map(|source| source.class_names().iter().cloned()).collect();
    names.sort_unstable();
    names.dedup();
    let class = |name: &String| names.binary_search(name).unwrap_or_default() as u32;
    let maps = sources.iter().map(|s| s.class_names().iter().map(class).collect()).collect();
    MixedLabels::Named(names, maps)
}

impl Source for Mix {
    fn kind(&self) -> &'static str {
        "mix"
    }

    fn len(&self) -> usize {
        self.len
    }

    fn name(&self, index: usize) -> String {
        let Some((source, place)) = self.find(index) else { return String::new() };
        format!("{}/{}", self.prefixes[source], self.sources[source].name(place))
    }

    fn label(&self, index: usize) -> Option<u32> {
        let (source, place) = self.find(index)?;
        let label = self.sources[source].label(place)?;
        match &self.labels {
            MixedLabels::Named(_, maps) => maps[source].get(label as usize).copied(),
            MixedLabels::Numbers => Some(label),
            MixedLabels::None => None,
        }
    }

    fn class_names(&self) -> &[String] {
        match &self.labels {
            MixedLabels::Named(names, _) => names,
            MixedLabels::Numbers | MixedLabels::None => &[],
        }
    }

    fn load(&self, index: usize) -> Result<Payload> {
        let (source, place) = self.find(index).ok_or(Error::Index { index, len: self.len })?;
        self.sources[source].load(place)
    }

    /// Depends on the fingerprints of the sources and their numbers of images per epoch, but not on
    /// their paths, so a mix may be moved if its sources may.
    fn fingerprint(&self) -> String {
        let parts = self.sources.iter().zip(&self.parts);
        super::digest(parts.map(|(s, part)| (s.fingerprint(), None, part.per_epoch as u64)))
    }

    fn mask(&self, index: usize) -> Option<GrayImage> {
        let (source, place) = self.find(index)?;
        self.sources[source].mask(place)
    }

    fn notices(&self) -> Notices {
        let mut all = Notices::default();
        for (prefix, source) in self.prefixes.iter().zip(&self.sources) {
            all.append(&format!("{prefix}/"), source.notices());
        }
        all
    }

    fn parts(&self) -> Vec<SourcePart> {
        self.parts.clone()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(lens: &[usize], weights: &[f64]) -> Vec<usize> {
        let weights: Vec<_> = weights.iter().copied().map(Some).collect();
        shares(lens, &weights).unwrap().iter().map(|part| part.per_epoch).collect()
    }

    #[test]
    fn shares_follow_the_weights() {
        assert_eq!(counts(&[90, 10], &[1.0, 1.0]), [50, 50]);
        assert_eq!(counts(&[5, 5], &[2.0, 1.0]), [7, 3]);
        assert_eq!(counts(&[4, 4, 3], &[1e-9, 1.0, 1.0]), [0, 6, 5]);
        assert!(shares(&[1, 1], &[Some(1.0), None]).is_err());
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(shares(&[1, 1], &[Some(1.0), Some(bad)]).is_err());
        }
        let whole = shares(&[3, 4], &[None, None]).unwrap();
        assert!(whole.iter().all(|part| part.len == part.per_epoch));
    }

    proptest! {
        #[test]
        fn an_epoch_is_as_long_as_the_set(
            parts in proptest::collection::vec((1_usize..1000, 0.01_f64..100.0), 1..6),
        ) {
            let (lens, weights): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
            let counts = counts(&lens, &weights);
            prop_assert_eq!(counts.iter().sum::<usize>(), lens.iter().sum::<usize>());
            let (total, sum) = (lens.iter().sum::<usize>() as f64, weights.iter().sum::<f64>());
            for (count, weight) in counts.iter().zip(&weights) {
                prop_assert!((*count as f64 - total * weight / sum).abs() < 1.001);
            }
        }
    }
}
