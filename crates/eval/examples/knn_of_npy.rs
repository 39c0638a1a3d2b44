//! Weighted k-NN on features from any library, read from .npy files.
//!
//! ```text
//! cargo run -p simdino-eval --example knn_of_npy -- TRAIN.npy TEST.npy
//! ```
//!
//! Each file is a table of float32 or float64 with one row per image. Next to it is
//! `NAME.labels.npy`, int64, with one class per row (-1 for none). From Python:
//! `np.save("train.npy", features)`, `np.save("train.labels.npy", labels)`. The features of
//! `simdino embed` work as well, in each of its formats. Without arguments, the example first
//! writes a small dataset of its own. (`simdino eval knn` starts from images and adds baselines.)

use std::error::Error;
use std::path::{Path, PathBuf};

use eval::{KnnConfig, knn, read_feature_set};
use tch::{Kind, Tensor};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    match arguments.as_slice() {
        [train, test] => print_scores(train, test),
        [] => {
            let folder = std::env::temp_dir().join(format!("knn_of_npy-{}", std::process::id()));
            std::fs::create_dir_all(&folder)?;
            let (train, test) = (folder.join("train.npy"), folder.join("test.npy"));
            write_drawn(&train, 500, 1)?;
            write_drawn(&test, 200, 2)?;
            println!("no files given: two made-up sets in {}", folder.display());
            print_scores(&train, &test)?;
            Ok(std::fs::remove_dir_all(&folder)?)
        }
        _ => Err("usage: knn_of_npy [TRAIN.npy TEST.npy]".into()),
    }
}

fn print_scores(train: &Path, test: &Path) -> Result<()> {
    let config = KnnConfig { k: vec![10, 20, 100], temperature: 0.07, ..KnnConfig::default() };
    let result = knn(&read_feature_set(train)?, &read_feature_set(test)?, &config)?;
    println!("{} of {} classes classify {}", result.num_train, result.classes, result.num_test);
    for score in &result.scores {
        println!(
            "k {:>3}: top-1 {:.1}%, top-5 {:.1}%",
            score.k,
            score.top1 * 100.0,
            score.top5 * 100.0
        );
    }
    for note in &result.notes {
        println!("note: {note}");
    }
    Ok(())
}

/// Writes `n` labeled rows around ten centers, which are the same for every seed.
fn write_drawn(path: &Path, n: i64, seed: i64) -> Result<()> {
    let options = (Kind::Float, tch::Device::Cpu);
    tch::manual_seed(0);
    let centers = Tensor::randn([10, 64], options);
    tch::manual_seed(seed);
    let labels = Tensor::randint(10, [n], (Kind::Int64, tch::Device::Cpu));
    let rows = centers.index_select(0, &labels) + Tensor::randn([n, 64], options) * 2.0;
    rows.write_npy(path)?;
    labels.write_npy(path.with_extension("labels.npy"))?;
    Ok(())
}
