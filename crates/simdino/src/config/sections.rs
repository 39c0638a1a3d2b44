//! Checks the values of a config, within each section and across sections.

use augment::AugmentConfig;
use base::check::{Check, Problem};
use data::{CacheKind, SourceKind};
use objectives::{Centering, CoeffRule, Method};
use trainer::config::{OptimizerKind, Precision, ProbeConfig};

use super::RunConfig;
use crate::device::DeviceSpec;

impl RunConfig {
    /// Returns a sentence for each invalid value, as `key: problem`.
    pub fn validate(&self) -> Vec<String> {
        let sections = [
            ("data", self.data.validate()),
            ("augment", self.augment.validate()),
            ("model", self.model.validate()),
            ("init", self.init.validate()),
            ("head", self.head.validate()),
            ("simdino", self.simdino.validate()),
            ("dino", self.dino.validate()),
            ("ibot", self.ibot.validate()),
            ("koleo", self.koleo.validate()),
            ("masks", self.masks.validate()),
            ("optim", self.optim.validate()),
            ("train", self.train.validate()),
            ("probe", self.probe.validate()),
            ("run", self.run.validate()),
        ];
        let mut check = Check::default();
        self.check_batch(&mut check);
        self.check_sizes(&mut check);
        self.check_method(&mut check);
        let on_cpu = self.run.device == DeviceSpec::Cpu;
        let tf32 = self.train.precision == Precision::Tf32;
        check.that("train.precision", !(tf32 && on_cpu), || NO_TF32.to_owned());
        let mut problems: Vec<String> = sections
            .into_iter()
            .flat_map(|(section, problems)| within(section, problems))
            .chain(check.problems().into_iter().map(|(key, what)| format!("{key}: {what}")))
            .collect();
        // The section has already reported 0.
        if self.data.channels > 0 {
            problems.extend(within("augment", self.augment.validate_channels(self.data.channels)));
        }
        let mut check = Check::default();
        self.check_length(&mut check);
        problems.extend(check.problems().into_iter().map(|(key, what)| format!("{key}: {what}")));
        problems
    }

    /// Checks that the batch can be split into passes, and these into the groups of the loss.
    fn check_batch(&self, check: &mut Check) {
        let (batch, passes) = (self.train.batch_size, self.train.accumulate);
        // The section has already reported 0.
        if batch == 0 || passes == 0 {
            return;
        }
        check.that("train.batch_size", batch.is_multiple_of(passes), || {
            format!("must be a multiple of train.accumulate {passes} (got {batch})")
        });
        let groups = self.groups().into_iter().filter(|&(_, groups)| groups > 0);
        check.extend(groups.filter_map(|(key, groups)| self.group_problem(key, groups)));
    }

    /// Returns a problem if the groups are not each contained in one pass with at least two images.
    /// A single image has no neighbor, and its coding rate cannot grow.
    fn group_problem(&self, key: &'static str, groups: usize) -> Option<Problem> {
        if let (GROUP_ROWS, Some(rows)) = (key, self.simdino.group_rows) {
            return self.group_rows_problem(rows);
        }
        let (batch, passes) = (self.train.batch_size, self.train.accumulate);
        let fits = |groups: &usize| {
            groups.is_multiple_of(passes) && batch.is_multiple_of(*groups) && batch / groups >= 2
        };
        if fits(&groups) {
            return None;
        }
        let whole = groups.is_multiple_of(passes);
        let (about, problem) = if !whole {
            let problem = format!(
                "must be a multiple of train.accumulate {passes}, so that each group fits in one \
                 pass (got {groups})"
            );
            (key, problem)
        } else if batch <= groups || batch.is_multiple_of(groups) {
            let problem = format!(
                "a group needs at least 2 images (got {groups} groups for train.batch_size \
                 {batch})"
            );
            (key, problem)
        } else {
            let problem = format!("must be a multiple of {key} {groups} (got {batch})");
            ("train.batch_size", problem)
        };
        let fewer = (1..=groups).rev().take(MOST_TRIES).find(fits);
        let more = || (groups..=batch / 2).take(MOST_TRIES).find(fits);
        let number = fewer.or_else(more).map(|number| format!("{key}={number}"));
        let larger = whole.then(|| groups.saturating_mul(batch.div_ceil(groups).max(2)));
        let larger = larger.map(|batch| format!("train.batch_size={batch}"));
        let ways: Vec<String> = number.into_iter().chain(larger).collect();
        Some(match ways.is_empty() {
            true => (about, problem),
            false => (about, format!("{problem}; {} would do", ways.join(" or "))),
        })
    }

