//! The sections of the page other than the curves and the evaluations.

use serde_json::Value;

use super::markup::{absent, escape, picture, section, text_table, tile};
use super::run::{Piece, Run};
use super::scale::{number, percent};
use super::{curves, results};
use simdino::RunConfig;

/// Number of broken images that a page lists; the files `bad_images*.tsv` have all of them.
const MAX_BROKEN: usize = 100;

/// Returns the header: the name of the run, a one-line summary, and the key numbers.
pub(crate) fn header(run: &Run) -> String {
    let mut tiles = results::tiles(run);
    if let Some(rank) = run.last("probe/effective_rank") {
        tiles.push(tile("effective rank", &number(rank), "directions that the features use"));
    }
    if let Some(position) = run.last("rate/position") {
        tiles.push(tile("coding rate", &percent(position, 1), "of the way from floor to ceiling"));
    }
    if let Some(speed) = run.last("speed/img_s") {
        tiles.push(tile("speed", &number(speed), "images per second"));
    }
    if let Some(seconds) = training_seconds(run) {
        tiles.push(tile("training time", &duration(seconds), "total time of all steps"));
    }
    format!(
        "<header>\n<p class=\"kind\">simdino run</p>\n<h1>{}</h1>\n<p class=\"lead\">{}</p>\n\
         <div class=\"tiles\">{}</div>\n</header>\n",
        escape(&run.name),
        escape(&summary(run)),
        tiles.concat()
    )
}

/// Describes in one line what was trained, on which data, and for how long.
fn summary(run: &Run) -> String {
    let mut parts = Vec::new();
    if let Some(config) = &run.config {
        let arch = word(&config.model.arch);
        let data = config.data.describe();
        let batch = config.train.batch_size;
        parts.push(format!(
            "{} with {arch}, patch size {}, on {data}, batch size {batch}",
            word(&config.method),
            config.model.patch_size
        ));
    }
    if let Some(last) = run.records().last() {
        let steps = if last.step == 1 { "step" } else { "steps" };
        parts.push(format!("{} {steps}, {:.1} epochs", last.step, last.epoch));
    }
    parts.join("; ")
}

/// Returns the name of an enum value in a config.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}

/// Returns the seconds spent in training steps, from the mean step time of each logged interval.
fn training_seconds(run: &Run) -> Option<f64> {
    let (mut seconds, mut before) = (0.0, 0);
    for record in run.records() {
        let Some(step_ms) = record.get("speed/step_ms").filter(|ms| ms.is_finite()) else {
            continue;
        };
        seconds += step_ms * 1e-3 * record.step.saturating_sub(before) as f64;
        before = record.step;
    }
    (seconds > 0.0).then_some(seconds)
}

