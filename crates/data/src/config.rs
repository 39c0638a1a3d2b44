//! Config sections about images: where they are and how they are read. Their defaults are defined only
//! here.

use augment::Problem;
use decode::PixelFormat;
use serde::{Deserialize, Serialize};

/// Which reader opens [`DataConfig::path`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// Decide from the path: a folder with tar files or a pattern of them is `shards`, one with
    /// `.parquet` files or a pattern of them is `parquet`, another folder is `folder`, a `.txt`,
    /// `.csv`, `.tsv` or `.jsonl` file is `list`.
    #[default]
    Auto,
    /// A tree of image files; the first folder level names the class where there is one.
    Folder,
    /// A text file that names image files, one per line.
    List,
    /// WebDataset tar or tar.gz shards.
    Shards,
    /// Hugging Face image datasets in parquet files; needs the feature `parquet`.
    Parquet,
    /// Images drawn on the fly from the settings of `data.synthetic`.
    Synthetic,
}

/// Where the images are and how they are read. Section `data`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Reader of `path`; `auto` decides from the path.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub source: SourceKind,
    /// Folder, list file, tar or parquet file, or a pattern (`*`, `{00..99}`) of such files; with the
    /// feature `remote` also an address (`https://`, `s3://`, `gs://`, `az://`) of such files. Required unless `source: synthetic`.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub path: String,
    /// Several sources in place of `path`, each with `path` and, where wanted, `source` and `weight`:
    /// its share of the images of an epoch, in proportion to the other weights.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub mix: Vec<MixEntry>,
    /// For images of more than 8 bits a value (PNG, TIFF): the values that become 0 and 255, those
    /// beyond cut off; `[[low, high]]` for all channels, or a pair for each. Empty: the full range of
    /// the file's type ([0, 1] for floats).
    pub value_range: Vec<[f64; 2]>,
    /// Values of a pixel. No key of a config file: `simdino::config` fills in `model.in_channels`.
    #[serde(skip)]
    pub channels: usize,
    /// What `source: synthetic` draws.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub synthetic: SyntheticConfig,
    /// Threads that decode and augment; 0 = one per core but one, which the training step keeps.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub workers: usize,
    /// Batches prepared ahead of the training step.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub prefetch: usize,
    /// Images with a shorter side, in pixels, count as broken.
    pub min_side: u32,
    /// The run stops when more than this share of the images read so far was broken (0-1).
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub max_bad_fraction: f64,
    /// What is kept in memory from epoch to epoch: `none`, `encoded` (the files) or `decoded` (the
    /// pixels).
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub cache: CacheKind,
    /// Memory in GB for `cache`, of each process; images beyond it are read anew each time.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub cache_gb: f64,
    /// How often a request to a server is tried again.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub remote_retries: u32,
    /// Longest time for one request to a server, its answer included, in seconds.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub remote_timeout_s: f64,
    /// Memory in GB that decompressed `tar.gz` shards may take, of which the rest goes to `spill_dir`, or
    /// decompressed pages of parquet files, of which the rest is read anew.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub shard_cache_gb: f64,
    /// Folder of the temporary files for what passes `shard_cache_gb`; empty: the system's.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub spill_dir: String,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            source: SourceKind::Auto,
            path: String::new(),
            mix: Vec::new(),
            value_range: Vec::new(),
            channels: 3,
            synthetic: SyntheticConfig::default(),
            workers: 0,
            prefetch: 4,
            min_side: 8,
            max_bad_fraction: 0.1,
            cache: CacheKind::None,
            cache_gb: 4.0,
            remote_retries: 5,
            remote_timeout_s: 30.0,
            shard_cache_gb: 4.0,
            spill_dir: String::new(),
        }
    }
}

/// What is cached in memory from epoch to epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CacheKind {
    /// Nothing; the system may keep files.
    #[default]
    None,
    /// Image files as they are: saves reading, where that is slow.
    Encoded,
    /// Pixels: saves decoding too, and takes more memory: five times on photos of 500 x 375.
    Decoded,
}

/// One of several sources that are mixed. An element of `data.mix`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct MixEntry {
    /// Folder, list file, tar or parquet file, or a pattern with `*` of such files.
    pub path: String,
    /// Reader of `path`; `auto` decides from the path.
    pub source: SourceKind,
    /// Share of the images of an epoch, in proportion to the other weights; given to all sources
    /// or to none. Without it each image comes once an epoch.
    pub weight: Option<f64>,
}

/// The synthetic set: ten classes of textured shapes on textured backgrounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SyntheticConfig {
    /// Number of images.
    pub count: usize,
    /// Side of the square images, in pixels.
    pub size: u32,
    /// Seed of the drawing; images of different seeds are independent draws.
    pub seed: u64,
}

