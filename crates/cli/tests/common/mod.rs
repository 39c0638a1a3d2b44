//! Helpers that run the `simdino` binary in a temporary folder.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use image::{GrayImage, Luma, Rgb, RgbImage};
use serde_json::json;

/// A temporary folder with a small config and, usually, synthetic images.
pub struct Bench {
    dir: tempfile::TempDir,
}

/// Config of a run with ten steps of 16 images, which takes a second or two.
const CONFIG: &str = "
data: {path: images/images, workers: 1}
augment: {global_crops_size: 32, local_crops_size: 16, local_crops_number: 2}
model: {arch: vit_nano, patch_size: 8, image_size: 32, drop_path_rate: 0.1}
head: {hidden_dim: 32, out_dim: 16}
simdino: {rate_groups: 2}
optim: {warmup_epochs: 1}
train: {batch_size: 16, epochs: 2, log_every: 1, checkpoint_every: 3}
run: {device: cpu, threads: 1}
";

/// Overrides that make runs comparable if they split a batch differently. With the drop path form
/// `batch`, the result depends on the split. With DINOv2's published LayerScale of 1e-5, all images
/// have nearly the same features at first, so rounding would decide the nearest neighbors of KoLeo.
pub const COMPARABLE: [&str; 2] = ["model.drop_path_form=image", "model.layer_scale=0.1"];

impl Bench {
    /// Creates the config `tiny.yaml`, and 80 images of 32 pixels in the folder `images`.
    pub fn new() -> Self {
        let bench = Self::without_images();
        bench.ok(&["data", "synth", "images", "--count", "80", "--size", "32"]);
        bench
    }

    /// Creates only the config `tiny.yaml`.
    pub fn without_images() -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::write(bench.path("tiny.yaml"), CONFIG).unwrap();
        bench
    }

    /// Draws images with two classes, bright at the top and dark at the bottom, into the folders
    /// `images` and `labels` of `train` and `test`.
    pub fn draw_scenes(&self) {
        for (set, count) in [("train", 5), ("test", 2)] {
            let [images, labels] =
                ["images", "labels"].map(|kind| self.path(&format!("{set}/{kind}")));
            std::fs::create_dir_all(&images).unwrap();
            std::fs::create_dir_all(&labels).unwrap();
            (0..count).for_each(|i| scene(&images, &labels, i));
        }
    }

    /// Returns a path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns the command `simdino ARGS` with the folder as the current one.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_simdino"));
        command.args(args).current_dir(self.dir.path());
        command
    }

    /// Runs `simdino ARGS`.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs `simdino ARGS`, which must succeed, and returns its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "simdino {args:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits for at most a minute until a file contains `text`.
    pub fn wait_for_line(&self, file: &str, text: &str) {
        for _ in 0..3000 {
            let content = std::fs::read_to_string(self.path(file)).unwrap_or_default();
            if content.contains(text) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("{file} never said '{text}'");
    }

    /// Runs `simdino ARGS`, which must fail with the exit code `code`, and returns its standard
    /// error.
    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "simdino {args:?}: {message}");
        assert!(message.contains("simdino: "), "{message}");
        assert!(!message.contains("panicked") && !message.contains("backtrace"), "{message}");
        message
    }

    /// Runs a command as the two processes of torchrun, and returns their outputs.
    pub fn two_processes(&self, args: &[&str]) -> [Output; 2] {
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let start = |rank: &str| {
            let mut command = self.command(args);
            command.envs([("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", "2")]);
            command.envs([("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", &port.to_string())]);
            command.env("OMP_NUM_THREADS", "1").stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        };
        ["0", "1"].map(start).map(|child| child.wait_with_output().unwrap())
    }

    /// Runs `simdino ARGS`, which must reject `option` as unknown to the command.
    pub fn lacks(&self, args: &[&str], option: &str) {
        let output = self.run(&[args, &[option, "64"]].concat());
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "simdino {args:?}: {message}");
        assert!(message.contains(&format!("unexpected argument '{option}'")), "{message}");
    }
}

/// Draws an image of 48 x 40 pixels, bright at the top and dark at the bottom, and its labels.
pub fn scene(images: &Path, labels: &Path, i: u32) {
    let (width, height, split) = (48, 40, 16 + 4 * (i % 3));
    let color = |x: u32, y: u32| if y < split { 255 - (x % 9) as u8 } else { (20 + x % 7) as u8 };
    let image =
        RgbImage::from_fn(width, height, |x, y| Rgb([color(x, y), color(y, y), color(x, y)]));
    image.save(images.join(format!("{i}.png"))).unwrap();
    let class = |y| if y < split { 1 } else { 0 };
    let labels_of =
        GrayImage::from_fn(width, height, |x, y| Luma([if x == 0 { 255 } else { class(y) }]));
    labels_of.save(labels.join(format!("{i}.png"))).unwrap();
}

