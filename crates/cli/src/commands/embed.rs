//! `simdino embed`: one vector an image, for use elsewhere.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;
use eval::features::{ExtractOptions, FeatureExtractor, FeatureSet, extract_with_progress};
use model::{Mode, VisionTransformer};
use tch::{Kind, Tensor};

use crate::console::{answer, note, progress};
use crate::failure::{Context, Failure, Result};
use crate::sizes::{Sizes, words};
use crate::weights;
use simdino::device;
use simdino::weights::data_config;

/// What `simdino embed` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A weight file, a checkpoint, or a run
    #[arg(long, value_name = "PATH")]
    weights: PathBuf,
    /// Images: folder, list or shards
    #[arg(long, value_name = "PATH")]
    data: String,
    /// File to write, .npy, .safetensors or .csv; names and labels go to a .names.csv beside the
    /// first two
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Which vector of an image
    #[arg(long, value_enum, default_value_t = Pooling::Cls)]
    pooling: Pooling,
    #[command(flatten)]
    sizes: Sizes,
    /// What the keys of the network in the file begin with, where there are several
    #[arg(long)]
    prefix: Option<String>,
    /// Most images used, spread over the set; 0 = all
    #[arg(long, default_value_t = 0)]
    limit: usize,
    /// Images a forward pass
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
}

/// Which vector stands for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Pooling {
    /// The class token
    Cls,
    /// The mean of the patch tokens
    Mean,
}

/// A way to write features, told by the file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Npy,
    Safetensors,
    Csv,
}

impl Format {
    fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|e| e.to_str()) {
            Some("npy") => Ok(Self::Npy),
            Some("safetensors") => Ok(Self::Safetensors),
            Some("csv") => Ok(Self::Csv),
            _ => Err(Failure::usage(format!(
                "--out {}: expected a name that ends in .npy, .safetensors or .csv",
                path.display()
            ))),
        }
    }
}

/// The mean of the patch tokens after the final norm.
struct MeanPatch<'a>(&'a VisionTransformer);

impl FeatureExtractor for MeanPatch<'_> {
    fn features(&self, images: &Tensor) -> eval::Result<Tensor> {
        let tokens = tch::no_grad(|| self.0.forward(images, Mode::Eval))?;
        Ok(tokens.patches.to_kind(Kind::Float).mean_dim(1, false, None)) // [B, N, D] -> [B, D]
    }
}

/// Runs the verb.
///
/// # Errors
/// Weights or images cannot be read, or the file not be written.
pub fn run(args: &Args) -> Result<()> {
    let format = Format::of(&args.out)?;
    let device = device::resolve(&args.device)?;
    let weights = weights::open(&args.weights, args.prefix.as_deref(), device)?;
    let transform = args.sizes.transform(&args.weights, &weights.model)?;
    let dataset = Arc::new(data::open(&data_config(&weights, &args.data))?);
    dataset.notices().sentences_about(&args.data).iter().for_each(|text| note(text));
    let mut options = ExtractOptions::new(transform, weights.normalize.clone());
    (options.batch, options.device, options.limit) = (args.batch, device, args.limit);
    let backbone = &weights.backbone;
    let mean = MeanPatch(backbone);
    let extractor: &dyn FeatureExtractor = match args.pooling {
        Pooling::Cls => backbone,
        Pooling::Mean => &mean,
    };
    let bar = progress(dataset.len(), "images embedded");
    let set = extract_with_progress(&dataset, extractor, &options, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    for image in &set.broken {
        note(&format!("warning: skipped {}: {}", image.name, image.reason));
    }
    write(&args.out, format, &set)?;
    let (rows, width) = set.features.size2()?;
    let (out, sizes) = (args.out.display(), words(transform));
    answer(&format!("{rows} x {width} features in {out}; {sizes}\n"))
}

fn write(path: &Path, format: Format, set: &FeatureSet) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::create_dir_all(parent).context(failed)?;
    }
    match format {
        Format::Csv => return base::write_atomic(path, csv(set)?.as_bytes()).context(failed),
        Format::Npy => {
            let written =
                base::replace_atomic(path, |unfinished| set.features.write_npy(unfinished));
            written.context(failed)?;
        }
        Format::Safetensors => {
            let tensors = [("features".to_owned(), set.features.shallow_clone())];
            model::weights::write_safetensors(path, &tensors, &[].into())?;
        }
    }
    let beside = path.with_extension("names.csv");
    base::write_atomic(&beside, names(set).as_bytes())
        .context(|| format!("cannot write {}", beside.display()))
}

/// Name, label and class of row `i`.
fn name_cells(set: &FeatureSet, i: usize) -> String {
    let label = set.labels[i];
    let class = label.and_then(|label| set.class_names.get(label as usize));
    let label = label.map(|label| label.to_string()).unwrap_or_default();
    format!("{},{label},{}", cell(&set.names[i]), class.map(|c| cell(c)).unwrap_or_default())
}

/// RFC 4180: quotes around text that holds a separator.
fn cell(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn names(set: &FeatureSet) -> String {
    let rows = (0..set.len()).map(|i| format!("{}\n", name_cells(set, i)));
    std::iter::once("name,label,class\n".to_owned()).chain(rows).collect()
}

fn csv(set: &FeatureSet) -> Result<String> {
    let (_, width) = set.features.size2()?;
    let mut text = String::from("name,label,class");
    (0..width).for_each(|i| {
        let _ = write!(text, ",f{i}");
    });
    text.push('\n');
    for (i, row) in set.features.unbind(0).iter().enumerate() {
        text.push_str(&name_cells(set, i));
        let values: Vec<f32> = row.try_into()?;
        values.iter().for_each(|value| {
            let _ = write!(text, ",{value}");
        });
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> FeatureSet {
        FeatureSet {
            features: Tensor::from_slice(&[0.5f32, -1.0, 2.0, 0.25]).view([2, 2]),
            labels: vec![Some(1), None],
            names: vec!["a,b.jpg".into(), "c.jpg".into()],
            class_names: vec!["cat".into(), "dog".into()],
            broken: Vec::new(),
        }
    }

    #[test]
    fn every_format_holds_the_features() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["deep/x.npy", "x.safetensors", "x.csv"] {
            let path = dir.path().join(name);
            write(&path, Format::of(&path).unwrap(), &set()).unwrap();
        }
        let npy = Tensor::read_npy(dir.path().join("deep/x.npy")).unwrap();
        assert_eq!(npy, set().features);
        let file = model::weights::read_safetensors(&dir.path().join("x.safetensors")).unwrap();
        assert_eq!(file.tensors["features"], set().features);
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(
            read("x.csv"),
            "name,label,class,f0,f1\n\"a,b.jpg\",1,dog,0.5,-1\nc.jpg,,,2,0.25\n"
        );
        let names = "name,label,class\n\"a,b.jpg\",1,dog\nc.jpg,,\n";
        assert_eq!(read("x.names.csv"), names);
        assert_eq!(read("deep/x.names.csv"), names);
    }

    #[test]
    fn another_ending_is_a_usage_error() {
        let failure = Format::of(Path::new("features.parquet")).unwrap_err();
        assert_eq!(failure.code(), 2);
        assert!(failure.lines()[0].contains(".npy, .safetensors or .csv"), "{failure:?}");
    }
}
