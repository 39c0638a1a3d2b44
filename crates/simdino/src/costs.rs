//! Estimates the floating-point operations of a training step, and how they change with crops,
//! resolution, and depth.

use std::fmt;

use crate::config::RunConfig;

/// The sizes that the cost of an image depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Side of the two global crops, in pixels.
    pub global: i64,
    /// Side of the local crops, in pixels.
    pub local: i64,
    /// Number of local crops.
    pub locals: i64,
    /// Number of blocks.
    pub depth: i64,
    /// Width of a block.
    width: i64,
    /// Width of the hidden layer of the MLP.
    hidden: i64,
    /// Number of weight matrices of the MLP: 2, or 3 if it is gated.
    matrices: i64,
    patch: i64,
    channels: i64,
    /// Number of tokens that are not patches: the class token and registers.
    extra: i64,
}

/// Number of global crops, which both teacher and student see.
const GLOBALS: i64 = 2;

impl Shape {
    /// Returns the sizes of a config.
    pub fn of(config: &RunConfig) -> Self {
        let (model, augment) = (&config.model, &config.augment);
        let dimensions = model.arch.dimensions();
        Self {
            global: augment.global_crops_size.into(),
            local: augment.local_crops_size.into(),
            locals: augment.local_crops_number as i64,
            depth: dimensions.depth,
            width: dimensions.embed_dim,
            hidden: model.ffn.hidden(model.arch),
            matrices: if model.ffn == model::Ffn::Swiglu { 3 } else { 2 },
            patch: model.patch_size,
            channels: model.in_channels,
            extra: 1 + model.num_register_tokens,
        }
    }

    /// Returns the number of floating-point operations of a step per image: the teacher's forward
    /// pass on the global crops, and three times the student's on all crops, because a backward
    /// pass costs twice as much as a forward pass. Heads, losses, and the optimizer are not
    /// counted.
    pub fn flops_per_image(&self) -> f64 {
        let global = GLOBALS as f64 * self.forward(self.global);
        let local = self.locals as f64 * self.forward(self.local);
        global + 3.0 * (global + local)
    }

    /// Returns the operations of a forward pass of a crop with `T` tokens, `N` of them patches, in
    /// `L` blocks of width `D` with an MLP of `F` columns:
    /// `L (8 T D^2 + 4 T^2 D + 4 T D F) + 2 N D C P^2`. A gated MLP has `6 T D F` in place of
    /// `4 T D F`.
    fn forward(&self, side: i64) -> f64 {
        let patches = (side / self.patch).pow(2);
        let [tokens, width, hidden] =
            [patches + self.extra, self.width, self.hidden].map(|n| n as f64);
        let mlp = 2.0 * self.matrices as f64 * tokens * width * hidden;
        let block = 8.0 * tokens * width.powi(2) + 4.0 * tokens.powi(2) * width + mlp;
        let embedding = 2 * patches * self.width * self.channels * self.patch.pow(2);
        self.depth as f64 * block + embedding as f64
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{GLOBALS} x {}", self.global)?;
        match self.locals {
            0 => Ok(()),
            n => write!(f, " + {n} x {}", self.local),
        }
    }
}

/// A row of a table of costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// The change from the configured step.
    pub change: &'static str,
    /// Sizes of crops and network.
    pub shape: Shape,
    /// Number of images of the step.
    pub batch_size: usize,
}

impl Row {
    /// Returns the number of floating-point operations of the step.
    pub fn flops(&self) -> f64 {
        self.batch_size as f64 * self.shape.flops_per_image()
    }
}

