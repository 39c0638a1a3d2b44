//! Describes the contents of a file or folder that simdino reads or writes.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use base::{counted, printable};
use data::DataConfig;
use data::source::is_image;
use model::weights::{
    FileFormat, NetworkInFile, Role, TensorFile, find, infer, is_index, networks,
};
use serde_json::{Value, json};
use trainer::files::read_json;
use trainer::metrics::read_jsonl;

use super::findings::Findings;
use crate::failure::{Failure, Result};

/// Extensions of weight files.
const WEIGHT_FILES: [&str; 5] = ["safetensors", "pth", "pt", "bin", "ckpt"];

/// Extensions of lists and shards of images.
const IMAGE_FILES: [&str; 8] = ["txt", "csv", "tsv", "jsonl", "tar", "gz", "tgz", "parquet"];

/// Finds out what `path` is, and describes its contents.
///
/// # Errors
/// Returns an error if `path` is damaged or contains nothing that simdino knows.
pub fn inspect(path: &Path) -> Result<Findings> {
    let latest = simdino::weights::pointed_to(path);
    let path = latest.as_deref().unwrap_or(path);
    let weight_file = |e: &std::ffi::OsStr| WEIGHT_FILES.iter().any(|known| e == *known);
    if path.is_file() && (path.extension().is_some_and(weight_file) || is_index(path)) {
        weights(path)
    } else if path.join("manifest.json").is_file() || path.join("state.json").is_file() {
        checkpoint(path)
    } else if path.join("config.resolved.yaml").is_file() || path.join("metrics.jsonl").is_file() {
        run(path)
    } else if let Some(file) = exported(path) {
        weights(&file)
    } else {
        source(path)
    }
}

/// Returns the weight file of an exported or downloaded model in a folder.
fn exported(folder: &Path) -> Option<PathBuf> {
    if folder.is_dir() { find(folder, Role::Teacher).ok() } else { None }
}

/// Appends a line with a name and a value.
fn row(text: &mut String, name: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "{name:<16}{}", printable(&value.to_string()));
}

fn weights(path: &Path) -> Result<Findings> {
    let file = TensorFile::open(path)?;
    let count = |shape: &[i64]| shape.iter().product::<i64>() as usize;
    let numbers: usize = file.tensors().map(|(_, info)| count(info.shape)).sum();
    let mut text = String::new();
    row(&mut text, "weights", path.display());
    row(&mut text, "file format", format_name(file.format()));
    row(&mut text, "tensors", file.tensors().count());
    row(&mut text, "elements", grouped(numbers));
    let networks = networks(&file);
    let mut found = Vec::new();
    for network in &networks {
        found.push(describe(&file, network, &mut text));
    }
    for (key, value) in file.entries() {
        if let Some(value) = readable(value) {
            row(&mut text, key, value);
        }
    }
    let mut tensors = Vec::new();
    for (name, info) in file.tensors() {
        let (shape, kind) = (info.shape, format!("{:?}", info.kind).to_lowercase());
        let _ = writeln!(text, "  {name:<48} {kind:<9} {shape:?}");
        tensors.push(json!({"name": name, "kind": kind, "shape": shape}));
    }
    let json = json!({
        "type": "weights",
        "format": format_name(file.format()),
        "numbers": numbers,
        "networks": found,
        "metadata": file.entries(),
        "tensors": tensors,
    });
    Ok(Findings { text, json })
}

/// Formats a value of the metadata, which may be JSON, without quotes and braces. Returns `None` if it
/// is empty.
fn readable(value: &str) -> Option<String> {
    match serde_json::from_str(value) {
        Ok(Value::Object(entries)) => {
            let entries = entries.iter().filter(|(_, value)| !value.is_null());
            let entries = entries.map(|(key, value)| format!("{key} {}", plain(value)));
            Some(entries.collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty())
        }
        Ok(Value::Array(items)) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            (!items.is_empty()).then(|| items.join(", "))
        }
        _ => Some(value.to_owned()),
    }
}

fn format_name(format: FileFormat) -> &'static str {
    match format {
        FileFormat::Safetensors => "safetensors",
        FileFormat::Pth => "torch.save",
        FileFormat::PthLegacy => "torch.save before 1.6",
    }
}

