//! Parameter counts computed from the configuration alone, without allocating anything.

use crate::config::{Ffn, HeadConfig, ModelConfig};

impl ModelConfig {
    /// Returns the number of trainable parameters of the backbone.
    pub fn num_parameters(&self) -> i64 {
        let dims = self.arch.dimensions();
        let d = dims.embed_dim;
        let side = self.image_size / self.patch_size.max(1);
        let patch_embed = d * self.in_channels * self.patch_size * self.patch_size + d;
        let tokens = 1 + self.num_register_tokens + i64::from(self.mask_token);
        let embeddings = tokens * d + (1 + side * side) * d; // with positions
        let norm = 2 * d;
        let attention = 3 * d * d + 3 * d + d * d + d;
        let hidden = self.ffn_hidden();
        let ffn = match self.ffn {
            Ffn::Mlp => 2 * hidden * d + hidden + d,
            Ffn::Swiglu => 3 * hidden * d + 2 * hidden + d,
        };
        let scales = if self.layer_scale.is_some() { 2 * d } else { 0 };
        patch_embed + embeddings + dims.depth * (2 * norm + attention + ffn + scales) + norm
    }
}

impl HeadConfig {
    /// Returns the number of trainable parameters of the head for a backbone of width `in_dim`.
    pub fn num_parameters(&self, in_dim: i64) -> i64 {
        let hidden_layers = self.num_layers - 1;
        let mut width = in_dim;
        let mut total = 0;
        for _ in 0..hidden_layers {
            total += width * self.hidden_dim + self.hidden_dim;
            width = self.hidden_dim;
        }
        let batch_norms = if self.use_bn { hidden_layers * 2 * self.hidden_dim } else { 0 };
        let lengths = if self.norm_last_layer { 0 } else { self.prototypes };
        let prototypes = self.prototypes * self.out_dim + lengths;
        total + batch_norms + width * self.out_dim + self.out_dim + prototypes
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
            // timm 1.0.22's VisionTransformer of these widths, depths and ratios
            (Arch::VitSo150m, 133_175_424),
            (Arch::VitSo150m2, 135_194_112),
            (Arch::VitSo300m, 271_828_992),
            (Arch::VitSo400m, 412_582_896),
        ] {
            let config = ModelConfig { arch, ..Default::default() };
            assert_eq!(config.num_parameters(), expected, "{arch:?}");
        }
        assert_eq!(HeadConfig::default().num_parameters(768), 6_295_808);
        let dino = HeadConfig { prototypes: 65536, ..HeadConfig::default() };
        assert_eq!(dino.num_parameters(768) - 6_295_808, 16_777_216);
        let learned = HeadConfig { norm_last_layer: false, ..dino };
        assert_eq!(learned.num_parameters(768) - 6_295_808, 16_777_216 + 65_536);
    }

    #[test]
    fn additions_of_dinov2() {
        // ViT-g/14 of DINOv2 at 518 pixels, 1,136,480,768 parameters in its published weights.
        let giant = ModelConfig {
            arch: Arch::VitGiant2,
            patch_size: 14,
            image_size: 518,
            mask_token: true,
            layer_scale: Some(1e-5),
            ffn: Ffn::Swiglu,
            ..Default::default()
        };
        assert_eq!(giant.ffn_hidden(), 4096);
        assert_eq!(giant.num_parameters(), 1_136_480_768);
        let plain = ModelConfig { arch: Arch::VitBase, ..Default::default() };
        let more = ModelConfig {
            num_register_tokens: 4,
            mask_token: true,
            layer_scale: Some(0.1),
            ..plain.clone()
        };
        let added = (4 + 1 + 12 * 2) * 768;
        assert_eq!(more.num_parameters() - plain.num_parameters(), added);
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
