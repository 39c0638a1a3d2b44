//! The part of the command line of `simdino` that the demo, tests, and benchmarks use. Update this
//! file if a subcommand or an option of it changes.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::fail::{Result, failed};
use crate::process;
use crate::workspace::Workspace;

/// A `simdino` binary.
#[derive(Debug)]
pub struct Simdino<'a> {
    workspace: &'a Workspace,
    binary: PathBuf,
}

/// A synthetic dataset to draw.
#[derive(Debug, Clone, Copy)]
pub struct Synthetic {
    /// Number of images.
    pub count: u32,
    /// Side of an image, in pixels.
    pub size: u32,
    /// Seed; datasets with different seeds are independent.
    pub seed: u32,
}

impl<'a> Simdino<'a> {
    /// Builds the binary, with cargo's progress shown.
    ///
    /// # Errors
    /// Returns an error if cargo fails.
    pub fn build(workspace: &'a Workspace) -> Result<Self> {
        let mut binary = None;
        let mut cargo = workspace.cargo(&["build", "--package", "trainer", "--bin", "simdino"]);
        process::each_line(cargo.arg("--message-format=json-render-diagnostics"), |line| {
            binary = binary.take().or_else(|| executable(line, "simdino"));
        })?;
        match binary {
            Some(binary) => Ok(Self { workspace, binary }),
            None => failed("cargo built simdino but did not report its path"),
        }
    }

    fn verb(&self, words: &[&str]) -> Command {
        let mut command = self.workspace.torch_command(&self.binary);
        command.args(words);
        command
    }

    /// Returns the command that plots the study of the gradient's scale to `figure`.
    pub fn analyze_gradient_scale(&self, figure: &Path) -> Command {
        let mut command = self.verb(&["analyze", "gradient-scale", "--plot"]);
        command.arg(figure);
        command
    }

    /// Returns the command that draws `set` into `dir`; the images are then in [`images`].
    pub fn data_synth(&self, dir: &Path, set: Synthetic) -> Command {
        let mut command = self.verb(&["data", "synth"]);
        command.arg(dir);
        for (option, value) in [("--count", set.count), ("--size", set.size), ("--seed", set.seed)]
        {
            command.arg(option).arg(value.to_string());
        }
        command
    }

    /// Returns the command that trains on the images of `data` in the folder `run`, or resumes the
    /// run there.
    pub fn train(&self, config: &str, run: &Path, data: &Path, overrides: &[String]) -> Command {
        let mut command = self.verb(&["train", config]);
        command
            .arg(setting("run.dir", run.parent().unwrap_or(Path::new("")).as_os_str()))
            .arg(setting("run.name", run.file_name().unwrap_or_default()))
            .arg(setting("data.path", images(data).as_os_str()))
            .args(overrides)
            .args(["--resume", "auto"]);
        command
    }

    /// Returns the command that evaluates k-NN with a run's teacher, with the untrained network,
    /// and with raw pixels.
    pub fn eval_knn(&self, run: &Path, train: &Path, test: &Path) -> Command {
        let mut command = self.verb(&["eval", "knn", "--json", "--weights"]);
        command.arg(run).arg("--train").arg(images(train)).arg("--test").arg(images(test));
        command
    }

    /// Returns the command that writes the report [`report_of`] a run.
    pub fn report(&self, run: &Path) -> Command {
        let mut command = self.verb(&["report"]);
        command.arg(run);
        command
    }

    /// Returns the command that prints the completions for `shell`.
    pub fn completions(&self, shell: &str) -> Command {
        self.verb(&["completions", shell])
    }

    /// Returns the path of the binary.
    pub fn path(&self) -> &Path {
        &self.binary
    }

    /// Returns the command that prints the resolved config as a line of JSON.
    pub fn config_json(&self, config: &str, overrides: &[String]) -> Command {
        let mut command = self.verb(&["config", "show", "--json", config]);
        command.args(overrides);
        command
    }

    /// Returns the command that times the training step of a config. Its JSON has the resolved
    /// config under `config`.
    pub fn bench_step(&self, config: &str, steps: u32, overrides: &[String]) -> Command {
        let mut command = self.verb(&["bench", "step", config]);
        command.args(overrides).args(["--json", "--steps"]).arg(steps.to_string());
        command
    }

    /// Returns the command that times the data pipeline with one and two threads, and decoding
    /// alone.
    pub fn bench_data(&self, images: &Path, seconds: f64) -> Command {
        let mut command = self.verb(&["bench", "data", "--json", "--threads", "1,2"]);
        command.arg("--seconds").arg(seconds.to_string()).arg(images);
        command
    }
}

/// Returns the folder in which `data synth DIR` puts the images, by class.
pub fn images(dir: &Path) -> PathBuf {
    dir.join("images")
}

/// Returns the path of the report that `report RUN` writes.
pub fn report_of(run: &Path) -> PathBuf {
    run.join("report.html")
}

/// Accuracies (0 to 1) in the JSON of `eval knn`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Knn {
    /// Accuracy of the trained network.
    pub trained: f64,
    /// Accuracy of the same network with its initial weights.
    pub untrained: f64,
    /// Accuracy of standardized pixels.
    pub pixels: f64,
}

impl Knn {
    /// Reads the accuracies from JSON.
    ///
    /// # Errors
    /// Returns an error if a number is missing or is not between 0 and 1.
    pub fn read(json: &Value) -> Result<Self> {
        let accuracy = |key: &str| match json[key].as_f64() {
            Some(value) if (0.0..=1.0).contains(&value) => Ok(value),
            _ => failed(format!(
                "`simdino eval knn --json` should print an accuracy between 0 and 1 as \"{key}\", \
                 but it printed {json}"
            )),
        };
        Ok(Self {
            trained: accuracy("top1")?,
            untrained: accuracy("untrained")?,
            pixels: accuracy("pixels")?,
        })
    }
}

fn setting(key: &str, value: &OsStr) -> std::ffi::OsString {
    let mut word = std::ffi::OsString::from(key);
    word.push("=");
    word.push(value);
    word
}

/// Returns the path of the program `name` if a line of cargo's JSON messages reports it.
pub fn executable(line: &str, name: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    (message["target"]["name"] == name)
        .then(|| message["executable"].as_str().map(PathBuf::from))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_read_from_cargos_messages() {
        let line = r#"{"reason":"compiler-artifact","target":{"name":"simdino"},"executable":"/x/target/debug/simdino"}"#;
        assert_eq!(executable(line, "simdino"), Some(PathBuf::from("/x/target/debug/simdino")));
        let library =
            r#"{"reason":"compiler-artifact","target":{"name":"trainer"},"executable":null}"#;
        assert_eq!(executable(library, "simdino"), None);
    }

    #[test]
    fn knn_needs_all_three_numbers() {
        let line = r#"{"knn":{"20":0.8},"top1":0.8,"untrained":0.3,"pixels":0.25}"#;
        let knn = Knn::read(&serde_json::from_str(line).unwrap()).unwrap();
        assert_eq!(knn, Knn { trained: 0.8, untrained: 0.3, pixels: 0.25 });
        let percent = serde_json::json!({"top1": 80.0, "untrained": 0.3, "pixels": 0.2});
        assert!(Knn::read(&percent).unwrap_err().to_string().contains("top1"));
        let missing = serde_json::json!({"top1": 0.8, "untrained": 0.3});
        assert!(Knn::read(&missing).unwrap_err().to_string().contains("pixels"));
    }
}