    /// Same as [`Self::group_problem`] for groups of `rows` images: a pass must hold whole groups.
    fn group_rows_problem(&self, rows: usize) -> Option<Problem> {
        let (batch, passes) = (self.train.batch_size, self.train.accumulate);
        let pass = batch / passes;
        let one = passes == 1 && batch <= rows;
        if rows < 2 || (one && batch >= 2) || (pass > 1 && pass.is_multiple_of(rows)) {
            return None; // the section has already reported fewer than 2
        }
        let smaller = (2..=rows.min(pass)).rev().find(|rows| pass.is_multiple_of(*rows));
        let smaller = smaller.map(|rows| format!("{GROUP_ROWS}={rows}"));
        let unit = rows.saturating_mul(passes);
        let larger =
            format!("train.batch_size={}", batch.div_ceil(unit).max(1).saturating_mul(unit));
        let ways: Vec<String> = smaller.into_iter().chain([larger]).collect();
        let of_passes = match passes {
            1 => String::new(),
            _ => format!(" times train.accumulate {passes}"),
        };
        let problem = format!(
            "must be a multiple of {GROUP_ROWS} {rows}{of_passes} (got {batch}); {} would do",
            ways.join(" or ")
        );
        Some(("train.batch_size", problem))
    }

    /// Returns, for each part of the method's loss that is computed in groups, the key that
    /// determines the number of groups, and that number.
    pub fn groups(&self) -> Vec<(&'static str, usize)> {
        let mut groups = Vec::new();
        if matches!(self.method, Method::SimDino | Method::SimDinoV2) {
            let key = match self.simdino.group_rows {
                Some(_) => GROUP_ROWS,
                None => "simdino.rate_groups",
            };
            groups.push((key, self.simdino.groups(self.train.batch_size)));
        }
        if self.masks_patches() && self.koleo.loss_weight > 0.0 {
            groups.push(("koleo.groups", self.koleo.groups));
        }
        groups
    }

    /// Returns whether the method can use masked patches and neighbors.
    fn masks_patches(&self) -> bool {
        matches!(self.method, Method::SimDinoV2 | Method::DinoV2)
    }

    /// Returns whether the method's loss uses scores of prototypes.
    pub(super) fn has_prototypes(&self) -> bool {
        matches!(self.method, Method::Dino | Method::DinoV2)
    }

    /// Checks that the network has the outputs that the method's loss uses.
    fn check_method(&self, check: &mut Check) {
        let (method, head) = (self.method.name(), &self.head);
        match (self.has_prototypes(), head.prototypes) {
            (true, got) => check.that("head.prototypes", got >= 2, || {
                format!("{method} needs at least 2 (got {got})")
            }),
            (false, got) => check.that("head.prototypes", got == 0, || {
                format!("{method} has no prototypes: must be 0 (got {got})")
            }),
        }
        check.that("head.out_dim", self.has_prototypes() || head.out_dim != 1, || {
            format!(
                "{method} spreads features over several directions, so it needs at least 2 (got 1)"
            )
        });
        let masks = self.masks_patches() && self.ibot.loss_weight > 0.0;
        check.that("model.mask_token", self.model.mask_token || !masks, || {
            format!("{method} masks patches: must be true unless ibot.loss_weight is 0")
        });
        check.that("head.separate_patch_head", masks || !head.separate_patch_head, || {
            format!("{method} with these settings has no loss on patches: must be false")
        });
        let width = head.patch_out_dim.is_none() || head.separate_patch_head;
        check.that("head.patch_out_dim", width, || {
            "must be null unless head.separate_patch_head is true".into()
        });
        let centering = self.method != Method::Dino || self.dino.centering == Centering::Softmax;
        check.that("dino.centering", centering, || {
            "must be softmax for DINO; only DINOv2 supports sinkhorn_knopp".into()
        });
    }

    /// Checks that crops can be divided into whole patches.
    fn check_sizes(&self, check: &mut Check) {
        let patch = self.model.patch_size;
        let mut whole = |key, size: u32| {
            check.that(key, patch <= 0 || i64::from(size) % patch == 0, || {
                format!("must be a multiple of model.patch_size {patch} (got {size})")
            });
        };
        whole("augment.global_crops_size", self.augment.global_crops_size);
        if self.augment.local_crops_number > 0 {
            whole("augment.local_crops_size", self.augment.local_crops_size);
        }
        // The section has already reported 0.
        if let Some(resize) = self.probe.resize.filter(|&resize| resize > 0) {
            let crop = self.model.image_size;
            check.that("probe.resize", i64::from(resize) >= crop, || {
                format!("must be at least the crop, model.image_size {crop} (got {resize})")
            });
        }
    }

