//! What a run says about its images: where they are ([`DataConfig`]) and how they are cropped
//! ([`AugmentConfig`]). The only place where their defaults live.

use serde::{Deserialize, Serialize};

/// A wrong value: the key relative to the section it stands in, and what to do about it.
pub type Problem = (&'static str, String);

/// Which reader opens [`DataConfig::path`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// Decide from the path: a folder with tar files or a pattern of them is `shards`, one with
    /// `.parquet` files or a pattern of them is `parquet`, another folder is `folder`, a `.txt`,
    /// `.csv` or `.jsonl` file is `list`.
    #[default]
    Auto,
    /// A tree of image files; the first folder level names the class where there is one.
    Folder,
    /// A text file that names image files, one a line.
    List,
    /// WebDataset tar or tar.gz shards.
    Shards,
    /// Hugging Face image datasets in parquet files; needs the feature `parquet`.
    Parquet,
    /// Images drawn on the fly, see [`SyntheticConfig`].
    Synthetic,
}

/// Where the images are and how they are read. Section `data`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Reader of `path`; `auto` decides from the path.
    pub source: SourceKind,
    /// Folder, list file, tar or parquet file, or a pattern (`*`, `{00..99}`) of such files; with the
    /// feature `remote` also an address (`https://`, `s3://`, `gs://`, `az://`) of such files. Required unless `source: synthetic`.
    pub path: String,
    /// Several sources in place of `path`, each with `path` and, where wanted, `source` and `weight`:
    /// its share of the images of an epoch, in proportion to the other weights.
    pub mix: Vec<MixEntry>,
    /// What `source: synthetic` draws.
    pub synthetic: SyntheticConfig,
    /// Threads that decode and augment; 0 = one per core.
    pub workers: usize,
    /// Batches prepared ahead of the training step.
    pub prefetch: usize,
    /// Images with a shorter side, in pixels, count as broken.
    pub min_side: u32,
    /// The run stops when more than this share of the images read so far was broken (0-1).
    pub max_bad_fraction: f64,
    /// What is kept in memory from epoch to epoch: `none`, `encoded` (the files) or `decoded` (the
    /// pixels).
    pub cache: CacheKind,
    /// Memory in GB for `cache`, of each process; images beyond it are read anew each time.
    pub cache_gb: f64,
    /// How often a request to a server is tried again.
    pub remote_retries: u32,
    /// Longest time for one request to a server, its answer included, in seconds.
    pub remote_timeout_s: f64,
    /// Memory in GB that decompressed `tar.gz` shards may take, of which the rest goes to `spill_dir`, or
    /// decompressed pages of parquet files, of which the rest is read anew.
    pub shard_cache_gb: f64,
    /// Folder of the temporary files for what passes `shard_cache_gb`; empty: the system's.
    pub spill_dir: String,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            source: SourceKind::Auto,
            path: String::new(),
            mix: Vec::new(),
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

/// What is kept in memory from epoch to epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
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

/// Which Gaussian blur is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum BlurKind {
    /// Pillow's GaussianBlur, three box passes (DINO, SimDINO).
    #[default]
    Pillow,
    /// torchvision's kernel of 9 taps (DINOv2, SimDINOv2).
    Kernel9,
}

/// The augmentation of a published recipe, from which the keys that are not given are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// SimDINO: 10 local crops, Pillow's blur.
    #[default]
    Simdino,
    /// SimDINOv2: as SimDINO, with the blur of 9 taps.
    Simdinov2,
    /// DINO: 8 local crops, Pillow's blur.
    Dino,
    /// DINOv2: 8 local crops, scales (0.32, 1) and (0.05, 0.32), the blur of 9 taps.
    Dinov2,
}

/// Multi-crop augmentation. Section `augment`. Names as in the reference implementation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Recipe whose values the keys below have where they are not given: `simdino`, `simdinov2`,
    /// `dino` or `dinov2`.
    pub preset: Preset,
    /// Side of the two global crops, in pixels.
    pub global_crops_size: u32,
    /// Share of the image's area that a global crop covers, [low, high]; (0.4, 1) in SimDINO.
    pub global_crops_scale: [f64; 2],
    /// Number of local crops; 10 in SimDINO's recipe, 8 in DINO. 0 = none.
    pub local_crops_number: usize,
    /// Side of the local crops, in pixels.
    pub local_crops_size: u32,
    /// Share of the image's area that a local crop covers, [low, high]; (0.05, 0.4) in SimDINO.
    pub local_crops_scale: [f64; 2],
    /// Probability of a horizontal flip.
    pub flip_prob: f64,
    /// Probability of colour jitter.
    pub jitter_prob: f64,
    /// Brightness factor is drawn from 1 +- this.
    pub brightness: f64,
    /// Contrast factor is drawn from 1 +- this.
    pub contrast: f64,
    /// Saturation factor is drawn from 1 +- this.
    pub saturation: f64,
    /// Hue shift is drawn from +- this (0-0.5, in turns).
    pub hue: f64,
    /// Probability of grey.
    pub gray_prob: f64,
    /// Which Gaussian blur.
    pub blur: BlurKind,
    /// Sigma of the blur, [low, high], in pixels of the crop.
    pub blur_sigma: [f64; 2],
    /// Probability of blur on the first global crop, the second, and each local crop.
    pub blur_prob: [f64; 3],
    /// Probability of solarisation on the second global crop.
    pub solarize_prob: f64,
    /// Values at or above this are inverted by solarisation (0-255).
    pub solarize_threshold: u8,
    /// Mean of each channel on [0, 1], subtracted on the device.
    pub mean: [f32; 3],
    /// Standard deviation of each channel on [0, 1].
    pub std: [f32; 3],
}