fn duration(seconds: f64) -> String {
    let minutes = (seconds / 60.0) as u64;
    match minutes {
        0 => format!("{seconds:.0} s"),
        1..60 => format!("{minutes} min {:.0} s", (seconds - 60.0 * minutes as f64).floor()),
        _ => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

/// Returns the section on what the network learned: the k-NN table and the curves of probes.
pub(crate) fn learned(run: &Run) -> String {
    let (table, curves) = (results::table(run), curves::probes(run));
    let cards = format!("{}{curves}", table.as_deref().unwrap_or_default());
    let mut body = format!("<div class=\"charts\">\n{cards}</div>\n");
    if let Err(why) = &table {
        body.push_str(&absent("k-NN table", why));
    }
    if run.last("probe/knn_top1").is_none() {
        let why = match curves.is_empty() {
            true => "this run had no probe",
            false => "no probe of this run had labeled images",
        };
        body.push_str(&absent("k-NN during training", why));
    }
    section("learned", "What it learned", &body)
}

/// Returns the section with the pictures of the patch features (PCA) and of the crops.
pub(crate) fn pictures(run: &Run) -> String {
    let pieces = [
        (
            &run.pca,
            "Patch features",
            "Patch features: one image per column; below it, the first three principal components \
             of its patch features as red, green, and blue, then the same for the foreground \
             alone. Parts with similar colors have similar features, across all images.",
        ),
        (
            &run.crops,
            "Crops",
            "Crops: one image per row; its center, its two global crops, then its local crops, as \
             the networks see them in training.",
        ),
    ];
    let body: String = pieces
        .into_iter()
        .map(|(piece, title, caption): (&Piece<Vec<u8>>, &str, &str)| match piece {
            Ok(png) => picture(png, caption),
            Err(why) => absent(title, why),
        })
        .collect();
    section("pictures", "What it sees", &body)
}

/// Returns the section that lists the images that could not be read; empty if there are none.
pub(crate) fn broken(run: &Run) -> String {
    if run.broken.is_empty() {
        return String::new();
    }
    let count = run.broken.len();
    let mut body = format!(
        "<p>{count} {} could not be read and {} replaced by others.</p>\n",
        if count == 1 { "image" } else { "images" },
        if count == 1 { "was" } else { "were" }
    );
    let rows: Vec<Vec<&str>> = run
        .broken
        .iter()
        .take(MAX_BROKEN)
        .map(|(file, reason)| vec![file.as_str(), reason.as_str()])
        .collect();
    body.push_str(&text_table(&["file", "reason"], &rows));
    if count > MAX_BROKEN {
        body.push_str(&format!("<p>The others are in bad_images*.tsv ({count} in all).</p>\n"));
    }
    section("broken", "Broken images", &body)
}

/// Returns the section with the settings that differ from the defaults, and the whole config.
pub(crate) fn config(run: &Run) -> String {
    let text = match &run.config_text {
        Ok(text) => text,
        Err(why) => return absent("Config", why),
    };
    let mut body = String::new();
    if let Some(config) = &run.config {
        let rows = changes(config);
        body.push_str("<p>Settings that differ from the defaults:</p>\n");
        let head = ["key", "this run", "default"];
        body.push_str(&text_table(&head, &rows));
    }
    body.push_str(&format!(
        "<details><summary>Full config</summary><pre>{}</pre></details>\n",
        escape(text)
    ));
    section("config", "Config", &body)
}

fn changes(config: &RunConfig) -> Vec<Vec<String>> {
    let flat = |config: &RunConfig| {
        let mut rows = Vec::new();
        flatten("", &serde_json::to_value(config).unwrap_or_default(), &mut rows);
        rows
    };
    let (here, default) = (flat(config), flat(&RunConfig::default()));
    let changed = here.into_iter().zip(default).filter(|(here, default)| here != default);
    changed.map(|((key, value), (_, default))| vec![key, value, default]).collect()
}

/// Returns the section on the software and hardware of the run.
pub(crate) fn environment(run: &Run) -> String {
    let value = match &run.environment {
        Ok(value) => value,
        Err(why) => return absent("Environment", why),
    };
    let mut rows = Vec::new();
    flatten("", value, &mut rows);
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|(key, value)| vec![key.replace('_', " "), value]).collect();
    let body = text_table(&[], &rows);
    section("environment", "Environment", &body)
}

/// Appends the dotted key and the text of every leaf of `value` to `rows`.
pub(crate) fn flatten(prefix: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    let text = |value: &Value| match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&path, value, rows);
            }
        }
        // A list that contains strings is a command line, not numbers.
        Value::Array(words) if words.iter().any(Value::is_string) => {
            let words: Vec<String> = words.iter().map(text).collect();
            rows.push((prefix.to_owned(), words.join(" ")));
        }
        other => rows.push((prefix.to_owned(), text(other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_listed() {
        let mut config = RunConfig::default();
        assert_eq!(changes(&config), Vec::<Vec<String>>::new());
        config.train.batch_size = 64;
        config.simdino.eps_end = Some(0.5);
        assert_eq!(
            changes(&config),
            [["simdino.eps_end", "0.5", "none"], ["train.batch_size", "64", "512"]]
        );
    }

    #[test]
    fn durations_read_well() {
        for (seconds, expect) in [(4.4, "4 s"), (245.0, "4 min 5 s"), (7384.0, "2 h 3 min")] {
            assert_eq!(duration(seconds), expect);
        }
    }

    #[test]
    fn nested_values_become_rows() {
        let mut rows = Vec::new();
        let value = serde_json::json!({"a": {"b": null}, "line": ["x", "y"], "mean": [0.5, 1.0]});
        flatten("", &value, &mut rows);
        let expect = [("a.b", "none"), ("line", "x y"), ("mean", "[0.5,1.0]")];
        assert_eq!(rows, expect.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
}
