//! The model card: what an exported folder contains, how it was made, and how to open it.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use base::counted;
use model::weights::{PretrainedBackbone, Role};
use report::percent;
use serde_json::Value;
use trainer::files::read_json;

use crate::commands::import::name;

/// Maximum number of lines of the recipe in a card.
const RECIPE_LINES: usize = 200;

/// Returns the words for images with `channels` channels.
fn input(channels: i64) -> String {
    match channels {
        1 => "grayscale".to_owned(),
        3 => "RGB".to_owned(),
        _ => format!("{channels} channels"),
    }
}

/// Returns the card of `weights`, which were read from `source`. If `source` is a run, the card
/// includes the recipe, the fingerprint of the data, and the k-NN results. `loading` are the lines
/// of Python that open the folder.
pub fn write(
    source: &Path,
    weights: &PretrainedBackbone,
    role: Role,
    loading: &[String; 2],
) -> String {
    let role = role.name();
    let model = &weights.model;
    let dims = model.arch.dimensions();
    let mut card = String::from(
        "---\nlibrary_name: simdino\npipeline_tag: image-feature-extraction\n\
         tags:\n- self-supervised\n- vision-transformer\n---\n\n",
    );
    let title =
        source.file_name().map_or_else(|| source.to_string_lossy(), |n| n.to_string_lossy());
    let _ = writeln!(card, "# {title}\n");
    let _ = writeln!(
        card,
        "The {role} of a self-supervised vision transformer: {}, width {}, {} blocks, {} heads, \
         patch size {}, positional embedding for images of {} pixels, {} register tokens.\n",
        name(model.arch),
        dims.embed_dim,
        dims.depth,
        model.heads(),
        model.patch_size,
        model.image_size,
        model.num_register_tokens
    );
    let _ = writeln!(
        card,
        "Input: {} in [0, 1], normalized with mean {:?} and standard deviation {:?}. For images \
         of another size, the positional embedding is interpolated; this network expects the form \
         `{}`.\n",
        input(model.in_channels),
        weights.normalize.mean,
        weights.normalize.std,
        name(model.pos_interpolation)
    );
    let _ = writeln!(card, "## Usage\n\n```python\n{}\n```\n", loading.join("\n"));
    training(&mut card, source, weights);
    results(&mut card, &read_json(&source.join("results.json")).unwrap_or_default());
    recipe(&mut card, source);
    card
}

fn training(card: &mut String, source: &Path, weights: &PretrainedBackbone) {
    card.push_str("## Provenance\n\n");
    let _ = writeln!(card, "- converted from `{}`", weights.report.path.display());
    if weights.step > 0 {
        let steps = counted(weights.step, "step", "steps");
        let _ = writeln!(card, "- trained for {steps}");
    }
    let environment = read_json::<Value>(&source.join("env.json")).unwrap_or_default();
    for (key, words) in [
        ("simdino", "simdino version"),
        ("git_commit", "commit"),
        ("data_fingerprint", "data fingerprint"),
        ("device", "device"),
    ] {
        if let Some(value) = environment[key].as_str() {
            let dirty = key == "git_commit" && environment["git_dirty"] == true;
            let _ = writeln!(card, "- {words}: {value}{}", if dirty { " (modified)" } else { "" });
        }
    }
    card.push('\n');
}

/// Appends the k-NN accuracies of a run and of its baselines.
fn results(card: &mut String, results: &Value) {
    let scores = |key: &str| {
        let column = &results[key];
        column.as_array().or_else(|| column["scores"].as_array()).cloned().unwrap_or_default()
    };
    let rows = scores("knn");
    if rows.is_empty() {
        return;
    }
    let count = |key: &str| results["knn"][key].as_u64();
    let images = match (count("num_train"), count("num_test")) {
        (Some(train), Some(test)) => format!(", {train} training and {test} test images"),
        _ => String::new(),
    };
    let _ = writeln!(card, "## Evaluation\n\nTop-1 accuracy of weighted k-NN{images}:\n");
    card.push_str("| k | this network | untrained | raw pixels |\n|---|---|---|---|\n");
    let (untrained, pixels) = (scores("untrained"), scores("pixels"));
    let cell = |row: Option<&Value>| {
        row.and_then(|row| row["top1"].as_f64())
            .map_or_else(|| "-".to_owned(), |top1| percent(top1, 1))
    };
    for row in &rows {
        let of = |column: &[Value]| cell(column.iter().find(|other| other["k"] == row["k"]));
        let cells = [cell(Some(row)), of(&untrained), of(&pixels)];
        let _ = writeln!(card, "| {} | {} |", row["k"], cells.join(" | "));
    }
    card.push('\n');
}

fn recipe(card: &mut String, source: &Path) {
    let Ok(recipe) = fs::read_to_string(source.join("config.yaml")) else { return };
    let lines: Vec<&str> = recipe.lines().take(RECIPE_LINES).collect();
    let _ = writeln!(card, "## Recipe\n\n```yaml\n{}\n```", lines.join("\n"));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn baselines_stand_beside_the_same_number_of_neighbors() {
        let measured = json!({
            "knn": {"scores": [{"k": 10, "top1": 0.5}, {"k": 20, "top1": 0.6}]},
            "untrained": {"scores": [{"k": 20, "top1": 0.3}]},
            "pixels": [{"k": 20, "top1": 0.2}, {"k": 10, "top1": 0.1}],
        });
        let mut card = String::new();
        results(&mut card, &measured);
        assert!(card.contains("| 10 | 50.0% | - | 10.0% |"), "{card}");
        assert!(card.contains("| 20 | 60.0% | 30.0% | 20.0% |"), "{card}");
    }
}