impl Default for AugmentConfig {
    fn default() -> Self {
        Self {
            preset: Preset::Simdino,
            global_crops_size: 224,
            global_crops_scale: [0.4, 1.0],
            local_crops_number: 10,
            local_crops_size: 96,
            local_crops_scale: [0.05, 0.4],
            flip_prob: 0.5,
            jitter_prob: 0.8,
            brightness: 0.4,
            contrast: 0.4,
            saturation: 0.2,
            hue: 0.1,
            gray_prob: 0.2,
            blur: BlurKind::Pillow,
            blur_sigma: [0.1, 2.0],
            blur_prob: [1.0, 0.1, 0.5],
            solarize_prob: 0.2,
            solarize_threshold: 128,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        }
    }
}

impl DataConfig {
    /// Every wrong value, at once.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.mix.is_empty() && self.path.is_empty() && self.source != SourceKind::Synthetic {
            problems.push((
                "path",
                "required: a folder, a list file, tar shards or parquet files".into(),
            ));
        }
        problems.extend(self.validate_mix().map(|problem| ("mix", problem)));
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
    /// What the images are, for people: the path or paths, or "synthetic images".
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

impl AugmentConfig {
    /// The augmentation of a published recipe.
    pub fn of(preset: Preset) -> Self {
        let v1 = Self { preset, ..Self::default() };
        match preset {
            Preset::Simdino => v1,
            Preset::Simdinov2 => Self { blur: BlurKind::Kernel9, ..v1 },
            Preset::Dino => Self { local_crops_number: 8, ..v1 },
            Preset::Dinov2 => Self {
                local_crops_number: 8,
                global_crops_scale: [0.32, 1.0],
                local_crops_scale: [0.05, 0.32],
                blur: BlurKind::Kernel9,
                ..v1
            },
        }
    }

    /// Every wrong value, at once.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (key, size) in [
            ("global_crops_size", self.global_crops_size),
            ("local_crops_size", self.local_crops_size),
        ] {
            if !(4..=4096).contains(&size) {
                problems.push((key, format!("must be between 4 and 4096 pixels (got {size})")));
            }
        }
        for (key, [low, high]) in [
            ("global_crops_scale", self.global_crops_scale),
            ("local_crops_scale", self.local_crops_scale),
        ] {
            if !(low > 0.0 && low <= high && high <= 1.0) {
                problems.push((key, format!("needs 0 < low <= high <= 1 (got [{low}, {high}])")));
            }
        }
        let probabilities = [
            ("flip_prob", self.flip_prob),
            ("jitter_prob", self.jitter_prob),
            ("gray_prob", self.gray_prob),
            ("blur_prob", self.blur_prob[0]),
            ("blur_prob", self.blur_prob[1]),
            ("blur_prob", self.blur_prob[2]),
            ("solarize_prob", self.solarize_prob),
        ];
        for (key, p) in probabilities {
            if !(0.0..=1.0).contains(&p) {
                problems.push((key, format!("must be between 0 and 1 (got {p})")));
            }
        }
        let strengths = [
            ("brightness", self.brightness, 1.0),
            ("contrast", self.contrast, 1.0),
            ("saturation", self.saturation, 1.0),
            ("hue", self.hue, 0.5),
        ];
        for (key, value, most) in strengths {
            if !(0.0..=most).contains(&value) {
                problems.push((key, format!("must be between 0 and {most} (got {value})")));
            }
        }
        let [low, high] = self.blur_sigma;
        if !(low > 0.0 && low <= high) {
            problems.push(("blur_sigma", format!("needs 0 < low <= high (got [{low}, {high}])")));
        }
        if self.std.iter().any(|&s| s.is_nan() || s <= 0.0) {
            problems
                .push(("std", format!("every value must be greater than 0 (got {:?})", self.std)));
        }
        problems
    }
}