/// Returns the step of a config, followed by steps that differ from it in one size each.
pub fn table(config: &RunConfig) -> Vec<Row> {
    let (shape, batch_size) = (Shape::of(config), config.train.batch_size);
    let with = |change, shape| Row { change, shape, batch_size };
    let patch = shape.patch;
    // Sides must be whole numbers of patches.
    let scaled =
        |side: i64, by: f64| ((side as f64 * by / patch as f64).round() as i64).max(1) * patch;
    let resized =
        |by| Shape { global: scaled(shape.global, by), local: scaled(shape.local, by), ..shape };
    let locals = |locals| Shape { locals, ..shape };
    let mut rows = vec![with("as configured", shape)];
    for (change, count) in [
        ("no local crops", 0),
        ("half the local crops", shape.locals / 2),
        ("twice the local crops", 2 * shape.locals),
    ] {
        if rows.iter().all(|row| row.shape.locals != count) {
            rows.push(with(change, locals(count)));
        }
    }
    rows.push(with("crops 3/4 as wide", resized(0.75)));
    rows.push(with("crops 3/2 as wide", resized(1.5)));
    rows.push(with("half the blocks", Shape { depth: (shape.depth / 2).max(1), ..shape }));
    rows.push(with("twice the blocks", Shape { depth: 2 * shape.depth, ..shape }));
    if batch_size > 1 {
        rows.push(Row { batch_size: batch_size / 2, ..with("half the batch", shape) });
    }
    rows.push(Row { batch_size: 2 * batch_size, ..with("twice the batch", shape) });
    rows
}

#[cfg(test)]
mod tests {
    use model::{Arch, Ffn};

    use super::*;

    fn config(arch: Arch) -> RunConfig {
        let mut config = RunConfig::default();
        config.model.arch = arch;
        config.augment.global_crops_size = 224;
        config.augment.local_crops_size = 96;
        config.augment.local_crops_number = 10;
        config
    }

    #[test]
    fn the_formula_gives_the_published_numbers() {
        for (arch, gflop) in
            [(Arch::VitSmall, 122.1), (Arch::VitBase, 472.4), (Arch::VitLarge, 1661.0)]
        {
            let got = Shape::of(&config(arch)).flops_per_image() / 1e9;
            assert!((got / gflop - 1.0).abs() < 2e-3, "{arch:?}: {got}");
        }
    }

    #[test]
    fn gates_and_registers_cost_what_they_add() {
        let plain = Shape::of(&config(Arch::VitSmall));
        let mut gated = config(Arch::VitSmall);
        gated.model.ffn = Ffn::Swiglu;
        // A gated MLP has two thirds of the columns, but three matrices instead of two.
        let ratio = Shape::of(&gated).flops_per_image() / plain.flops_per_image();
        assert!((ratio - 1.0).abs() < 1e-3, "{ratio}");
        let mut registers = config(Arch::VitSmall);
        registers.model.num_register_tokens = 4;
        let ratio = Shape::of(&registers).flops_per_image() / plain.flops_per_image();
        assert!(ratio > 1.02 && ratio < 1.12, "4 tokens more than 197 and 37: {ratio}");
    }

    #[test]
    fn each_row_changes_one_size() {
        let rows = table(&config(Arch::VitBase));
        let base = rows[0];
        let of = |change: &str| rows.iter().find(|row| row.change == change).unwrap();
        assert_eq!(of("twice the batch").flops(), 2.0 * base.flops());
        let blocks = of("twice the blocks").flops() / base.flops();
        assert!(blocks > 1.98 && blocks < 2.0, "all but the patch embedding: {blocks}");
        let alone = of("no local crops").shape;
        assert_eq!((alone.locals, alone.to_string()), (0, "2 x 224".to_owned()));
        assert_eq!(of("crops 3/2 as wide").shape.to_string(), "2 x 336 + 10 x 144");
        let mut none = config(Arch::VitBase);
        none.augment.local_crops_number = 0;
        none.train.batch_size = 1;
        let changes: Vec<&str> = table(&none).iter().map(|row| row.change).collect();
        assert!(
            !changes
                .iter()
                .any(|change| change.contains("local") || change.contains("half the batch"))
        );
    }
}
