//! `cargo xtask bench step`: compares the training step of a config with the same step in PyTorch.

use std::ffi::OsString;

use serde_json::{Value, json};

use crate::fail::{Result, failed, usage};
use crate::simdino::Simdino;
use crate::workspace::Workspace;
use crate::{process, setup};

const CONFIG: &str = "configs/demo.yaml";
const PEER: &str = "benches/peers/step.py";
/// Packages that the peer needs besides torch; torchvision is the one for torch 2.11.
const PEER_PACKAGES: [&str; 2] = ["timm==1.0.22", "torchvision==0.26.0"];

/// The parsed arguments.
#[derive(Debug, PartialEq)]
struct Request {
    config: String,
    steps: u32,
    json: bool,
    overrides: Vec<String>,
}

/// Runs simdino and its peers one after the other, and prints a table.
///
/// # Errors
/// Returns an error if an option is invalid or a program fails.
pub fn step(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let request = parse(arguments)?;
    setup::run(workspace)?;
    let simdino = Simdino::build(workspace)?;
    let Request { config, steps, overrides, .. } = &request;
    let ours = process::json(&mut simdino.bench_step(config, *steps, overrides))?;
    let mut rows = vec![("simdino".to_owned(), ours)];
    match peer_python(workspace)? {
        Some(python) => {
            for mode in ["eager", "compile"] {
                rows.push(peer(workspace, &python, &rows[0].1, mode, *steps)?);
            }
        }
        None => println!(
            "bench: no peer, because LIBTORCH is set and no python3 on this machine can import \
             torch {}",
            setup::TORCH
        ),
    }
    print!("{}", table(&rows));
    if request.json {
        let rows: Vec<Value> =
            rows.into_iter().map(|(name, row)| json!({"name": name, "result": row})).collect();
        println!("{}", json!({"config": request.config, "rows": rows}));
    }
    Ok(())
}

fn parse(arguments: &[String]) -> Result<Request> {
    let mut request =
        Request { config: CONFIG.to_owned(), steps: 10, json: false, overrides: Vec::new() };
    let mut words = arguments.iter();
    let value_of = |option: &str, value: Option<&String>| match value {
        Some(value) => Ok(value.clone()),
        None => usage(format!("{option} needs a value")),
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => request.json = true,
            "--config" => request.config = value_of(word, words.next())?,
            "--device" => {
                let device = value_of(word, words.next())?;
                request.overrides.push(format!("run.device={device}"));
            }
            "--steps" => {
                let steps = value_of(word, words.next())?;
                let Ok(number) = steps.parse() else {
                    return usage(format!("--steps needs an integer (got '{steps}')"));
                };
                request.steps = number;
            }
            other if other.contains('=') && !other.starts_with('-') => {
                request.overrides.push(word.clone());
            }
            other => return usage(format!("bench step: unexpected argument '{other}'")),
        }
    }
    Ok(request)
}

/// Returns a Python with torch for the peers. Adds timm to `.venv` if it is missing.
fn peer_python(workspace: &Workspace) -> Result<Option<OsString>> {
    python_with(workspace, "timm.models", &PEER_PACKAGES)
}

/// Returns a Python with torch. Adds `packages` to `.venv` if `module` cannot be imported.
pub(crate) fn python_with(
    workspace: &Workspace,
    module: &str,
    packages: &[&str],
) -> Result<Option<OsString>> {
    let Some(python) = setup::python_with_torch(workspace) else { return Ok(None) };
    let import = format!("import {module}");
    let there = || process::probe(workspace.command(&python).args(["-c", &import])).is_some();
    if python == workspace.path(setup::VENV_PYTHON) && !there() {
        println!("installing {} into .venv", packages.join(" and "));
        setup::add_to_venv(workspace, packages)?;
    }
    Ok(Some(python))
}

fn peer(
    workspace: &Workspace,
    python: &OsString,
    ours: &Value,
    mode: &str,
    steps: u32,
) -> Result<(String, Value)> {
    if !ours["config"].is_object() {
        return failed(format!("`simdino bench step --json` gave no \"config\": {ours}"));
    }
    let mut command = workspace.command(python);
    command.args([PEER, "--mode", mode, "--steps", &steps.to_string()]);
    command.arg("--config-json").arg(ours["config"].to_string());
    let result = process::json(&mut command)?;
    Ok((format!("{} {mode}", result["peer"].as_str().unwrap_or("torch")), result))
}

/// Formats one line per program: device, img/s, ratio to simdino, time of a step, and peak memory.
fn table(rows: &[(String, Value)]) -> String {
    let ours = rows.first().and_then(|(_, row)| row["img_s"].as_f64());
    let mut text = format!(
        "{:<16} {:<28} {:>10} {:>16} {:>10} {:>12}\n",
        "program", "device", "img/s", "simdino is", "step ms", "peak MiB"
    );
    for (name, row) in rows {
        let img_s = row["img_s"].as_f64();
        let ratio = match (ours, img_s) {
            (Some(ours), Some(theirs)) if theirs > 0.0 => format!("{:.2}x as fast", ours / theirs),
            _ => "-".to_owned(),
        };
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.1}"));
        let device = row["device"].as_str().unwrap_or("-");
        let peak = row["peak_memory_bytes"].as_f64().map(|bytes| bytes / f64::from(1 << 20));
        text += &format!(
            "{name:<16} {device:<28} {:>10} {ratio:>16} {:>10} {:>12}\n",
            number(img_s),
            number(row["step_ms"].as_f64()),
            number(peak)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let words =
            |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
        let request =
            parse(&words("--config c.yaml --device cpu --json --steps 3 model.arch=vit_tiny"));
        let expect = Request {
            config: "c.yaml".into(),
            steps: 3,
            json: true,
            overrides: vec!["run.device=cpu".into(), "model.arch=vit_tiny".into()],
        };
        assert_eq!(request.unwrap(), expect);
        assert_eq!(parse(&words("--steps many")).unwrap_err().code(), 2);
        assert_eq!(parse(&words("--config")).unwrap_err().code(), 2);
        assert_eq!(parse(&words("--fast")).unwrap_err().code(), 2);
    }

    #[test]
    fn the_table_shows_the_ratio() {
        let row = |img_s: f64| json!({"device": "cpu", "img_s": img_s, "step_ms": 1.0, "peak_memory_bytes": 1 << 30});
        let text = table(&[("simdino".into(), row(30.0)), ("timm eager".into(), row(20.0))]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].contains("1.00x as fast") && lines[1].contains("1024.0"), "{text}");
        assert!(lines[2].contains("1.50x as fast"), "{text}");
    }
}
