//! Checks the values of a config: those of each section, and those across sections.

use augment::AugmentConfig;
use data::{CacheKind, SourceKind};
use objectives::Method;
use objectives::config::{Centering, CoeffRule};
use trainer::config::OptimizerKind;

use super::RunConfig;

impl RunConfig {
    /// Returns every invalid value, as `key: what it must be`.
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
        ];
        let mut problems: Vec<String> = sections
            .into_iter()
            .flat_map(|(section, list)| {
                list.into_iter().map(move |(key, what)| format!("{section}.{key}: {what}"))
            })
            .collect();
        problems.extend(self.device_problem());
        problems.extend(self.name_problem());
        if !(self.run.timeout_s > 0.0 && self.run.timeout_s <= MOST_SECONDS) {
            let got = self.run.timeout_s;
            problems.push(format!("run.timeout_s: must be above 0, to {MOST_SECONDS} (got {got})"));
        }
        problems.extend(self.batch_problems());
        problems.extend(self.size_problems());
        problems.extend(self.method_problems());
        // 0 has been named by the section that owns it.
        let channels = self.data.channels;
        let unfit = (channels > 0).then(|| self.augment.validate_channels(channels));
        let unfit = unfit.into_iter().flatten();
        problems.extend(unfit.map(|(key, what)| format!("augment.{key}: {what}")));
        problems.extend(self.length_problems());
        problems
    }

    /// The name of a run is a single folder below `run.dir`.
    fn name_problem(&self) -> Option<String> {
        let name = &self.run.name;
        let bad = name.contains(['/', '\\', '\0']) || name == "." || name == "..";
        bad.then(|| format!("run.name: must be the name of one folder (got '{name}')"))
    }

    /// The global batch is split into passes, and these into the groups of the loss.
    fn batch_problems(&self) -> Vec<String> {
        let (batch, passes) = (self.train.batch_size, self.train.accumulate);
        // 0 has been named by the section that owns it.
        if batch == 0 || passes == 0 {
            return Vec::new();
        }
        let mut problems = Vec::new();
        if !batch.is_multiple_of(passes) {
            problems.push(format!(
                "train.batch_size: must be a multiple of train.accumulate {passes} (got {batch})"
            ));
        }
        let groups = self.groups().into_iter().filter(|&(_, groups)| groups > 0);
        problems.extend(groups.filter_map(|(key, groups)| self.group_problem(key, groups)));
        problems
    }

    /// A group must be contained in one pass and have images to compare: a single image has no
    /// neighbor, and a coding rate that cannot grow.
    fn group_problem(&self, key: &str, groups: usize) -> Option<String> {
        let (batch, passes) = (self.train.batch_size, self.train.accumulate);
        let fits = |groups: &usize| {
            groups.is_multiple_of(passes) && batch.is_multiple_of(*groups) && batch / groups >= 2
        };
        if fits(&groups) {
            return None;
        }
        let whole = groups.is_multiple_of(passes);
        let problem = if !whole {
            format!(
                "{key}: must be a multiple of train.accumulate {passes}, so that a group lies in one \
                 pass (got {groups})"
            )
        } else if batch <= groups || batch.is_multiple_of(groups) {
            format!(
                "{key}: a group needs 2 images or more (got {groups} groups of train.batch_size {batch})"
            )
        } else {
            format!("train.batch_size: must be a multiple of {key} {groups} (got {batch})")
        };
        let fewer = (1..=groups).rev().take(MOST_TRIES).find(fits);
        let more = || (groups..=batch / 2).take(MOST_TRIES).find(fits);
        let number = fewer.or_else(more).map(|number| format!("{key}={number}"));
        let larger = whole.then(|| groups.saturating_mul(batch.div_ceil(groups).max(2)));
        let larger = larger.map(|batch| format!("train.batch_size={batch}"));
        let ways: Vec<String> = number.into_iter().chain(larger).collect();
        Some(match ways.is_empty() {
            true => problem,
            false => format!("{problem}; {} would do", ways.join(" or ")),
        })
    }

    /// The groups in which the method's loss is computed, by key.
    pub fn groups(&self) -> Vec<(&'static str, usize)> {
        let mut groups = Vec::new();
        if matches!(self.method, Method::SimDino | Method::SimDinoV2) {
            groups.push(("simdino.rate_groups", self.simdino.rate_groups));
        }
        if self.masks_patches() && self.koleo.loss_weight > 0.0 {
            groups.push(("koleo.groups", self.koleo.groups));
        }
        groups
    }

    /// Whether the method can use masked patches and neighbors.
    fn masks_patches(&self) -> bool {
        matches!(self.method, Method::SimDinoV2 | Method::DinoV2)
    }

    /// Whether the method's loss uses scores of prototypes.
    pub(super) fn has_prototypes(&self) -> bool {
        matches!(self.method, Method::Dino | Method::DinoV2)
    }

    /// Network and loss must belong to the same method.
    fn method_problems(&self) -> Vec<String> {
        let method = self.method.name();
        let mut problems = Vec::new();
        match (self.has_prototypes(), self.head.prototypes) {
            (true, got @ 0..2) => {
                problems.push(format!("head.prototypes: {method} needs 2 or more (got {got})"));
            }
            (false, _) if self.head.out_dim == 1 => problems.push(format!(
                "head.out_dim: {method} spreads features over directions, so it needs 2 or more (got 1)"
            )),
            (false, got) if got != 0 => {
                problems.push(format!("head.prototypes: {method} has none: must be 0 (got {got})"));
            }
            _ => {}
        }
        let masks = self.masks_patches() && self.ibot.loss_weight > 0.0;
        if masks && !self.model.mask_token {
            problems.push(format!(
                "model.mask_token: {method} masks patches: must be true, or ibot.loss_weight 0"
            ));
        }
        if self.head.separate_patch_head && !masks {
            problems.push(format!(
                "head.separate_patch_head: {method} with these terms looks at no patches: must be \
                 false"
            ));
        }
        if self.head.patch_out_dim.is_some() && !self.head.separate_patch_head {
            problems.push(
                "head.patch_out_dim: patches have no head of their own: needs \
                 head.separate_patch_head"
                    .into(),
            );
        }
        if self.method == Method::Dino && self.dino.centering != Centering::Softmax {
            problems.push("dino.centering: DINO takes softmax; sinkhorn_knopp is DINOv2's".into());
        }
        problems
    }

    /// Crops are divided into whole patches.
    fn size_problems(&self) -> Vec<String> {
        let patch = self.model.patch_size;
        let mut sizes = vec![("augment.global_crops_size", self.augment.global_crops_size)];
        if self.augment.local_crops_number > 0 {
            sizes.push(("augment.local_crops_size", self.augment.local_crops_size));
        }
        sizes
            .into_iter()
            .filter(|&(_, size)| patch > 0 && i64::from(size) % patch != 0)
            .map(|(key, size)| {
                format!("{key}: must be a multiple of model.patch_size {patch} (got {size})")
            })
            .collect()
    }

    /// The learning rate after warm-up, scaled by the global batch size.
    pub fn learning_rate(&self) -> f64 {
        self.optim.lr_scaling.apply(self.optim.base_lr, self.train.batch_size)
    }

    fn length_problems(&self) -> Vec<String> {
        // A shorter run than a recipe is meant for has been seen to by `length`.
        let (warmup, epochs) = (self.optim.warmup_epochs, self.train.epochs);
        let mut problems = Vec::new();
        if epochs > 0.0 && warmup > epochs {
            problems.push(format!(
                "optim.warmup_epochs: must not exceed train.epochs {epochs} (got {warmup})"
            ));
        }
        let lr = self.learning_rate();
        if self.optim.min_lr > lr {
            let min = self.optim.min_lr;
            problems.push(format!(
                "optim.min_lr: must not exceed the learning rate {lr} that optim.base_lr gives \
                 at this batch size (got {min})"
            ));
        }
        if self.probe.train_path.is_empty() != self.probe.test_path.is_empty() {
            let missing = if self.probe.train_path.is_empty() { "train_path" } else { "test_path" };
            problems.push(format!(
                "probe.{missing}: required when the other path is given: the probe needs both"
            ));
        }
        problems
    }

    /// Settings that differ from their default but have no effect in this run.
    pub fn without_effect(&self) -> Vec<String> {
        let default = Self::of(self.method);
        let no_probe = self.probe.train_path.is_empty() && self.probe.test_path.is_empty();
        let mix = &self.data.mix;
        let synthetic = self.data.source == SourceKind::Synthetic;
        let draws = self.data.draws();
        let uncached = self.data.cache == CacheKind::None;
        let mut warnings = crops_without_effect(&self.augment, &default.augment);
        warnings.extend([
            (synthetic && !self.data.path.is_empty())
                .then_some(("data.path", "data.source is synthetic")),
            (!mix.is_empty() && self.data.source != default.data.source)
                .then_some(("data.source", "the elements of data.mix have their own")),
            (uncached && self.data.cache_gb != default.data.cache_gb)
                .then_some(("data.cache_gb", "data.cache is none")),
            (!draws && self.data.synthetic != default.data.synthetic)
                .then_some(("data.synthetic", "data.source is not synthetic")),
            (self.init.from.is_empty() && self.init != default.init)
                .then_some(("init", "init.from is empty")),
            (no_probe && self.probe != default.probe)
                .then_some(("probe", "probe.train_path and probe.test_path are empty")),
        ]);
        warnings.extend(self.loss_without_effect(&default));
        warnings.push(self.coeff_without_effect(&default));
        warnings
            .into_iter()
            .flatten()
            .map(|(key, why)| format!("{key} has no effect: {why}"))
            .chain(self.cautions())
            .collect()
    }

    /// A weight that is set, but adapted.
    fn coeff_without_effect(&self, default: &Self) -> Option<(&'static str, &'static str)> {
        let (ours, theirs) = (&self.simdino, &default.simdino);
        let set = (ours.coeff, ours.coeff_end) != (theirs.coeff, theirs.coeff_end);
        let held = ours.coeff_rule == CoeffRule::Held;
        (set && held).then_some(("simdino.coeff", "simdino.coeff_rule is held"))
    }

    /// Settings that are valid but may have unexpected effects.
    fn cautions(&self) -> Vec<String> {
        let frozen = self.optim.freeze_last_layer_epochs;
        let never = self.has_prototypes() && frozen >= self.train.epochs && frozen > 0.0;
        let never = never.then(|| {
            format!(
                "optim.freeze_last_layer_epochs {frozen} is the whole run: prototypes never move"
            )
        });
        let sinkhorn = self.method == Method::DinoV2
            && self.dino.centering == Centering::SinkhornKnopp
            && self.train.accumulate > 1;
        let apart = sinkhorn.then(|| {
            format!(
                "dino.centering: sinkhorn_knopp balances the targets of each of the \
                 train.accumulate {} passes by itself, not those of the whole batch",
                self.train.accumulate
            )
        });
        never.into_iter().chain(apart).collect()
    }

    /// Sections of losses other than that of the method.
    fn loss_without_effect(&self, default: &Self) -> Vec<Warning> {
        const OTHER: &str = "the method's loss does not use it";
        let adamw = self.optim.optimizer == OptimizerKind::Adamw;
        let (optim, usual) = (&self.optim, &default.optim);
        vec![
            (self.has_prototypes() && self.simdino != default.simdino)
                .then_some(("simdino", OTHER)),
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

/// A month: longer waits make no sense.
const MOST_SECONDS: f64 = 2_592_000.0;
/// Maximum number of group counts that are tried to find one to recommend.
const MOST_TRIES: usize = 4096;

type Warning = Option<(&'static str, &'static str)>;

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
