//! `cargo xtask gpu-bundle`: creates a folder to copy to a machine that has a GPU but no Rust,
//! where its `gpu_check.py` runs all checks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::fail::{Context, Result, failed, usage};
use crate::files::{copy, strip};
use crate::simdino::Simdino;
use crate::workspace::Workspace;
use crate::{process, setup};

const OUT: &str = "gpu-bundle";
/// Largest size of the folder, which should fit in 64 MiB together with the repository.
const MOST_BYTES: u64 = 56 << 20;
/// Files that are copied unchanged, and their names in the folder.
const FILES: [(&str, &str); 9] = [
    ("tools/gpu_check.py", "gpu_check.py"),
    ("tools/gpu_parts.py", "gpu_parts.py"),
    ("tools/gpu_summary.py", "gpu_summary.py"),
    ("tools/gpu_trace.py", "gpu_trace.py"),
    ("benches/peers/step.py", "step.py"),
    ("configs/cifar10_gpu.yaml", "configs/cifar10_gpu.yaml"),
    ("configs/simdino_vits16_in1k.yaml", "configs/simdino_vits16_in1k.yaml"),
    ("configs/simdino_vitb16_in1k.yaml", "configs/simdino_vitb16_in1k.yaml"),
    ("configs/simdino_vitl16_in1k.yaml", "configs/simdino_vitl16_in1k.yaml"),
];
/// Tests of torch-ext that use a GPU.
const TESTS: [&str; 9] =
    ["nccl", "reducer", "runtime", "foreach", "fused", "attention", "linear", "transfer", "graph"];
/// Name of a peer's config, our config, and the batch size, which fits a GPU with 80 GB.
const PEERS: [(&str, &str, u32); 3] = [
    ("S", "configs/simdino_vits16_in1k.yaml", 128),
    ("B", "configs/simdino_vitb16_in1k.yaml", 128),
    ("L", "configs/simdino_vitl16_in1k.yaml", 64),
];

/// The parsed arguments.
#[derive(Debug, PartialEq)]
struct Request {
    cifar: Option<PathBuf>,
    out: PathBuf,
}

/// Creates the folder from scratch, and prints what to run there.
///
/// # Errors
/// Returns an error if an option is invalid, shards are missing, a build fails, or the folder is
/// too large.
pub fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let request = parse(arguments)?;
    let shards = request.cifar.as_deref().map(shards_of).transpose()?;
    setup::run(workspace)?;
    let simdino = Simdino::build(workspace)?;
    let out = workspace.path(&request.out);
    empty(&out)?;
    for (from, to) in FILES {
        copy(&workspace.path(from), &out.join(to))?;
    }
    strip(workspace, simdino.path(), &out.join("simdino"))?;
    for (name, path) in test_binaries(workspace)? {
        strip(workspace, &path, &out.join("tests").join(name))?;
    }
    for (name, config, batch) in PEERS {
        let config = process::json(&mut simdino.config_json(config, &peer_settings(batch)))?;
        let path = out.join(format!("peers/{name}.json"));
        fs::write(&path, config.to_string())
            .context(|| format!("cannot write {}", path.display()))?;
    }
    for shard in shards.iter().flatten() {
        let name = shard.file_name().unwrap_or_default();
        copy(shard, &out.join("shards").join(name))?;
    }
    finish(&out, shards.is_some(), MOST_BYTES)
}

/// Runs the tests of `gpu_check.py`, which use fake programs and need neither torch nor a GPU.
///
/// # Errors
/// Returns an error if a test fails.
pub fn test(workspace: &Workspace) -> Result<()> {
    let python = setup::python_with_torch(workspace).unwrap_or_else(|| "python3".into());
    let new_enough = "import sys; sys.exit(sys.version_info < (3, 11))";
    if process::probe(workspace.command(&python).args(["-c", new_enough])).is_none() {
        println!("gpu-check: skipped, because there is no Python 3.11 or later");
        return Ok(());
    }
    let mut command = workspace.command(&python);
    command.current_dir(workspace.path("tools")).env("PYTHONDONTWRITEBYTECODE", "1");
    process::run(command.args(["-m", "unittest", "test_gpu_check"]))
}

fn parse(arguments: &[String]) -> Result<Request> {
    let mut request = Request { cifar: None, out: OUT.into() };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--cifar" => match words.next() {
                Some(dir) => request.cifar = Some(dir.into()),
                None => {
                    return usage("--cifar needs the folder that contains cifar10-train-*.tar.gz");
                }
            },
            other if !other.starts_with('-') && request.out == Path::new(OUT) => {
                request.out = other.into();
            }
            other => return usage(format!("gpu-bundle: unexpected argument '{other}'")),
        }
    }
    Ok(request)
}

fn peer_settings(batch: u32) -> Vec<String> {
    let settings = ["train.precision=bf16", "train.accumulate=1"].map(str::to_owned);
    settings.into_iter().chain([format!("train.batch_size={batch}")]).collect()
}