    /// Returns the learning rate after warm-up, scaled by the batch size.
    pub fn learning_rate(&self) -> f64 {
        self.optim.lr_scaling.apply(self.optim.base_lr, self.train.batch_size)
    }

    /// Checks that schedules fit into the run.
    fn check_length(&self, check: &mut Check) {
        // If the run is shorter than the recipe's, `length` has already shortened the warm-up.
        let (warmup, epochs) = (self.optim.warmup_epochs, self.train.epochs);
        check.that("optim.warmup_epochs", epochs <= 0.0 || warmup <= epochs, || {
            format!("must not exceed train.epochs {epochs} (got {warmup})")
        });
        let (lr, min) = (self.learning_rate(), self.optim.min_lr);
        // The section has already reported invalid rates.
        check.that("optim.min_lr", min <= lr || lr <= 0.0 || lr.is_nan() || min.is_nan(), || {
            format!(
                "must not exceed the learning rate {lr} that optim.base_lr gives at this batch size \
                 (got {min})"
            )
        });
    }

    /// Returns a sentence for each setting that differs from its default but has no effect in this
    /// run, and for each that may have an unexpected effect.
    pub fn without_effect(&self) -> Vec<String> {
        let default = Self::of(self.method);
        let mix = &self.data.mix;
        let synthetic = self.data.source == SourceKind::Synthetic;
        let draws = self.data.draws();
        let uncached = self.data.cache == CacheKind::None;
        let mut warnings = crops_without_effect(&self.augment, &default.augment);
        warnings.extend([
            (synthetic && self.data.path.is_some())
                .then_some(("data.path", "data.source is synthetic")),
            (!mix.is_empty() && self.data.source != default.data.source)
                .then_some(("data.source", "the elements of data.mix have their own")),
            (uncached && self.data.cache_gb != default.data.cache_gb)
                .then_some(("data.cache_gb", "data.cache is none")),
            (!draws && self.data.synthetic != default.data.synthetic)
                .then_some(("data.synthetic", "data.source is not synthetic")),
            (self.init.from.is_none() && self.init != default.init)
                .then_some(("init", "init.from is null")),
        ]);
        warnings.extend(probe_without_effect(&self.probe, &default.probe));
        warnings.extend(self.loss_without_effect(&default));
        warnings.push(self.coeff_without_effect(&default));
        warnings
            .into_iter()
            .flatten()
            .map(|(key, why)| format!("{key} has no effect: {why}"))
            .chain(self.cautions())
            .collect()
    }

    /// Warns about a weight of the compression that is set although the held trade-off adapts it.
    fn coeff_without_effect(&self, default: &Self) -> Option<(&'static str, &'static str)> {
        let (ours, theirs) = (&self.simdino, &default.simdino);
        let set = (ours.coeff, ours.coeff_end) != (theirs.coeff, theirs.coeff_end);
        let held = ours.coeff_rule == CoeffRule::Held;
        (set && held).then_some(("simdino.coeff", "simdino.coeff_rule is held"))
    }

    /// Returns a sentence for each valid setting that may have unexpected effects.
    fn cautions(&self) -> Vec<String> {
        let frozen = self.optim.freeze_last_layer_epochs;
        let never = self.has_prototypes() && frozen >= self.train.epochs && frozen > 0.0;
        let never = never.then(|| {
            format!(
                "optim.freeze_last_layer_epochs {frozen} covers the whole run: the prototypes are \
                 never trained"
            )
        });
        let sinkhorn = self.method == Method::DinoV2
            && self.dino.centering == Centering::SinkhornKnopp
            && self.train.accumulate > 1;
        let apart = sinkhorn.then(|| {
            format!(
                "dino.centering: sinkhorn_knopp balances the targets of each of the \
                 train.accumulate {} passes separately, not over the whole batch",
                self.train.accumulate
            )
        });
        never.into_iter().chain(apart).collect()
    }