/// Appends the lines about one network of a file, and returns the same as JSON.
fn describe(file: &TensorFile, network: &NetworkInFile, text: &mut String) -> Value {
    let place = network.prefix.trim_end_matches('.');
    let place = if place.is_empty() { "the whole file" } else { place };
    match infer(file, network) {
        Ok(inferred) => {
            let model = &inferred.model;
            let head = if network.has_head() { ", with a projection head" } else { "" };
            let words = format!(
                "{place}: {}, patch size {}, image size {}, {}{head}, {} keys",
                crate::commands::import::name(model.arch),
                model.patch_size,
                model.image_size,
                counted(model.num_register_tokens, "register token", "register tokens"),
                network.style.name()
            );
            row(text, "network", words);
            let unknown = network.unknown();
            for key in &unknown {
                row(text, "unsupported", key);
            }
            json!({"prefix": network.prefix, "style": network.style.name(), "model": model, "head": inferred.head, "not_computed": unknown})
        }
        Err(error) => {
            let problem = base::error_chain(&error);
            row(text, "network", format!("{place}: {problem}"));
            json!({"prefix": network.prefix, "problem": problem})
        }
    }
}

/// Groups digits by thousands: `1234567` becomes `1 234 567`.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

fn checkpoint(path: &Path) -> Result<Findings> {
    trainer::checkpoint::verify(path)?;
    let state: Value = read_json(&path.join("state.json"))?;
    let mut text = String::new();
    row(&mut text, "checkpoint", path.display());
    row(&mut text, "integrity", "all files match the checksums in the manifest");
    for key in ["step", "epoch", "position", "seed", "data_fingerprint"] {
        row(&mut text, key.trim_start_matches("data_"), plain(&state[key]));
    }
    let mut files = Vec::new();
    for file in files_of(path)? {
        let (name, bytes) = (name_of(&file), fs::metadata(&file)?.len());
        let (size, unit) = if bytes < 100_000 { (1e3, "kB") } else { (1e6, "MB") };
        let mut line = format!("  {name:<24} {:>8.1} {unit}", bytes as f64 / size);
        let mut entry = json!({"name": name, "bytes": bytes});
        if name.ends_with(".safetensors") {
            let file = TensorFile::open(&file)?;
            let sizes = file.tensors().map(|(_, info)| info.shape.iter().product::<i64>() as usize);
            let (count, numbers) = (file.tensors().count(), sizes.sum::<usize>());
            let _ = write!(
                line,
                "  {}, {} elements",
                counted(count, "tensor", "tensors"),
                grouped(numbers)
            );
            entry["tensors"] = count.into();
            entry["numbers"] = numbers.into();
        }
        let _ = writeln!(text, "{line}");
        files.push(entry);
    }
    Ok(Findings { text, json: json!({"type": "checkpoint", "state": state, "files": files}) })
}