/// Returns the CIFAR-10 shards in `dir`, for both training and testing.
fn shards_of(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).context(|| format!("cannot read {}", dir.display()))?;
    let mut found: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    let named = |path: &PathBuf, which: &str| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&format!("cifar10-{which}-")) && name.ends_with(".tar.gz")
    };
    for which in ["train", "test"] {
        if !found.iter().any(|path| named(path, which)) {
            return failed(format!("{} has no cifar10-{which}-*.tar.gz", dir.display()));
        }
    }
    found.retain(|path| named(path, "train") || named(path, "test"));
    found.sort();
    Ok(found)
}

/// Subfolders of a bundle.
const FOLDERS: [&str; 4] = ["configs", "tests", "peers", "shards"];

/// Creates an empty folder with its subfolders. An existing folder is only emptied if it contains
/// `gpu_check.py` and all subfolders, as those of earlier calls do.
fn empty(out: &Path) -> Result<()> {
    let is_bundle =
        out.join("gpu_check.py").exists() && FOLDERS.iter().all(|name| out.join(name).is_dir());
    if is_bundle {
        fs::remove_dir_all(out).context(|| format!("cannot empty {}", out.display()))?;
    } else if out.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return failed(format!(
            "{} is neither empty nor an earlier bundle: choose another folder",
            out.display()
        ));
    }
    for folder in FOLDERS.map(|name| out.join(name)) {
        fs::create_dir_all(&folder).context(|| format!("cannot create {}", folder.display()))?;
    }
    Ok(())
}

/// Builds the tests, and returns their names and paths.
fn test_binaries(workspace: &Workspace) -> Result<Vec<(&'static str, PathBuf)>> {
    let mut cargo: Command =
        // Built together with the program, so that shared crates have the same features.
        workspace.cargo(&["test", "-p", "simdino-torch-ext", "-p", "trainer", "--no-run"]);
    for name in TESTS {
        cargo.args(["--test", name]);
    }
    let mut found = Vec::new();
    process::each_line(cargo.arg("--message-format=json-render-diagnostics"), |line| {
        found.extend(test_binary(line));
    })?;
    match TESTS.iter().find(|name| found.iter().all(|(have, _)| have != *name)) {
        Some(name) => failed(format!("cargo built the test {name} but did not report its path")),
        None => Ok(found),
    }
}

/// Returns the test that a line of cargo's JSON messages reports.
fn test_binary(line: &str) -> Option<(&'static str, PathBuf)> {
    let message: Value = serde_json::from_str(line).ok()?;
    let name = TESTS.into_iter().find(|name| message["target"]["name"] == *name)?;
    Some((name, message["executable"].as_str()?.into()))
}

fn bytes_below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(std::result::Result::ok);
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => bytes_below(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

fn finish(out: &Path, shards: bool, most: u64) -> Result<()> {
    let (bytes, mib) = (bytes_below(out), f64::from(1 << 20));
    if bytes > most {
        return failed(format!(
            "{} has {:.1} MiB, more than the limit of {:.0} MiB: leave out some shards",
            out.display(),
            bytes as f64 / mib,
            most as f64 / mib
        ));
    }
    println!("{}: {:.1} MiB", out.display(), bytes as f64 / mib);
    if !shards {
        println!("without --cifar DIR, gpu_check.py trains on synthetic images");
    }
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    println!("commands to run on the other machine, where OUT is the folder for the results:");
    println!("    python3 {name}/gpu_check.py smoke OUT    # at most 120 s");
    println!("    python3 {name}/gpu_check.py times OUT    # at most 330 s");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let read =
            |text: &str| parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(read("").unwrap(), Request { cifar: None, out: OUT.into() });
        let both = Request { cifar: Some("shards".into()), out: "there".into() };
        assert_eq!(read("--cifar shards there").unwrap(), both);
        assert_eq!(read("--cifar").unwrap_err().code(), 2);
        assert_eq!(read("--fast").unwrap_err().code(), 2);
        assert_eq!(read("one two").unwrap_err().code(), 2);
    }

    #[test]
    fn a_folder_of_other_things_is_left_alone_and_a_large_bundle_refused() {
        let dir = std::env::temp_dir().join(format!("xtask-bundle-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("thesis.txt"), "x").unwrap();
        assert!(empty(&dir).unwrap_err().to_string().contains("nor an earlier bundle"));
        assert!(shards_of(&dir).unwrap_err().to_string().contains("cifar10-train"));
        // Neither does the script alone make a bundle: `tools/` has it, too.
        fs::write(dir.join("gpu_check.py"), "").unwrap();
        assert!(empty(&dir).is_err());
        FOLDERS.iter().for_each(|name| fs::create_dir(dir.join(name)).unwrap());
        empty(&dir).unwrap();
        assert!(!dir.join("thesis.txt").exists() && dir.join("peers").is_dir());
        fs::write(dir.join("peers/x"), vec![0; 2048]).unwrap();
        assert!(finish(&dir, true, 2048).is_ok());
        assert!(finish(&dir, true, 2047).unwrap_err().to_string().contains("leave out some"));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn tests_are_read_from_cargos_messages() {
        let line = r#"{"target":{"name":"nccl"},"executable":"/x/nccl-12"}"#;
        assert_eq!(test_binary(line), Some(("nccl", "/x/nccl-12".into())));
        assert_eq!(test_binary(r#"{"target":{"name":"nccl"},"executable":null}"#), None);
        assert_eq!(test_binary(r#"{"target":{"name":"torch_ext"},"executable":"/x"}"#), None);
    }
}
