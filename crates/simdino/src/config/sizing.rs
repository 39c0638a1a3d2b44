//! Chooses values that a config does not give, depending on the device and the number of images.
//!
//! The published recipes are meant for a million images and eight GPUs. A folder of a thousand
//! images on a laptop needs a smaller network, smaller crops, and many small steps rather than few
//! large ones.

use objectives::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::overrides::merge;

/// How values that a config does not give are chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Sizing {
    /// They come from the method's recipe.
    #[default]
    Recipe,
    /// Network, crops, batch, and length are chosen for the device and the number of images, and
    /// `simdino train` prints the choice.
    Auto,
}

/// Number of images that a run on a CPU processes, which takes about 20 minutes on two cores.
const IMAGES_ON_CPU: f64 = 100_000.0;
/// Minimum number of images that a run on a GPU processes, unless [`MOST_EPOCHS`] limits it.
const IMAGES_ON_GPU: f64 = 2_000_000.0;
/// Maximum number of epochs, beyond which little remains to be learned from the images.
const MOST_EPOCHS: f64 = 400.0;
/// Approximate number of log lines of a run.
const LOG_LINES: f64 = 200.0;
/// Approximate number of checkpoints of a run.
const CHECKPOINTS: f64 = 20.0;

/// Returns values for a run with `processes` processes (0 counts as 1) on `images` images, as a
/// mapping of sections. `given` holds the values that the config gives; settings that depend on the
/// length or batch size of the run follow those in `given`.
pub fn sizes_for(
    given: &Value,
    method: Method,
    images: usize,
    on_gpu: bool,
    processes: usize,
) -> Value {
    let (mut sizes, batch, epochs) = if on_gpu { on_a_gpu(images) } else { on_a_cpu(images) };
    let split = Split::of(given, processes);
    // Validation rejects a batch that is larger than the dataset.
    let batch = split.whole(batch.min(1 << images.max(2).ilog2()), images);
    let number = |key: &str, otherwise: f64| given["train"][key].as_f64().unwrap_or(otherwise);
    let length = number("epochs", epochs);
    let steps = length * images as f64 / number("batch_size", batch as f64).max(1.0);
    let every = |times: f64| (steps / times).ceil().max(1.0) as u64;
    merge(
        &mut sizes,
        json!({
            "optim": { "warmup_epochs": rounded(0.08 * length) },
            "train": {
                "batch_size": batch,
                "epochs": epochs,
                "log_every": every(LOG_LINES),
                "checkpoint_every": every(CHECKPOINTS),
            },
        }),
    );
    if given["probe"]["train_path"].is_string() {
        merge(&mut sizes, json!({ "probe": { "every_epochs": rounded(0.1 * length) } }));
    }
    if matches!(method, Method::SimDinoV2 | Method::DinoV2) {
        // Neighbors are searched among all images of a pass in a process, which may be few.
        merge(&mut sizes, json!({ "koleo": { "groups": split.parts() } }));
    }
    if matches!(method, Method::SimDino | Method::SimDinoV2) {
        let group_rows = split.group_rows(batch);
        let held = json!({ "coeff_rule": "held", "group_rows": group_rows });
        merge(&mut sizes, json!({ "simdino": held }));
        // An `eps` in the config keeps the meaning that it has without automatic sizing.
        if ["eps", "eps_semantics"].iter().all(|key| given["simdino"][key].is_null()) {
            let noise = json!({ "eps": 0.025, "eps_semantics": "relative" });
            merge(&mut sizes, json!({ "simdino": noise }));
        }
    } else {
        // A few images per prototype.
        let prototypes = (images / 4).next_power_of_two().clamp(256, 65_536);
        merge(&mut sizes, json!({ "head": { "prototypes": prototypes } }));
    }
    sizes
}

/// Returns sizes, batch size, and number of epochs for a CPU.
fn on_a_cpu(images: usize) -> (Value, usize, f64) {
    let sizes = json!({
        "augment": { "global_crops_size": 64, "local_crops_size": 32, "local_crops_number": 4 },
        "model": { "arch": "vit_nano", "patch_size": 16, "image_size": 64, "drop_path_rate": 0.0 },
        "head": { "hidden_dim": 512, "out_dim": 128 },
        // Both the learning rate and the momentum scale with the batch size.
        "optim": {
            "base_lr": 8e-3, "lr_scaling": "sqrt_wrt1024",
            "momentum_teacher": 0.98, "momentum_batch": 16,
        },
    });
    (sizes, 16, epochs(IMAGES_ON_CPU, images))
}

