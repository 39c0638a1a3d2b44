//! Tests of runs that are shortened, by the file or on the command line.

use serde_json::json;
use simdino::config::Resolved;

use super::{parse, read, to_yaml};

const DINOV2: &str = "method: dinov2\ndata: {path: a}\n";

/// Returns the note about what is adjusted if the run is short; `None` if nothing is.
fn said(text: &str, overrides: &[&str]) -> Option<String> {
    let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
    let Resolved { config, notes, .. } = read(json!({}), text, "c.yaml", &overrides).unwrap();
    // The full config reads back the same and needs no further adjustment.
    let again = read(json!({}), &to_yaml(&config).unwrap(), "c.yaml", &[]).unwrap();
    assert_eq!((again.config, again.notes), (config, Vec::new()), "{text}");
    notes.into_iter().next()
}

#[test]
fn a_short_run_has_a_short_warm_up() {
    let quick = "data: {path: a}\noptim: {warmup_epochs: 5}\ntrain: {epochs: 50}\n";
    let start = "train.epochs 2 is a short run, so these settings were shortened, too: ";
    assert_eq!(
        said(quick, &["train.epochs=2"]),
        Some(format!("{start}optim.warmup_epochs from 5 to 0.2"))
    );
    assert_eq!(
        said(DINOV2, &["train.epochs=2"]),
        Some(format!(
            "{start}optim.warmup_epochs from 10 to 0.2, \
             dino.teacher_temp_warmup_epochs from 30 to 0.6"
        ))
    );
    // The file shortens the run of its recipe, whose last layer would be frozen for the only epoch.
    let own = format!("{DINOV2}train: {{epochs: 1}}\noptim: {{warmup_epochs: 0.5}}\n");
    assert_eq!(
        said(&own, &[]).unwrap(),
        "train.epochs 1 is a short run, so these settings were shortened, too: \
         optim.freeze_last_layer_epochs from 1 to 0.01, dino.teacher_temp_warmup_epochs from 30 to \
         0.3"
    );
    let third = "data: {path: a}\ntrain: {epochs: 30}\noptim: {warmup_epochs: 10}\n";
    assert!(said(third, &["train.epochs=2"]).unwrap().ends_with("from 10 to 0.6667"));
}

#[test]
fn what_fits_is_left_and_what_contradicts_itself_is_refused() {
    assert_eq!(said("data: {path: a}\n", &["train.epochs=11"]), None);
    assert_eq!(said(DINOV2, &["train.epochs=31"]), None);
    let both = "data: {path: a}\noptim: {warmup_epochs: 5}\ntrain: {epochs: 2}\n";
    let above = ["train.epochs=2", "optim.warmup_epochs=5"].map(str::to_owned);
    let over_file = ["optim.warmup_epochs=5".to_owned()];
    let file = "data: {path: a}\ntrain: {epochs: 2}\n";
    for (text, overrides) in
        [(both, &[][..]), ("data: {path: a}\n", &above[..]), (file, &over_file[..])]
    {
        let problems = parse(text, "c.yaml", overrides).unwrap().validate();
        let expected = "optim.warmup_epochs: must not exceed train.epochs 2 (got 5)";
        assert_eq!(problems, [expected], "{text} {overrides:?}");
    }
    // A contradiction that the file already has is not adjusted away.
    let problems = parse(both, "c.yaml", &["train.epochs=1".to_owned()]).unwrap().validate();
    assert_eq!(problems.len(), 1, "{problems:?}");
}

#[test]
fn a_frozen_last_layer_may_be_asked_for() {
    let text = format!("{DINOV2}train: {{epochs: 40}}\noptim: {{freeze_last_layer_epochs: 99}}\n");
    assert_eq!(said(&text, &[]), None);
    let config = parse(&text, "c.yaml", &[]).unwrap();
    assert_eq!(config.validate(), Vec::<String>::new());
    assert_eq!(
        config.without_effect(),
        [
            "optim.freeze_last_layer_epochs 99 covers the whole run: the prototypes are never trained"
        ]
    );
}
