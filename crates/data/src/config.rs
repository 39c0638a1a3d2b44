//! Config sections about images: where they are and how they are read. Their defaults are defined
//! only here.

use base::check::{Check, Problem};
use decode::PixelFormat;
use serde::{Deserialize, Serialize};

/// More threads than any machine has cores for: a system may refuse to start them.
const MOST_WORKERS: usize = 1024;

/// Which reader opens [`DataConfig::path`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// Decide from the path. A folder or pattern of tar files is `shards`, one of `.parquet` files
    /// is `parquet`, any other folder is `folder`, and a `.txt`, `.csv`, `.tsv`, or `.jsonl` file
    /// is `list`.
    #[default]
    Auto,
    /// A tree of image files. If there are subfolders, the first level names the class.
    Folder,
    /// A text file that names image files, one per line.
    List,
    /// WebDataset shards: `.tar` or `.tar.gz` files.
    Shards,
    /// Hugging Face image datasets in parquet files. Needs a build with the feature `parquet`.
    Parquet,
    /// Images that are drawn on the fly, as `data.synthetic` says.
    Synthetic,
}

/// Where the images are and how they are read. Section `data`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Format of `path`.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub source: SourceKind,
    /// Folder, list file, tar or parquet file, or a pattern (`*`, `{00..99}`) of such files. A
    /// build with the feature `remote` also takes URLs (`https://`, `s3://`, `gs://`, `az://`).
    /// Required unless `source` is `synthetic` or `mix` is given.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub path: Option<String>,
    /// Several sources in place of `path`. Each element has a `path` and, optionally, a `source`
    /// and a `weight`.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub mix: Vec<MixEntry>,
    /// For images with more than 8 bits per value (PNG, TIFF): the values that become 0 and 255.
    /// Values beyond them are clamped. `[[low, high]]` holds for all channels; otherwise give one
    /// pair per channel. If the list is empty, the full range of the file's type is used, which is
    /// [0, 1] for floats.
    pub value_range: Vec<[f64; 2]>,
    /// Values of a pixel. No key of a config file: `simdino::config` fills in `model.in_channels`.
    #[serde(skip)]
    pub channels: usize,
    /// What `source: synthetic` draws.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub synthetic: SyntheticConfig,
    /// Number of threads per process that decode and augment images. If it is absent, the process
    /// uses its share of the machine's cores except one, which launches the training step.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 1024)))]
    pub workers: Option<usize>,
    /// Number of batches (of one process and pass) that are prepared ahead of the training step.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub prefetch: usize,
    /// Images whose shorter side is below this, in pixels, count as broken.
    pub min_side: u32,
    /// Largest fraction of broken images (0 to 1) among those read so far; beyond it, the run
    /// stops.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub max_bad_fraction: f64,
    /// What is kept in memory from one epoch to the next.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub cache: CacheKind,
    /// Memory for `cache`, in GB per process. Images that do not fit are read again in each epoch.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub cache_gb: f64,
    /// Number of times that a failed request to a server is repeated.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub remote_retries: u32,
    /// Longest time for one request to a server, including its response, in seconds.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub remote_timeout_s: f64,
    /// Memory for decompressed data, in GB per process: `.tar.gz` shards, whose remainder goes to
    /// `spill_dir`, and pages of parquet files, whose remainder is decompressed again when it is
    /// needed.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub shard_cache_gb: f64,
    /// Folder for temporary files with the decompressed shards that exceed `shard_cache_gb`. If it
    /// is absent, the system's temporary folder.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub spill_dir: Option<String>,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            source: SourceKind::Auto,
            path: None,
            mix: Vec::new(),
            value_range: Vec::new(),
            channels: 3,
            synthetic: SyntheticConfig::default(),
            workers: None,
            prefetch: 4,
            min_side: 8,
            max_bad_fraction: 0.1,
            cache: CacheKind::None,
            cache_gb: 4.0,
            remote_retries: 5,
            remote_timeout_s: 30.0,
            shard_cache_gb: 4.0,
            spill_dir: None,
        }
    }
}

/// What is cached in memory from epoch to epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CacheKind {
    /// Nothing. The operating system may still cache files.
    #[default]
    None,
    /// The image files. Saves reading, which matters for slow storage.
    Encoded,
    /// The pixels. Saves decoding as well, but takes more memory: five times as much for photos of
    /// 500 x 375 pixels.
    Decoded,
}

