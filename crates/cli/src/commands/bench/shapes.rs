//! Sizes of published training steps, and a table of the cost of a step with other sizes.

use clap::ValueEnum;
use serde_json::{Value, json};
use simdino::costs::{Row, table};

use crate::config::RunConfig;

/// A training step whose sizes and throughput are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PublishedShape {
    /// DINOv3's ViT-L/16 on ImageNet-1k: 2 x 224 + 8 x 96 pixels, 64 images on a GPU
    #[value(name = "dinov3_vitl16")]
    Dinov3VitL16,
}

impl PublishedShape {
    /// Returns the sizes as overrides of a config.
    pub fn overrides(self) -> Vec<String> {
        let values = match self {
            Self::Dinov3VitL16 => [
                "model.arch=vit_large",
                "model.patch_size=16",
                "model.image_size=224",
                "augment.global_crops_size=224",
                "augment.local_crops_size=96",
                "augment.local_crops_number=8",
                "train.batch_size=64",
                "train.accumulate=1",
            ],
        };
        values.map(str::to_owned).into()
    }

    /// Returns a sentence about the throughput that the authors report.
    ///
    /// # Source
    /// facebookresearch/dinov3@98b38de, `configs/train/vitl_im1k_lin834.yaml`: 0.57 s for a step of
    /// 2048 images on 4 nodes; the README: 100 epochs of 1250 such steps in 14 hours on 32 H100.
    pub fn reported(self) -> &'static str {
        match self {
            Self::Dinov3VitL16 => {
                "DINOv3 reports 112 img/s per H100 in its config and 159 in its README, with bf16, \
                 torch.compile, and 32 GPUs that exchange gradients"
            }
        }
    }
}

/// A row of the table: a step, and how long it takes.
struct Cost {
    row: Row,
    step_ms: f64,
    measured: bool,
}

/// Returns the measured step and others, whose times are modeled in proportion to their operations.
fn costs(config: &RunConfig, measured_ms: f64) -> Vec<Cost> {
    let rows = table(config);
    let measured = rows.first().map_or(1.0, Row::flops);
    let cost = |(index, row): (usize, Row)| Cost {
        step_ms: measured_ms * row.flops() / measured,
        measured: index == 0,
        row,
    };
    rows.into_iter().enumerate().map(cost).collect()
}

/// Formats the table as text.
pub fn text(config: &RunConfig, measured_ms: f64) -> String {
    let header = ["step", "crops", "blocks", "batch", "GFLOP/image", "ms/step", "img/s", ""];
    let lines = costs(config, measured_ms).into_iter().map(|Cost { row, step_ms, measured }| {
        [
            row.change.to_owned(),
            row.shape.to_string(),
            row.shape.depth.to_string(),
            row.batch_size.to_string(),
            format!("{:.1}", row.shape.flops_per_image() / 1e9),
            format!("{step_ms:.1}"),
            format!("{:.1}", 1e3 * row.batch_size as f64 / step_ms),
            if measured { "measured" } else { "modeled" }.to_owned(),
        ]
    });
    let lines: Vec<[String; 8]> = std::iter::once(header.map(str::to_owned)).chain(lines).collect();
    let mut text = String::new();
    for line in &lines {
        for (column, cell) in line.iter().enumerate() {
            let width = lines.iter().map(|line| line[column].len()).max().unwrap_or_default();
            text.push_str(&match column {
                0 | 1 | 7 => format!("{cell:<width$}  "),
                _ => format!("{cell:>width$}  "),
            });
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text + "modeled: the measured time scaled by the backbone's operations; heads, losses,\n\
            and the optimizer are not counted, and small steps are slower than modeled\n"
}

/// Formats the table as JSON.
pub fn json(config: &RunConfig, measured_ms: f64) -> Value {
    let cost = |Cost { row, step_ms, measured }: Cost| {
        json!({
            "step": row.change,
            "crops": row.shape.to_string(),
            "blocks": row.shape.depth,
            "batch_size": row.batch_size,
            "flops_per_image": row.shape.flops_per_image(),
            "step_ms": step_ms,
            "measured": measured,
        })
    };
    costs(config, measured_ms).into_iter().map(cost).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::load_unchecked;

    #[test]
    fn the_published_sizes_fit_recipes_of_that_network() {
        for recipe in ["simdino_vitl16_in1k", "dinov2_vitl16_short_in1k"] {
            let overrides = PublishedShape::Dinov3VitL16.overrides();
            let config = load_unchecked(Path::new(recipe), &overrides).unwrap().config;
            let problems = config.validate();
            assert!(problems.iter().all(|problem| problem.starts_with("data.")), "{problems:?}");
            // 1,526 GFLOP without registers, as docs/REPRODUCING.md says.
            let gflop = table(&config)[0].shape.flops_per_image() / 1e9;
            let plain = config.model.num_register_tokens == 0;
            assert!(!plain || (gflop - 1525.8).abs() < 0.1, "{recipe}: {gflop}");
        }
    }

    #[test]
    fn one_row_is_measured_and_the_others_follow_its_operations() {
        let config = RunConfig::default();
        let all = costs(&config, 100.0);
        assert!(all[0].measured && all[0].step_ms == 100.0);
        assert!(all[1..].iter().all(|cost| !cost.measured));
        let twice = all.iter().find(|cost| cost.row.change == "twice the batch").unwrap();
        assert!((twice.step_ms - 200.0).abs() < 1e-9);
        let text = text(&config, 100.0);
        assert_eq!(text.matches(" measured\n").count(), 1, "{text}");
        assert_eq!(text.matches("  modeled\n").count(), all.len() - 1, "{text}");
        assert_eq!(json(&config, 100.0).as_array().unwrap().len(), all.len());
    }
}