/// How the batch of a step is divided.
struct Split {
    /// The batch size that the config gives.
    batch: Option<usize>,
    passes: usize,
    processes: usize,
}

impl Split {
    fn of(given: &Value, processes: usize) -> Self {
        let number = |key: &str| given["train"][key].as_u64().map(|number| number as usize);
        let passes = number("accumulate").unwrap_or(1).max(1);
        Self { batch: number("batch_size"), passes, processes: processes.max(1) }
    }

    /// Returns the number of passes of all processes.
    fn parts(&self) -> usize {
        self.passes.saturating_mul(self.processes)
    }

    /// Returns a batch size near `batch` that is divisible by the number of parts, with at least 2
    /// images in each if there are enough.
    fn whole(&self, batch: usize, images: usize) -> usize {
        let parts = self.parts();
        (batch / parts).max(2).min((images.max(2) / parts).max(1)).saturating_mul(parts)
    }

    /// Returns the number of images of a rate group: a number near 16 that evenly divides each part
    /// of the config's batch, or of the `chosen` one.
    fn group_rows(&self, chosen: usize) -> usize {
        let batch = self.batch.unwrap_or(chosen);
        // A part must hold whole groups; only one group of all images may span processes.
        let part = batch / self.parts();
        let near = (8..=16).rev().chain(17..=32).find(|rows| part.is_multiple_of(*rows));
        let all = if self.passes == 1 { batch } else { part };
        near.filter(|_| part > 0).unwrap_or(all.max(2))
    }
}

/// Returns sizes, batch size, and number of epochs for a GPU.
fn on_a_gpu(images: usize) -> (Value, usize, f64) {
    let sizes = if images < 20_000 {
        json!({
            "augment": { "global_crops_size": 128, "local_crops_size": 64, "local_crops_number": 6 },
            "model": { "arch": "vit_tiny", "image_size": 128 },
            "head": { "hidden_dim": 1024 },
            "optim": { "momentum_teacher": 0.99 },
            "train": { "precision": "bf16" },
        })
    } else {
        json!({ "model": { "arch": "vit_small" }, "train": { "precision": "bf16" } })
    };
    let batch = (images / 32).next_power_of_two().clamp(64, 512);
    (sizes, batch, epochs(IMAGES_ON_GPU, images).max(100.0))
}

/// Returns the number of epochs in which a run processes `budget` images, up to [`MOST_EPOCHS`].
fn epochs(budget: f64, images: usize) -> f64 {
    rounded((budget / images.max(1) as f64).min(MOST_EPOCHS))
}

