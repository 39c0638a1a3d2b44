//! Tensors of a network in a file that have no counterpart in ours: those that do not affect its
//! features, and those that make it a different network.

/// First key components of modules after the final norm or beside the network: heads, poolers, and
/// decoders.
const BEHIND: [&str; 20] = [
    "head",
    "heads",
    "fc",
    "classifier",
    "cls_head",
    "linear",
    "last_layer",
    "pre_logits",
    "pooler",
    "attn_pool",
    "lm_head",
    "projector",
    "projection",
    "projection_head",
    "prediction_head",
    "predictor",
    "dino_head",
    "ibot_head",
    "patch_head",
    "neck",
];
/// Buffers that do not affect features.
const BUFFERS: [&str; 2] = ["position_ids", "n_averaged"];

/// Returns whether the tensor with this (cleaned) key inside the network cannot affect the
/// features.
pub(super) fn is_behind(key: &str) -> bool {
    let first = key.split('.').next().unwrap_or(key);
    let last = key.rsplit('.').next().unwrap_or(key);
    BEHIND.contains(&first) || first.starts_with("decoder") || BUFFERS.contains(&last)
}

/// Parts of other networks, recognized by substrings of their keys, and what simdino does not
/// compute.
const PARTS: [(&[&str], &str); 11] = [
    (&["rope", "inv_freq", "freqs_cis"], "rotary positions are not supported"),
    (&["relative_position", "rel_pos"], "relative positions are not supported"),
    (&["dist_token", "distillation_token"], "a distillation token (DeiT) is not supported"),
    (
        &["norm_pre", "pre_layrnorm", "pre_layernorm", "ln_pre"],
        "a norm before the first block (CLIP) is not supported",
    ),
    (&["q_norm", "k_norm", "qk_norm"], "a learned norm of queries and keys is not supported"),
    (&["fc_norm"], "a norm after pooling, in the place of the final one, is not supported"),
    (&["patch_embed.norm"], "a norm of the patches is not supported"),
    (
        &["attn.norm", "mlp.norm", "ffn_ln", "inner_attn_ln"],
        "norms inside attention and feed-forward networks (EVA-02) are not supported",
    ),
    (&["q_bias", "v_bias"], "separate biases of queries and values (BEiT, EVA) are not supported"),
    (&["lora_", "base_layer."], "adapters are not supported: merge them into the weights first"),
    (&["weight_scale", "absmax", "qweight", "SCB"], "quantized weights are not supported"),
];

/// Returns a description of the unsupported part that the first recognized one of `keys` belongs
/// to.
pub(super) fn hint<'a>(keys: impl IntoIterator<Item = &'a String>) -> Option<&'static str> {
    keys.into_iter().find_map(|key| {
        PARTS.iter().find(|(marks, _)| marks.iter().any(|mark| key.contains(mark))).map(|(_, w)| *w)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_and_decoders_stand_behind_the_features() {
        for key in ["head.weight", "fc.bias", "decoder_blocks.0.norm1.weight", "pooler.dense.bias"]
        {
            assert!(is_behind(key), "{key}");
        }
        for key in ["fc_norm.weight", "head_token", "blocks.0.mlp.fc1.weight", "norm.weight"] {
            assert!(!is_behind(key), "{key}");
        }
    }

    #[test]
    fn a_known_part_is_called_by_its_name() {
        let hint = |key: &str| hint(&[key.to_owned()]);
        assert_eq!(hint("rope_embed.periods"), Some("rotary positions are not supported"));
        assert!(hint("blocks.0.attn.q_norm.weight").is_some_and(|words| words.contains("queries")));
        assert_eq!(hint("norm.weight"), None);
    }
}