impl Default for SyntheticConfig {
    fn default() -> Self {
        Self { count: 4096, size: 64, seed: 0 }
    }
}

impl DataConfig {
    /// Returns every invalid value.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.mix.is_empty() && self.path.is_empty() && self.source != SourceKind::Synthetic {
            problems.push((
                "path",
                "required: a folder, a list file, tar shards or parquet files".into(),
            ));
        }
        problems.extend(self.validate_mix().map(|problem| ("mix", problem)));
        problems.extend(self.validate_pixels().map(|problem| ("value_range", problem)));
        if self.channels != 3 && self.draws() {
            let problem = format!("drawn images are RGB (model.in_channels is {})", self.channels);
            problems.push(("source", problem));
        }
        if self.source == SourceKind::Synthetic && self.synthetic.count == 0 {
            problems.push(("synthetic.count", "must be at least 1 (got 0)".into()));
        }
        if self.source == SourceKind::Synthetic && self.synthetic.size < 16 {
            problems.push((
                "synthetic.size",
                format!("must be at least 16 pixels (got {})", self.synthetic.size),
            ));
        }
        if self.prefetch == 0 {
            problems.push(("prefetch", "must be at least 1 (got 0)".into()));
        }
        if !(0.0..=1.0).contains(&self.max_bad_fraction) {
            problems.push((
                "max_bad_fraction",
                format!("must be between 0 and 1 (got {})", self.max_bad_fraction),
            ));
        }
        if self.cache_gb.is_nan() || self.cache_gb < 0.0 {
            problems.push(("cache_gb", format!("must be 0 or more (got {})", self.cache_gb)));
        }
        if self.remote_timeout_s.is_nan() || self.remote_timeout_s <= 0.0 {
            let got = self.remote_timeout_s;
            problems.push(("remote_timeout_s", format!("must be greater than 0 (got {got})")));
        }
        if self.shard_cache_gb.is_nan() || self.shard_cache_gb < 0.0 {
            problems.push((
                "shard_cache_gb",
                format!("must be 0 or more (got {})", self.shard_cache_gb),
            ));
        }
        problems
    }
}

impl DataConfig {
    /// Describes the images for messages: the path or paths, or "synthetic images".
    pub fn describe(&self) -> String {
        let of = |path: &str, source| match source {
            SourceKind::Synthetic => "synthetic images".to_owned(),
            _ => path.to_owned(),
        };
        if self.mix.is_empty() {
            return of(&self.path, self.source);
        }
        let parts = self.mix.iter().map(|entry| of(&entry.path, entry.source));
        parts.collect::<Vec<_>>().join(" + ")
    }

    /// Returns the pixel format to which images are decoded.
    pub fn pixels(&self) -> PixelFormat {
        PixelFormat { channels: self.channels, value_range: self.value_range.clone() }
    }

    /// Returns the same config for images that are decoded to `pixels`.
    pub fn with_pixels(self, pixels: PixelFormat) -> Self {
        Self { channels: pixels.channels, value_range: pixels.value_range, ..self }
    }

    /// Whether some of the images are synthetic.
    pub fn draws(&self) -> bool {
        let synthetic = |source| source == SourceKind::Synthetic;
        synthetic(self.source) || self.mix.iter().any(|entry| synthetic(entry.source))
    }

    fn validate_pixels(&self) -> Option<String> {
        let (pairs, channels) = (self.value_range.len(), self.channels);
        if pairs > 1 && pairs != channels {
            return Some(format!(
                "give one pair for all channels or one for each of {channels} (got {pairs})"
            ));
        }
        let bad = |[low, high]: &[f64; 2]| !(low < high && low.is_finite() && high.is_finite());
        let bad = self.value_range.iter().find(|&pair| bad(pair))?;
        Some(format!("every pair needs low < high (got {bad:?})"))
    }

    fn validate_mix(&self) -> Option<String> {
        let weighted = self.mix.iter().filter(|entry| entry.weight.is_some()).count();
        let bad = |entry: &MixEntry| entry.weight.is_some_and(|w| !(w > 0.0 && w.is_finite()));
        if !self.mix.is_empty() && !self.path.is_empty() {
            return Some("give either data.path or data.mix, not both".into());
        }
        if self.mix.iter().any(|e| e.path.is_empty() && e.source != SourceKind::Synthetic) {
            return Some("every source needs a path".into());
        }
        if weighted != 0 && weighted != self.mix.len() {
            return Some("give all sources a weight or none".into());
        }
        self.mix.iter().any(bad).then(|| "every weight must be greater than 0".into())
    }
}