/// Rounds to two significant digits, so that a printed choice can be typed again.
fn rounded(epochs: f64) -> f64 {
    let unit = 10f64.powf(epochs.max(1e-3).log10().floor() - 1.0);
    let rounded = (epochs / unit).round() * unit;
    // Removes rounding errors of the multiplication.
    (rounded * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use objectives::EpsSemantics;
    use trainer::config::EveryEpochs;

    use super::*;
    use crate::RunConfig;
    use crate::config::from_layers;

    fn config(given: Value, images: usize, on_gpu: bool) -> RunConfig {
        config_for(given, images, on_gpu, 1)
    }

    fn config_for(given: Value, images: usize, on_gpu: bool, processes: usize) -> RunConfig {
        let method = serde_json::from_value(given["method"].clone()).unwrap_or_default();
        let sizes = sizes_for(&given, method, images, on_gpu, processes);
        from_layers(sizes, given, &[], &|_| Ok(Value::Null)).unwrap().config
    }

    #[test]
    fn every_choice_is_a_valid_config_for_any_number_of_images() {
        for method in ["simdino", "simdinov2", "dino", "dinov2"] {
            for images in [2, 5, 40, 836, 5_000, 50_000, 1_281_167, 100_000_000] {
                for on_gpu in [false, true] {
                    let given = json!({ "method": method, "data": { "path": "a" } });
                    let config = config(given, images, on_gpu);
                    assert_eq!(
                        config.validate(),
                        Vec::<String>::new(),
                        "{method} {images} {on_gpu}"
                    );
                    assert!(config.train.batch_size <= images, "{method} {images} {on_gpu}");
                }
            }
        }
    }

    #[test]
    fn every_choice_can_be_shared_by_its_processes() {
        for method in ["simdino", "simdinov2", "dino", "dinov2"] {
            for (processes, passes) in [(1, 2), (2, 1), (3, 1), (8, 1), (8, 2), (64, 1)] {
                for (images, on_gpu) in [(150, false), (300, true), (5_000, true), (5_000, false)] {
                    let given = json!({
                        "method": method, "data": { "path": "a" }, "train": { "accumulate": passes },
                    });
                    let config = config_for(given, images, on_gpu, processes);
                    let mut problems = config.validate();
                    problems.extend(config.problems_of_sharing(processes));
                    let case = format!("{method} {processes}x{passes} {images} {on_gpu}");
                    assert_eq!(problems, Vec::<String>::new(), "{case}");
                    assert!(config.train.batch_size <= images, "{case}");
                }
            }
        }
    }

    #[test]
    fn groups_lie_in_one_process_or_span_all() {
        let of = |batch: usize, processes: usize| {
            let given = json!({ "data": { "path": "a" }, "train": { "batch_size": batch } });
            config_for(given, 5_000, true, processes).simdino.group_rows
        };
        let rows = [(64, 1), (64, 8), (64, 16), (96, 3), (16, 2)].map(|(b, p)| of(b, p).unwrap());
        assert_eq!(rows, [16, 8, 64, 16, 8]);
    }

    #[test]
    fn what_is_given_stays_and_the_rest_follows_its_length() {
        let given = json!({
            "data": { "path": "a" }, "model": { "arch": "vit_tiny" }, "train": { "epochs": 2.0 },
            "probe": { "train_path": "b", "test_path": "c" },
        });
        let config = config(given, 800, false);
        assert_eq!(serde_json::to_value(config.model.arch).unwrap(), "vit_tiny");
        assert_eq!((config.train.epochs, config.train.log_every), (2.0, 1));
        assert_eq!(config.train.checkpoint_every, Some(5));
        let every = Some(EveryEpochs::Number(0.2));
        assert_eq!((config.optim.warmup_epochs, config.probe.every_epochs), (0.16, every));
    }

    #[test]
    fn groups_have_about_sixteen_images_whatever_the_batch() {
        let of = |train: Value, simdino: Value| {
            let given = json!({ "data": { "path": "a" }, "train": train, "simdino": simdino });
            let config = config(given, 5_000, false);
            (config.groups()[0].1, config.train.batch_size, config.validate())
        };
        for (batch, groups) in
            [(8, 1), (16, 1), (20, 2), (34, 2), (50, 5), (64, 4), (97, 1), (256, 16)]
        {
            let got = of(json!({ "batch_size": batch }), json!({}));
            assert_eq!(got, (groups, batch, Vec::new()));
        }
        // A number of groups that the config gives is kept.
        assert_eq!(of(json!({ "batch_size": 64 }), json!({ "rate_groups": 2 })).0, 2);
    }

    #[test]
    fn a_given_rate_changes_nothing_else() {
        let of = |optim: Value| {
            config(json!({ "data": { "path": "a" }, "optim": optim }), 800, false).optim
        };
        let chosen = of(json!({}));
        assert_eq!((chosen.momentum_batch, chosen.base_lr), (Some(16), 8e-3));
        let given = of(json!({ "momentum_teacher": 0.996, "base_lr": 1e-3 }));
        assert_eq!((given.momentum_teacher, given.base_lr), (0.996, 1e-3));
        assert_eq!((given.momentum_batch, given.lr_scaling), (Some(16), chosen.lr_scaling));
    }

    #[test]
    fn a_given_eps_keeps_its_meaning() {
        let of = |simdino: Value| {
            let given = json!({ "data": { "path": "a" }, "simdino": simdino });
            let simdino = config(given, 800, false).simdino;
            (simdino.eps, simdino.eps_semantics)
        };
        assert_eq!(of(json!({})), (0.025, EpsSemantics::Relative));
        assert_eq!(of(json!({ "eps": 0.1 })), (0.1, EpsSemantics::Code));
        assert_eq!(of(json!({ "eps_semantics": "paper" })), (0.05, EpsSemantics::Paper));
    }

    #[test]
    fn a_cpu_sees_as_many_images_whatever_their_number() {
        let seen = |images: usize| {
            let given = json!({ "data": { "path": "a" } });
            config(given, images, false).train.epochs * images as f64
        };
        for images in [1_000, 50_000, 1_281_167] {
            assert!((seen(images) / IMAGES_ON_CPU - 1.0).abs() < 0.05, "{images}");
        }
        assert_eq!(seen(100), MOST_EPOCHS * 100.0);
    }
}