fn run(path: &Path) -> Result<Findings> {
    let metrics = path.join("metrics.jsonl");
    let mut text = String::new();
    row(&mut text, "run", path.display());
    let mut newest = json!({});
    // A run that has not begun has no metrics.
    let records = match metrics.exists().then(|| read_jsonl(&metrics)) {
        Some(Err(error)) => {
            let problem = base::error_chain(&error);
            row(&mut text, "metrics", &problem);
            newest["problem"] = problem.into();
            Vec::new()
        }
        Some(Ok(records)) => records,
        None => Vec::new(),
    };
    if let Some(last) = records.last() {
        row(&mut text, "steps", last.step);
        row(&mut text, "epochs", format!("{:.2}", last.epoch));
        newest["step"] = last.step.into();
        newest["epoch"] = last.epoch.into();
    }
    for name in ["loss/total", "rate/position", "speed/img_s", "probe/knn_top1"] {
        let values = records.iter().rev().filter_map(|record| record.get(name));
        if let Some(value) = values.into_iter().next() {
            row(&mut text, name, format!("{value:.4}"));
            newest[name] = value.into();
        }
    }
    let checkpoints = files_of(&path.join("checkpoints")).unwrap_or_default();
    let checkpoints: Vec<String> =
        checkpoints.iter().filter(|p| p.is_dir()).map(|p| name_of(p)).collect();
    row(&mut text, "checkpoints", listed(&checkpoints));
    let weights = files_of(&path.join("weights")).unwrap_or_default();
    let weights: Vec<String> = weights.iter().map(|p| name_of(p)).collect();
    row(&mut text, "weights", listed(&weights));
    let has_report = path.join("report.html").is_file();
    row(&mut text, "report", if has_report { "report.html" } else { "none" });
    let json = json!({
        "type": "run",
        "newest": newest,
        "checkpoints": checkpoints,
        "weights": weights,
    });
    Ok(Findings { text, json })
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

fn source(path: &Path) -> Result<Findings> {
    let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default();
    if path.is_file() && !is_image(path) && !IMAGE_FILES.contains(&end.to_lowercase().as_str()) {
        return Err(Failure::failed(format!(
            "{}: inspect does not read this kind of file: it takes weights (.{}), files of images \
             (.{}), and folders of images, runs, and checkpoints",
            path.display(),
            WEIGHT_FILES.join(", ."),
            IMAGE_FILES.join(", .")
        )));
    }
    let path_text = path.display().to_string();
    let dataset = data::open(&DataConfig { path: Some(path_text), ..DataConfig::default() })?;
    let fingerprint = dataset.fingerprint();
    let mut text = String::new();
    row(&mut text, "images", format!("{} ({})", path.display(), dataset.kind()));
    row(&mut text, "count", dataset.len());
    row(&mut text, "classes", dataset.num_classes());
    if !dataset.class_names().is_empty() {
        row(&mut text, "", dataset.class_names().join(", "));
    }
    row(&mut text, "fingerprint", &fingerprint);
    row(&mut text, "first", first_image(&dataset));
    let json = json!({
        "type": "images",
        "kind": dataset.kind(),
        "count": dataset.len(),
        "classes": dataset.num_classes(),
        "class_names": dataset.class_names(),
        "fingerprint": fingerprint,
    });
    Ok(Findings { text, json })
}

fn first_image(dataset: &data::Dataset) -> String {
    match dataset.inspect(0, 0) {
        Ok(data::Inspection { image, format, .. }) => {
            format!("{}, {format}, {} x {}", dataset.name(0), image.width(), image.height())
        }
        Err(error) => base::error_chain(&error),
    }
}

/// Returns the entries of a folder, sorted by name.
fn files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped() {
        for (number, expect) in [(7, "7"), (1234, "1 234"), (21_000_000, "21 000 000")] {
            assert_eq!(grouped(number), expect);
        }
    }

    #[test]
    fn a_weight_file_tells_its_tensors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.safetensors");
        let tensors = [("a.weight".to_owned(), tch::Tensor::zeros([3, 4], tch::kind::FLOAT_CPU))];
        let metadata = [("role".to_owned(), "teacher".to_owned())].into();
        model::weights::write_safetensors(&path, &tensors, &metadata).unwrap();
        let findings = inspect(&path).unwrap();
        assert_eq!(findings.json["numbers"], 12);
        assert_eq!(findings.json["tensors"][0]["shape"], json!([3, 4]));
        assert!(findings.text.contains("role            teacher"), "{}", findings.text);
    }

    #[test]
    fn metadata_is_shown_without_the_signs_of_json() {
        let model = r#"{"arch":"vit_nano","heads":3,"layer_scale":null}"#;
        assert_eq!(readable(model).as_deref(), Some("arch vit_nano, heads 3"));
        assert_eq!(readable("[0.5,0.25]").as_deref(), Some("0.5, 0.25"));
        assert_eq!((readable("[]"), readable("teacher")), (None, Some("teacher".to_owned())));
    }

    #[test]
    fn what_inspect_takes_is_said_about_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.npy");
        fs::write(&path, "x").unwrap();
        let failure = inspect(&path).err().unwrap();
        let said = failure.lines().concat();
        assert!(said.contains("f.npy: ") && said.contains(".safetensors, .pth"), "{said}");
        assert!(said.contains(".parquet") && failure.code() == 1, "{said}");
    }

    #[test]
    fn a_run_and_a_folder_without_images_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        assert!(inspect(dir.path()).is_err());
        fs::write(
            dir.path().join("metrics.jsonl"),
            "{\"step\":4,\"epoch\":0.5,\"loss/total\":-1}\n",
        )
        .unwrap();
        let findings = inspect(dir.path()).unwrap();
        assert_eq!(findings.json["newest"]["step"], 4);
        assert_eq!(findings.json["newest"]["loss/total"], -1.0);
    }
}