/// One of several sources that are mixed. An element of `data.mix`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct MixEntry {
    /// Folder, list file, tar or parquet file, or a pattern of such files. Required unless `source`
    /// is `synthetic`.
    pub path: Option<String>,
    /// Format of `path`.
    pub source: SourceKind,
    /// Share of the images of an epoch, in proportion to the weights of the other sources. Give it
    /// for all sources or for none; without weights, each image occurs once per epoch.
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
    /// Seed of the drawings. Different seeds give independent images of the same classes.
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
        let mut check = Check::default();
        let synthetic = self.source == SourceKind::Synthetic;
        let named = !self.mix.is_empty() || self.path.is_some() || synthetic;
        check.that("path", named, || {
            "required: a folder, a list file, tar shards or parquet files".into()
        });
        check.extend(self.validate_mix().map(|problem| ("mix", problem)));
        check.extend(self.validate_pixels().map(|problem| ("value_range", problem)));
        check.that("source", self.channels == 3 || !self.draws(), || {
            format!(
                "synthetic images are RGB, so model.in_channels must be 3 (got {})",
                self.channels
            )
        });
        if synthetic {
            check.at_least("synthetic.count", self.synthetic.count, 1);
            check.at_least("synthetic.size", self.synthetic.size, 16);
            let size = self.synthetic.size;
            check.that("synthetic.size", size <= 4096, || {
                format!("must be at most 4096 (got {size})")
            });
        }
        check.at_least("workers", self.workers, 1);
        check.that("workers", self.workers.is_none_or(|workers| workers <= MOST_WORKERS), || {
            format!("must be at most {MOST_WORKERS} (got {})", self.workers.unwrap_or_default())
        });
        check.at_least("prefetch", self.prefetch, 1);
        check.fraction("max_bad_fraction", self.max_bad_fraction);
        check.not_negative("cache_gb", self.cache_gb);
        check.positive("remote_timeout_s", self.remote_timeout_s);
        check.not_negative("shard_cache_gb", self.shard_cache_gb);
        check.problems()
    }

    /// Describes the images for messages: the path or paths, or "synthetic images".
    pub fn describe(&self) -> String {
        let of = |path: &Option<String>, source| match source {
            SourceKind::Synthetic => "synthetic images".to_owned(),
            _ => path.clone().unwrap_or_default(),
        };
        if self.mix.is_empty() {
            return of(&self.path, self.source);
        }
        let parts = self.mix.iter().map(|entry| of(&entry.path, entry.source));
        parts.collect::<Vec<_>>().join(" + ")
    }

    /// Returns the path, or an empty string if there is none, from which no source can be opened.
    pub fn path_text(&self) -> &str {
        self.path.as_deref().unwrap_or_default()
    }

    /// Returns the pixel format to which images are decoded.
    pub fn pixels(&self) -> PixelFormat {
        PixelFormat { channels: self.channels, value_range: self.value_range.clone() }
    }

    /// Returns the same config for images that are decoded to `pixels`.
    pub fn with_pixels(self, pixels: PixelFormat) -> Self {
        Self { channels: pixels.channels, value_range: pixels.value_range, ..self }
    }

    /// Returns whether some of the images are synthetic.
    pub fn draws(&self) -> bool {
        let synthetic = |source| source == SourceKind::Synthetic;
        synthetic(self.source) || self.mix.iter().any(|entry| synthetic(entry.source))
    }

    fn validate_pixels(&self) -> Option<String> {
        let (pairs, channels) = (self.value_range.len(), self.channels);
        if pairs > 1 && pairs != channels {
            return Some(format!(
                "needs one pair for all channels or one for each of the {channels} channels (got \
                 {pairs})"
            ));
        }
        let bad = |[low, high]: &[f64; 2]| !(low < high && low.is_finite() && high.is_finite());
        let bad = self.value_range.iter().find(|&pair| bad(pair))?;
        Some(format!("every pair needs low < high (got {bad:?})"))
    }

    fn validate_mix(&self) -> Option<String> {
        let weighted = self.mix.iter().filter(|entry| entry.weight.is_some()).count();
        let bad = |entry: &MixEntry| entry.weight.is_some_and(|w| !(w > 0.0 && w.is_finite()));
        if !self.mix.is_empty() && self.path.is_some() {
            return Some("give either data.path or data.mix, not both".into());
        }
        if self.mix.iter().any(|e| e.path.is_none() && e.source != SourceKind::Synthetic) {
            return Some("every source needs a path".into());
        }
        if weighted != 0 && weighted != self.mix.len() {
            return Some("set the weight of all sources or of none".into());
        }
        self.mix.iter().any(bad).then(|| "every weight must be greater than 0".into())
    }
}
