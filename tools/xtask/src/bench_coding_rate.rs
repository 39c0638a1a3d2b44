//! `cargo xtask bench coding-rate`: compares the closed form with autograd through Cholesky.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::fail::{Context, Result, failed, usage};
use crate::workspace::Workspace;
use crate::{process, setup};

/// Names of the sizes in the Criterion benchmark.
const SIZES: [&str; 5] = ["64x256", "64x768", "512x256", "1024x256", "8x64x256"];
/// Folder with the results of Criterion.
const RESULTS: &str = "target/criterion/coding_rate";

/// Median times of one size, in microseconds.
#[derive(Debug, Clone, Copy)]
struct Times {
    closed_form: f64,
    autograd: f64,
    gram: f64,
}

/// Runs the Criterion benchmark and prints its ratios.
///
/// # Errors
/// Returns an error if an option is invalid or the benchmark fails.
pub fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let json = match arguments {
        [] => false,
        [word] if word == "--json" => true,
        [word, ..] => return usage(format!("bench coding-rate: unexpected argument '{word}'")),
    };
    setup::run(workspace)?;
    // The profile of other builds, so that the libtorch bindings are not compiled again.
    let bench = ["bench", "--package", "benches", "--bench", "coding_rate", "--profile", "dev"];
    process::run(&mut workspace.cargo(&bench))?;
    let mut rows = Vec::new();
    for size in SIZES {
        rows.push((size, times(&workspace.path(RESULTS), size)?));
    }
    print!("{}", table(&rows));
    if json {
        println!("{}", summary(&rows));
    }
    Ok(())
}

fn times(results: &Path, size: &str) -> Result<Times> {
    let median = |what: &str| -> Result<f64> {
        let path = results.join(what).join(size).join("new/estimates.json");
        let text =
            fs::read_to_string(&path).context(|| format!("cannot read {}", path.display()))?;
        let estimates: Value = serde_json::from_str(&text)
            .context(|| format!("{} is not valid JSON", path.display()))?;
        match estimates["median"]["point_estimate"].as_f64() {
            Some(nanoseconds) if nanoseconds > 0.0 => Ok(nanoseconds / 1e3),
            _ => failed(format!("{} has no median", path.display())),
        }
    };
    Ok(Times {
        closed_form: median("closed_form")?,
        autograd: median("autograd")?,
        gram: median("gram")?,
    })
}

fn table(rows: &[(&str, Times)]) -> String {
    let mut text = format!(
        "value and gradient of the coding rate, one thread of the CPU, medians in microseconds\n\
         {:<10} {:>12} {:>12} {:>8} {:>12} {:>10}\n",
        "size", "closed form", "autograd", "ratio", "Gram alone", "over Gram"
    );
    for (size, t) in rows {
        text += &format!(
            "{size:<10} {:>12.0} {:>12.0} {:>8.1} {:>12.0} {:>10.1}\n",
            t.closed_form,
            t.autograd,
            t.autograd / t.closed_form,
            t.gram,
            t.closed_form / t.gram
        );
    }
    text
}

/// Returns, by size, the speedup over autograd, and the time relative to the Gram product.
fn summary(rows: &[(&str, Times)]) -> Value {
    let rounded = |x: f64| json!((x * 100.0).round() / 100.0);
    let mut summary: Map<String, Value> = rows
        .iter()
        .map(|(size, t)| ((*size).to_owned(), rounded(t.autograd / t.closed_form)))
        .collect();
    let over: Map<String, Value> = rows
        .iter()
        .map(|(size, t)| ((*size).to_owned(), rounded(t.closed_form / t.gram)))
        .collect();
    summary.insert("over_gram".into(), over.into());
    summary.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_come_from_the_medians_of_criterion() {
        let folder = std::env::temp_dir().join(format!("xtask-rate-{}", std::process::id()));
        for (what, nanoseconds) in [("closed_form", 2e5), ("autograd", 2.5e6), ("gram", 5e4)] {
            let results = folder.join(what).join("64x256/new");
            fs::create_dir_all(&results).unwrap();
            let text = json!({"median": {"point_estimate": nanoseconds}}).to_string();
            fs::write(results.join("estimates.json"), text).unwrap();
        }
        let rows = [("64x256", times(&folder, "64x256").unwrap())];
        let expected = json!({"64x256": 12.5, "over_gram": {"64x256": 4.0}});
        assert_eq!(summary(&rows), expected);
        assert!(table(&rows).contains("12.5"), "{}", table(&rows));
        assert!(times(&folder, "64x768").is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
