//! `simdino picture neighbors`: draws images next to those that a network finds most similar.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use eval::ExtractOptions;
use eval::pictures::{Embedded, Row, lay_out, neighbor_cells};
use eval::store::{FeatureStore, ImageFeature, Network};

use super::networks::{Networks, Subject, nothing_readable};
use super::out::png;
use crate::console::{answer, name_skipped, progress};
use crate::failure::{Failure, Result};
use crate::sizes::Sizes;
use crate::train::pictures::save;

/// Arguments of `simdino picture neighbors`.
#[derive(Debug, clap::Args)]
pub struct NeighborArgs {
    /// Images: a folder, list file, tar shards; if they have classes, frames show whether they
    /// agree
    data: String,
    #[command(flatten)]
    networks: Networks,
    #[command(flatten)]
    sizes: Sizes,
    /// PNG file to write
    #[arg(short, long, default_value = "neighbors.png")]
    out: PathBuf,
    /// Images whose neighbors are shown, spread over the set
    #[arg(long, default_value_t = 6)]
    queries: usize,
    /// Neighbors of each
    #[arg(long, default_value_t = 7)]
    neighbors: usize,
    /// Maximum number of images that are compared, spread over the set; all by default
    #[arg(long)]
    limit: Option<std::num::NonZeroUsize>,
}

/// Runs the command.
///
/// # Errors
/// Returns an error if weights or images cannot be read or the picture cannot be written.
pub fn run(args: &NeighborArgs) -> Result<()> {
    png(&args.out)?;
    for (name, value) in [("--queries", args.queries), ("--neighbors", args.neighbors)] {
        if !(1..=64).contains(&value) {
            return Err(Failure::usage(format!("{name}: must be between 1 and 64 (got {value})")));
        }
    }
    let (mut queries, mut blocks, mut compared) = (Vec::new(), Vec::new(), 0);
    args.networks.each(&mut |subject| {
        let rows = rows(args, subject, &mut queries, &mut compared)?;
        blocks.resize_with(rows.len(), Vec::new);
        for (block, row) in blocks.iter_mut().zip(rows) {
            block.push(row);
        }
        Ok(())
    })?;
    save(&lay_out(&blocks.concat()), &args.out)?;
    answer(&format!(
        "{}: {} of {compared} images, each with its {} nearest neighbors\n",
        args.out.display(),
        queries.len(),
        args.neighbors.min(compared.saturating_sub(1)),
    ))
}

/// Returns a row for each query. The queries are chosen among the readable images of the first
/// network.
fn rows(
    args: &NeighborArgs,
    subject: &Subject<'_>,
    queries: &mut Vec<usize>,
    compared: &mut usize,
) -> Result<Vec<Row>> {
    let dataset = Arc::new(data::open(&eval::data_config(subject.weights, &args.data))?);
    let transform = args.sizes.transform(subject.path, &subject.weights.model)?;
    let mut options = ExtractOptions::new(transform, subject.weights.normalize.clone());
    (options.device, options.limit) = (subject.device, args.limit.map(Into::into));
    options.batch = ExtractOptions::batch_for(subject.device);
    let bar = progress(dataset.len(), "images embedded");
    let cls = ImageFeature::Cls(1);
    let set = FeatureStore::default().features(
        Network { backbone: subject.backbone, fingerprint: &subject.label },
        &dataset,
        &options,
        &BTreeSet::from([cls]),
        &mut |done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        },
    )?;
    bar.finish_and_clear();
    name_skipped("", &set.broken);
    let features = set.side_by_side(&[cls])?.features;
    if queries.is_empty() {
        let (count, len) = (args.queries.min(set.indices.len()), set.indices.len());
        queries.extend((0..count).map(|i| set.indices[i * len / count]));
        *compared = len;
    }
    if queries.is_empty() {
        return Err(nothing_readable(&args.data));
    }
    let (indices, labels) = (&set.indices, &set.labels);
    let embedded = Embedded { dataset: &dataset, indices, labels, features: &features };
    let cells = neighbor_cells(&embedded, queries, args.neighbors)?;
    Ok(cells.into_iter().map(|cells| Row::new(subject.label.clone(), cells)).collect())
}
