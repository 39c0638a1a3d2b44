//! The networks that a file holds: which tensors are whose, and in whose style.

use std::collections::BTreeMap;

use super::file::TensorFile;
use super::keys::{self, KeyStyle, Recipe};
use crate::error::{Error, Result};

/// Endings of the key that every backbone has, the longer first, and what they say of the style.
const ANCHORS: [&str; 2] = ["embeddings.cls_token", "cls_token"];
/// Names of the projection head beside a backbone.
const HEADS: [&str; 2] = ["dino_head.", "head."];
/// Names of the head on patches beside it, where that is another.
const PATCH_HEADS: [&str; 2] = ["ibot_head.", "patch_head."];

/// Which of the networks of a training checkpoint is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The moving average, which is what people take away; the only network where there is one.
    #[default]
    Teacher,
    /// The network that is trained.
    Student,
}

/// A backbone that a file holds, with the head beside it, if there is one.
#[derive(Debug, Clone)]
pub struct NetworkInFile {
    /// What stands before its keys, without wrappers: `teacher.backbone.`.
    pub prefix: String,
    /// Whose names its tensors have.
    pub style: KeyStyle,
    /// Tensors of the backbone by our names.
    pub(super) backbone: BTreeMap<String, Recipe>,
    /// Tensors of the head by our names; empty where there is none.
    pub(super) head: BTreeMap<String, Recipe>,
    /// Tensors of the head on patches by our names; empty where there is none.
    pub(super) patch_head: BTreeMap<String, Recipe>,
}

impl NetworkInFile {
    /// Whether its keys say that it is the student of a checkpoint.
    pub fn is_student(&self) -> bool {
        self.prefix.split('.').any(|part| part == "student")
    }

    /// Whether its keys say that it is the teacher of a checkpoint.
    pub fn is_teacher(&self) -> bool {
        self.prefix.split('.').any(|part| part == "teacher" || part == "model_ema")
    }

    /// Whether a head stands beside the backbone.
    pub fn has_head(&self) -> bool {
        !self.head.is_empty()
    }

    /// Whether patches have a head of their own.
    pub fn has_patch_head(&self) -> bool {
        !self.patch_head.is_empty()
    }
}

/// All networks of a file, by their prefix.
pub fn networks(file: &TensorFile) -> Vec<NetworkInFile> {
    let mut keys = BTreeMap::new();
    for (name, _) in file.tensors() {
        keys.entry(keys::cleaned(name)).or_insert_with(|| name.to_owned());
    }
    let anchors = keys.keys().filter_map(|key| {
        ANCHORS.iter().find_map(|anchor| {
            let prefix = key.strip_suffix(anchor)?;
            (prefix.is_empty() || prefix.ends_with('.')).then(|| (prefix.to_owned(), *anchor))
        })
    });
    anchors.map(|(prefix, anchor)| network(file, &keys, prefix, anchor)).collect()
}

fn network(
    file: &TensorFile,
    keys: &BTreeMap<String, String>,
    prefix: String,
    anchor: &str,
) -> NetworkInFile {
    let mut own = under(keys, &prefix);
    let shape = |key: &str| own.get(key).and_then(|key| file.info(key)).map(|info| info.shape);
    let hugging_face = anchor.starts_with("embeddings");
    let positions = if hugging_face { "embeddings.position_embeddings" } else { "pos_embed" };
    let class_has_position = shape(positions).is_none_or(|shape| !is_square(shape));
    let has = |part: &str| own.keys().any(|key| key.contains(part));
    let gated = gated(file, &own);
    let style = match hugging_face {
        true if has(".layernorm_before.") => KeyStyle::HfVit,
        true => KeyStyle::HfDinov2,
        false if has("reg_token") || !class_has_position || gated => KeyStyle::Timm,
        false => KeyStyle::Dino,
    };
    let (patch_head, head) =
        (head(keys, &own, &prefix, PATCH_HEADS), head(keys, &own, &prefix, HEADS));
    for (found, names) in [(&head, HEADS), (&patch_head, PATCH_HEADS)] {
        if !found.is_empty() {
            own.retain(|key, _| !names.iter().any(|head| key.starts_with(head)));
        }
    }
    let backbone = keys::recipes(keys::Traits { style, class_has_position, gated }, &own);
    NetworkInFile { prefix, style, backbone, head, patch_head }
}

/// Keys below `prefix`, without it.
fn under(keys: &BTreeMap<String, String>, prefix: &str) -> BTreeMap<String, String> {
    keys.range(prefix.to_owned()..)
        .take_while(|(key, _)| key.starts_with(prefix))
        .map(|(key, original)| (key[prefix.len()..].to_owned(), original.clone()))
        .collect()
}

/// The head inside the backbone's own module, or beside a module called `backbone`.
fn head(
    keys: &BTreeMap<String, String>,
    own: &BTreeMap<String, String>,
    prefix: &str,
    names: [&str; 2],
) -> BTreeMap<String, Recipe> {
    let outside = prefix.strip_suffix("backbone.").map(|outer| under(keys, outer));
    for (keys, name) in outside.iter().chain([own]).flat_map(|keys| names.map(|head| (keys, head)))
    {
        let found = under(keys, name);
        if found.keys().any(|key| key.starts_with("mlp.")) {
            let ours = |key: &str| {
                key.replace("last_layer.parametrizations.weight.original0", "last_layer.weight_g")
                    .replace("last_layer.parametrizations.weight.original1", "last_layer.weight_v")
            };
            return found.iter().map(|(k, v)| (ours(k), Recipe::Whole(v.clone()))).collect();
        }
    }
    BTreeMap::new()
}

/// Whether positions are as many as a square has, so that the class token has none.
fn is_square(shape: &[i64]) -> bool {
    let [_, count, _] = *shape else { return false };
    let side = (count as f64).sqrt().round() as i64;
    side * side == count
}

/// Whether the feed-forward network is gated under plain names: its first layer makes twice what
/// its second takes.
fn gated(file: &TensorFile, own: &BTreeMap<String, String>) -> bool {
    let shape = |name: &str| own.get(name).and_then(|key| file.info(key)).map(|info| info.shape);
    match (shape("blocks.0.mlp.fc1.weight"), shape("blocks.0.mlp.fc2.weight")) {
        (Some(&[out, _]), Some(&[_, into])) => out == 2 * into,
        _ => false,
    }
}

/// The network of `file` that `role` means: the only one, or the one whose keys say so.
///
/// # Errors
/// There is no vision transformer in the file, or several and none of this role.
pub fn choose(file: &TensorFile, role: Role) -> Result<NetworkInFile> {
    let mut found = networks(file);
    let wanted = |network: &NetworkInFile| match role {
        Role::Teacher => network.is_teacher(),
        Role::Student => network.is_student(),
    };
    if let Some(index) = found.iter().position(wanted) {
        return Ok(found.swap_remove(index));
    }
    match found.len() {
        // One network is the teacher unless it says otherwise.
        1 if role == Role::Teacher => Ok(found.swap_remove(0)),
        0 => Err(Error::NoNetwork {
            path: file.path().to_path_buf(),
            keys: super::shorten(
                &file.tensors().map(|(name, _)| name.to_owned()).collect::<Vec<_>>(),
            ),
        }),
        _ => Err(Error::WhichNetwork {
            path: file.path().to_path_buf(),
            role: if role == Role::Teacher { "teacher" } else { "student" },
            found: found.iter().map(|n| n.prefix.as_str()).collect::<Vec<_>>().join(", "),
        }),
    }
}
