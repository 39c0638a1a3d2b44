//! Assigns parameters to groups that share a learning rate and a weight decay.
//!
//! Parameter names are those of [`model::Network`]: `backbone.*`, `head.*`, `patch_head.*`.

use tch::Tensor;

use crate::config::{NoDecay, OptimConfig};

/// Parameters that are updated with the same hyperparameters.
#[derive(Debug)]
pub(crate) struct ParamGroup {
    /// Names of the parameters.
    pub names: Vec<String>,
    /// The parameters, in the order of the names.
    pub params: Vec<Tensor>,
    /// Factor for the learning rate.
    pub lr_mult: f64,
    /// Whether weight decay applies.
    pub decayed: bool,
    /// The part of the network that they belong to, which may be frozen at first.
    pub part: ParamRole,
}

/// A part of a network; some of them may be frozen for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParamRole {
    /// The backbone.
    Backbone,
    /// The prototypes.
    LastLayer,
    /// The rest of the heads.
    Head,
}

impl ParamRole {
    fn of(name: &str) -> Self {
        if name.starts_with("backbone.") {
            Self::Backbone
        } else if name.contains("last_layer") {
            Self::LastLayer
        } else {
            Self::Head
        }
    }
}

/// Sorts named parameters into groups, which are ordered by their first parameters.
///
/// # Source
/// `get_params_groups` of DINO; `get_params_groups_with_decay` of DINOv2, also used by SimDINOv2.
pub(crate) fn of(named: &[(String, Tensor)], depth: i64, config: &OptimConfig) -> Vec<ParamGroup> {
    let mut groups: Vec<ParamGroup> = Vec::new();
    for (name, param) in named {
        let lr_mult = lr_multiplier(name, depth, config);
        let decayed = is_decayed(name, param, config.no_decay);
        let (key, empty) = ((lr_mult, decayed, ParamRole::of(name)), (Vec::new(), Vec::new()));
        let place = groups.iter().position(|g| (g.lr_mult, g.decayed, g.part) == key);
        let place = place.unwrap_or_else(|| {
            let ((lr_mult, decayed, part), (names, params)) = (key, empty);
            groups.push(ParamGroup { names, params, lr_mult, decayed, part });
            groups.len() - 1
        });
        groups[place].names.push(name.clone());
        groups[place].params.push(param.shallow_clone());
    }
    groups
}

/// Returns the factor for the learning rate: `decay^(depth + 1 - layer)`, where tokens and
/// embeddings are layer 0, block `i` is layer `i + 1`, and the final norm is layer `depth + 1`. The
/// patch embedding has another factor of its own, and heads have factor 1.
fn lr_multiplier(name: &str, depth: i64, config: &OptimConfig) -> f64 {
    let Some(name) = name.strip_prefix("backbone.") else { return 1.0 };
    let first = ["pos_embed", "patch_embed.", "cls_token", "mask_token", "register_tokens"];
    let block = name.strip_prefix("blocks.").and_then(|rest| rest.split('.').next());
    let layer = match block.and_then(|number| number.parse::<i64>().ok()) {
        Some(number) => number + 1,
        None if first.iter().any(|front| name.starts_with(front)) => 0,
        None => depth + 1,
    };
    let by_depth = config.layerwise_decay.powi((depth + 1 - layer) as i32);
    if name.starts_with("patch_embed.") { by_depth * config.patch_embed_lr_mult } else { by_depth }
}

/// Returns whether weight decay applies to a parameter.
fn is_decayed(name: &str, param: &Tensor, no_decay: NoDecay) -> bool {
    let bias = name.ends_with(".bias");
    match no_decay {
        NoDecay::Vectors => param.dim() >= 2 && !bias,
        NoDecay::Names => !bias && !name.contains("norm") && !name.contains("gamma"),
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    fn tensor(shape: &[i64]) -> Tensor {
        Tensor::zeros(shape, (Kind::Float, Device::Cpu))
    }

    #[test]
    fn rules_of_both_generations() {
        let decayed = |name, shape: &[i64], rule| is_decayed(name, &tensor(shape), rule);
        let (v1, v2) = (NoDecay::Vectors, NoDecay::Names);
        for rule in [v1, v2] {
            assert!(decayed("backbone.blocks.0.attn.qkv.weight", &[6, 2], rule));
            assert!(decayed("backbone.pos_embed", &[1, 5, 2], rule));
            assert!(!decayed("backbone.norm.weight", &[2], rule));
            assert!(!decayed("head.mlp.0.bias", &[2], rule));
            assert!(!decayed("backbone.blocks.0.ls1.gamma", &[2], rule));
        }
        assert!(decayed("backbone.mask_token", &[1, 2], v2), "tokens are decayed");
    }

    #[test]
    fn learning_rates_grow_with_depth() {
        // The table of ViT-B: 12 blocks, decay 0.9, patch embedding 0.2.
        let config =
            OptimConfig { layerwise_decay: 0.9, patch_embed_lr_mult: 0.2, ..Default::default() };
        let expect = [
            ("backbone.patch_embed.proj.weight", 0.9f64.powi(13) * 0.2),
            ("backbone.cls_token", 0.9f64.powi(13)),
            ("backbone.register_tokens", 0.9f64.powi(13)),
            ("backbone.blocks.0.attn.qkv.weight", 0.9f64.powi(12)),
            ("backbone.blocks.11.mlp.fc1.bias", 0.9),
            ("backbone.norm.weight", 1.0),
            ("head.mlp.0.weight", 1.0),
        ];
        for (name, lr_mult) in expect {
            let got = lr_multiplier(name, 12, &config);
            assert!((got - lr_mult).abs() < 1e-12, "{name}: {got}");
        }
    }

    #[test]
    fn equal_factors_make_one_group() {
        let named: Vec<_> = [
            "backbone.blocks.0.mlp.fc1.weight",
            "backbone.blocks.1.mlp.fc1.weight",
            "backbone.norm.bias",
            "head.last_layer.weight_v",
        ]
        .map(|name| (name.to_owned(), tensor(&[2, 2])))
        .into();
        let groups = of(&named, 2, &OptimConfig::default());
        let names: Vec<_> = groups.iter().map(|group| group.names.len()).collect();
        assert_eq!(names, [2, 1, 1]);
        assert!(groups[2].part == ParamRole::LastLayer && groups[2].decayed && !groups[1].decayed);
        let config = OptimConfig { layerwise_decay: 0.9, ..Default::default() };
        assert_eq!(of(&named, 2, &config).len(), 4);
    }
}
