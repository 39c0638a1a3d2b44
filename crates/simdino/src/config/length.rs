//! Scales settings in epochs when a higher layer of the config shortens the run.
//!
//! A config consists of layers: the recipe of the method, the file, and the command line. A warm-up
//! of 5 epochs is meant for the run length that is set in its own layer or a lower one. If a higher
//! layer makes the run so short that the warm-up would fill it, the warm-up is shortened in
//! proportion, and a note says so. Contradictory values in the same layer are left to validation.

use serde_json::Value;

use super::RunConfig;

const EPOCHS: &str = "train.epochs";

/// A setting in epochs.
struct Setting {
    key: &'static str,
    of: fn(&mut RunConfig) -> &mut f64,
    /// Whether it has an effect without prototypes.
    always: bool,
}

const SETTINGS: [Setting; 3] = [
    Setting { key: "optim.warmup_epochs", of: |c| &mut c.optim.warmup_epochs, always: true },
    Setting {
        key: "optim.freeze_last_layer_epochs",
        of: |c| &mut c.optim.freeze_last_layer_epochs,
        always: false,
    },
    Setting {
        key: "dino.teacher_temp_warmup_epochs",
        of: |c| &mut c.dino.teacher_temp_warmup_epochs,
        always: false,
    },
];

/// Shortens settings that would fill the run of `config`, which was merged from `layers`, the
/// lowest first. Returns a sentence about the changes, if any.
pub(crate) fn shorten(config: &mut RunConfig, layers: &[&Value]) -> Option<String> {
    let epochs = config.train.epochs;
    let (of_epochs, _) = given(layers, EPOCHS)?;
    let mut changes = Vec::new();
    for Setting { key, of, always } in SETTINGS {
        let Some((layer, value)) = given(layers, key) else { continue };
        let Some((_, meant)) = given(&layers[..=layer], EPOCHS) else { continue };
        let fills = layer < of_epochs && epochs > 0.0 && value >= epochs && value <= meant;
        if !fills || !(always || config.has_prototypes()) {
            continue;
        }
        let shorter = short(value * epochs / meant);
        *of(config) = shorter;
        changes.push(format!("{key} from {value} to {shorter}"));
    }
    (!changes.is_empty()).then(|| {
        format!(
            "{EPOCHS} {epochs} is a short run, so these settings were shortened, too: {}",
            changes.join(", ")
        )
    })
}

/// Rounds to four decimals, which are readable and survive a round trip through JSON or YAML.
fn short(epochs: f64) -> f64 {
    (epochs * 1e4).round() / 1e4
}

/// Returns the index of the highest layer that sets the number at a dotted path, and the number.
fn given(layers: &[&Value], path: &str) -> Option<(usize, f64)> {
    let number = |layer: &Value| path.split('.').try_fold(layer, |at, key| at.get(key))?.as_f64();
    layers.iter().enumerate().rev().find_map(|(at, layer)| Some((at, number(layer)?)))
}