    /// Warns about settings of losses and optimizers that the run does not use.
    fn loss_without_effect(&self, default: &Self) -> Vec<Warning> {
        const OTHER: &str = "the method's loss does not use it";
        let adamw = self.optim.optimizer == OptimizerKind::Adamw;
        let (optim, usual) = (&self.optim, &default.optim);
        vec![
            (self.has_prototypes() && self.simdino != default.simdino)
                .then_some(("simdino", OTHER)),
            (self.simdino.group_rows.is_some()
                && self.simdino.rate_groups != default.simdino.rate_groups)
                .then_some(("simdino.rate_groups", "simdino.group_rows is set")),
            (!self.has_prototypes() && self.dino != default.dino).then_some(("dino", OTHER)),
            (!self.masks_patches() && self.ibot != default.ibot).then_some(("ibot", OTHER)),
            (!self.masks_patches() && self.koleo != default.koleo).then_some(("koleo", OTHER)),
            (!self.masks_patches() && self.masks != default.masks).then_some(("masks", OTHER)),
            (!self.has_prototypes()
                && optim.freeze_last_layer_epochs != usual.freeze_last_layer_epochs)
                .then_some(("optim.freeze_last_layer_epochs", "there are no prototypes")),
            (adamw
                && (optim.momentum, optim.trust_coefficient)
                    != (usual.momentum, usual.trust_coefficient))
                .then_some((
                    "optim.momentum and optim.trust_coefficient",
                    "optim.optimizer is adamw",
                )),
            (!adamw && (optim.beta1, optim.beta2) != (usual.beta1, usual.beta2))
                .then_some(("optim.beta1 and optim.beta2", "optim.optimizer is not adamw")),
        ]
    }
}

/// The problem of `train.precision: tf32` in a run on the CPU.
pub(crate) const NO_TF32: &str = "tf32 needs a GPU, but this run uses the CPU: use fp32";

/// The key that sets the number of images per group instead of the number of groups.
pub(crate) const GROUP_ROWS: &str = "simdino.group_rows";

/// Maximum number of group counts that are tried to find one to recommend.
const MOST_TRIES: usize = 4096;

/// Formats the problems of a section with their full keys.
fn within(section: &'static str, problems: Vec<Problem>) -> impl Iterator<Item = String> {
    problems.into_iter().map(move |(key, what)| format!("{section}.{key}: {what}"))
}

type Warning = Option<(&'static str, &'static str)>;

/// Warns about settings of probes that are off.
fn probe_without_effect(probe: &ProbeConfig, default: &ProbeConfig) -> Vec<Warning> {
    let (rank, segment) = (probe.rank_is_on(), probe.segment_is_on());
    let labeled = probe.train_path.is_some();
    let off = !labeled && !rank && !segment;
    let rank_images = |probe: &ProbeConfig| (probe.rank.path.clone(), probe.rank.max_images);
    let rank_differs = rank_images(probe) != rank_images(default);
    let of_none = labeled && !rank && !probe.knn_is_on() && !probe.logistic_is_on();
    let of_labeled = rank && labeled && probe.rank.path.is_none();
    vec![
        (off && probe != default)
            .then_some(("probe", "probe.train_path, probe.rank, and probe.segment are off")),
        of_none.then_some(("probe.train_path", "probe.every_epochs is never")),
        (!off && !rank && rank_differs)
            .then_some(("probe.rank", "probe.rank.every_epochs is never")),
        (of_labeled && rank_differs)
            .then_some(("probe.rank.max_images", "the images are those of probe.train_path")),
        (!off && !segment && probe.segment != default.segment)
            .then_some(("probe.segment", "probe.segment.every_epochs is never")),
    ]
}

fn crops_without_effect(a: &AugmentConfig, default: &AugmentConfig) -> Vec<Warning> {
    let no_local = a.local_crops_number == 0;
    let no_blur = a.blur_prob.iter().all(|&p| p == 0.0);
    let no_jitter = a.jitter_prob == 0.0;
    let no_solarize = a.solarize_prob == 0.0;
    let jitter = |a: &AugmentConfig| [a.brightness, a.contrast, a.saturation, a.hue];
    vec![
        (no_local && a.local_crops_size != default.local_crops_size)
            .then_some(("augment.local_crops_size", "augment.local_crops_number is 0")),
        (no_local && a.local_crops_scale != default.local_crops_scale)
            .then_some(("augment.local_crops_scale", "augment.local_crops_number is 0")),
        (no_blur && a.blur_sigma != default.blur_sigma)
            .then_some(("augment.blur_sigma", "augment.blur_prob is 0 for every crop")),
        (no_jitter && jitter(a) != jitter(default))
            .then_some(("augment's jitter strength", "augment.jitter_prob is 0")),
        (no_solarize && a.solarize_threshold != default.solarize_threshold)
            .then_some(("augment.solarize_threshold", "augment.solarize_prob is 0")),
    ]
}
