//! Parameter counts from the configuration alone, so that nothing need be allocated to know them.

use crate::config::{HeadConfig, ModelConfig};

impl ModelConfig {
    /// Number of trainable parameters of the backbone.
    pub fn num_parameters(&self) -> i64 {
        let dims = self.arch.dimensions();
        let d = dims.embed_dim;
        let side = self.image_size / self.patch_size.max(1);
        let patch_embed = d * self.in_channels * self.patch_size * self.patch_size + d;
        let embeddings = d + (1 + side * side) * d; // class token, positions
        let norm = 2 * d;
        let attention = 3 * d * d + 3 * d + d * d + d;
        let mlp = 2 * dims.mlp_ratio * d * d + dims.mlp_ratio * d + d;
        patch_embed + embeddings + dims.depth * (2 * norm + attention + mlp) + norm
    }
}

impl HeadConfig {
    /// Number of trainable parameters of the head on a backbone of width `in_dim`.
    pub fn num_parameters(&self, in_dim: i64) -> i64 {
        let hidden_layers = self.num_layers - 1;
        let mut width = in_dim;
        let mut total = 0;
        for _ in 0..hidden_layers {
            total += width * self.hidden_dim + self.hidden_dim;
            width = self.hidden_dim;
        }
        let batch_norms = if self.use_bn { hidden_layers * 2 * self.hidden_dim } else { 0 };
        total + batch_norms + width * self.out_dim + self.out_dim
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Arch;

    #[test]
    fn published_sizes() {
        for (arch, expected) in [
            (Arch::VitTiny, 5_524_416),
            (Arch::VitSmall, 21_665_664),
            (Arch::VitBase, 85_798_656),
            (Arch::VitLarge, 303_301_632),
        ] {
            let config = ModelConfig { arch, ..Default::default() };
            assert_eq!(config.num_parameters(), expected, "{arch:?}");
        }
        assert_eq!(HeadConfig::default().num_parameters(768), 6_295_808);
    }

    #[test]
    fn nano_stays_below_a_million() {
        for (patch_size, image_size) in [(16, 224), (4, 32)] {
            let config =
                ModelConfig { arch: Arch::VitNano, patch_size, image_size, ..Default::default() };
            assert!(config.num_parameters() < 1_000_000, "{}", config.num_parameters());
        }
    }
}