/// Returns the standard error of a command as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Returns the files that finished runs are compared by: the weights, the optimizer, and the
/// objective in the checkpoint of `step`, each with its name and its bytes.
pub fn final_state(run: &Path, step: u64) -> Vec<(String, Vec<u8>)> {
    let checkpoint = run.join(format!("checkpoints/step-{step:08}"));
    ["student", "teacher", "optimizer", "objective"]
        .map(|part| {
            let file = checkpoint.join(format!("{part}.safetensors"));
            (part.to_owned(), std::fs::read(&file).unwrap())
        })
        .into()
}

/// Returns the lines of the metrics of a run.
pub fn lines(bench: &Bench, name: &str) -> Vec<serde_json::Value> {
    let path = bench.path(&format!("runs/{name}/metrics.jsonl"));
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Starts a run, kills it with SIGKILL once it has printed `marker`, and resumes it to its end.
pub fn kill_at(bench: &Bench, args: &[&str], marker: &str) {
    let mut child =
        bench.command(args).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let printed = BufReader::new(child.stderr.take().unwrap()).lines();
    let seen = printed.map_while(Result::ok).any(|line| line.contains(marker));
    assert!(seen, "the run printed no '{marker}'");
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success(), "killed before its end");
    bench.ok(&[args, &["--resume", "auto"]].concat());
}

/// Options for the images of two classes that [`Bench::draw_scenes`] draws.
pub const SEGMENTED: [&str; 8] = [
    "--images",
    "train/images",
    "--labels",
    "train/labels",
    "--test-images",
    "test/images",
    "--test-labels",
    "test/labels",
];

/// Returns the record that an evaluation prints with `--json`, or an array of several. The features
/// of a network use at least one and at most all of their dimensions.
pub fn last_record(text: &str) -> serde_json::Value {
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    for record in last.as_array().unwrap_or(&vec![last.clone()]) {
        let [rank, dimension] =
            ["effective_rank", "effective_dimension"].map(|key| record[key].as_f64().unwrap());
        assert!(1.0 <= dimension && dimension <= rank && rank <= 384.0, "{record}");
    }
    last
}

/// Draws six images into `places`, and returns the folder.
pub fn draw_places(bench: &Bench) -> PathBuf {
    let folder = bench.path("places");
    fs::create_dir_all(&folder).unwrap();
    (0..6).for_each(|i| scene(&folder, &bench.path("train/labels"), i));
    folder
}

/// Draws two originals and a strong copy of each into `copydays`.
pub fn draw_copies(bench: &Bench) {
    for (block, names) in [("original", ["200000", "200100"]), ("strong", ["200001", "200101"])] {
        let block = bench.path(&format!("copydays/{block}"));
        fs::create_dir_all(&block).unwrap();
        for (i, name) in names.into_iter().enumerate() {
            let image = RgbImage::from_fn(40, 40, |x, y| {
                Rgb([(x * (5 + i as u32)) as u8, y as u8, 200 * i as u8])
            });
            image.save(block.join(format!("{name}.png"))).unwrap();
        }
    }
}

/// Draws three images of a rectangle into `objects`, and writes their annotations to `truth.json`.
/// Returns the annotations.
pub fn draw_objects(bench: &Bench) -> String {
    let folder = bench.path("objects");
    fs::create_dir_all(&folder).unwrap();
    let (mut images, mut annotations) = (Vec::new(), Vec::new());
    for i in 0..3u32 {
        let inside = |x: u32, y: u32| (12 + 2 * i..34).contains(&x) && (8..26).contains(&y);
        let image = RgbImage::from_fn(60, 40, |x, y| {
            if inside(x, y) { Rgb([230, 40, 30]) } else { Rgb([20, (60 + x) as u8, 150]) }
        });
        image.save(folder.join(format!("{i}.png"))).unwrap();
        images
            .push(json!({"id": i + 5, "file_name": format!("{i}.png"), "width": 60, "height": 40}));
        let bbox = [12 + 2 * i, 8, 22 - 2 * i, 18];
        let [x, y, w, h] = bbox;
        annotations.push(json!({
            "id": i + 1, "image_id": i + 5, "category_id": 3, "iscrowd": 0, "bbox": bbox, "area": w * h,
            "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
        }));
    }
    let categories = json!([{"id": 3, "name": "thing"}]);
    let truth = json!({"images": images, "annotations": annotations, "categories": categories});
    fs::write(bench.path("truth.json"), truth.to_string()).unwrap();
    truth.to_string()
}
