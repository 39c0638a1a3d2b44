//! The networks in a file: which tensors belong to which, and in which key style.

use std::collections::BTreeMap;

use super::file::TensorFile;
use super::keys::{self, KeyStyle, Recipe};
use super::resize::is_square;
use super::roles::{self, Role};
use super::unknown;
use crate::error::{Error, Result};

/// Endings of the key of the class token, which every backbone has. The longer one indicates the
/// names of Hugging Face; it comes first, because the shorter one matches these keys, too.
const ANCHORS: [&str; 2] = ["embeddings.cls_token", "cls_token"];
/// Key prefixes of the projection head next to a backbone.
const HEADS: [&str; 2] = ["dino_head.", "head."];
/// Key prefixes of the patch head next to it, if it is separate.
const PATCH_HEADS: [&str; 2] = ["ibot_head.", "patch_head."];

/// A backbone in a file, with the head beside it, if there is one.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NetworkInFile {
    /// Prefix of its keys, without wrappers: `teacher.backbone.`.
    pub prefix: String,
    /// Key style of its tensors.
    pub style: KeyStyle,
    /// Tensors of the backbone by our names.
    pub(super) backbone: BTreeMap<String, Recipe>,
    /// Tensors of the head by our names; empty if there is none.
    pub(super) head: BTreeMap<String, Recipe>,
    /// Tensors of the patch head by our names; empty if there is none.
    pub(super) patch_head: BTreeMap<String, Recipe>,
    /// Keys of the file under this network that do not affect its features: classifiers, decoders.
    pub(super) behind: Vec<String>,
}

impl NetworkInFile {
    /// Returns its role in a checkpoint according to its prefix, if any.
    pub fn role(&self) -> Option<Role> {
        roles::role(&self.prefix)
    }

    /// Returns whether no block has a bias for queries, keys, and values, which is equivalent to a
    /// bias of 0.
    pub(super) fn lacks_qkv_bias(&self) -> bool {
        !self.backbone.keys().any(|name| name.ends_with(".attn.qkv.bias"))
    }

    /// Returns whether there is a head beside the backbone.
    pub fn has_head(&self) -> bool {
        !self.head.is_empty()
    }

    /// Returns whether patches have their own head.
    pub fn has_patch_head(&self) -> bool {
        !self.patch_head.is_empty()
    }

    /// Returns the sorted keys of the file under this network that have no counterpart in any of
    /// our networks: its features differ from those computed without them.
    pub fn unknown(&self) -> Vec<String> {
        let strange = self.backbone.iter().filter(|(name, _)| !keys::is_ours(name));
        let mut found: Vec<_> =
            strange.flat_map(|(_, recipe)| recipe.keys().iter().cloned()).collect();
        found.sort();
        found
    }

    /// Explains why a network without positions has none.
    pub(super) fn without_positions(&self) -> String {
        let why = match unknown::hint(&self.unknown()) {
            Some(why) if why.contains("positions") => why,
            _ => "rotary positions are not supported",
        };
        format!("there is no positional embedding (pos_embed) in the file: {why}")
    }
}

/// Returns all networks of a file, by prefix.
pub fn networks(file: &TensorFile) -> Vec<NetworkInFile> {
    let keys = cleaned(file);
    let anchors = keys.keys().filter_map(|key| {
        ANCHORS.iter().find_map(|anchor| {
            let prefix = key.strip_suffix(anchor)?;
            (prefix.is_empty() || prefix.ends_with('.')).then(|| (prefix.to_owned(), *anchor))
        })
    });
    let anchors: Vec<_> = anchors.collect();
    let prefixes: Vec<_> = anchors.iter().map(|(prefix, _)| prefix.clone()).collect();
    let own = |prefix: &str| {
        let mut own = under(&keys, prefix);
        let inner = |other: &&String| other.len() > prefix.len() && other.starts_with(prefix);
        for other in prefixes.iter().filter(inner) {
            own.retain(|key, _| !key.starts_with(&other[prefix.len()..]));
        }
        own
    };
    anchors
        .iter()
        .map(|(prefix, anchor)| network(file, &keys, own(prefix), prefix.clone(), anchor))
        .collect()
}

/// Maps keys without wrappers to keys of the file. If two keys become the same, one without
/// wrappers takes precedence, and the other one gets a name that no network uses, so that it is
/// still accounted for.
fn cleaned(file: &TensorFile) -> BTreeMap<String, String> {
    let names = || file.tensors().map(|(name, _)| (keys::cleaned(name), name.to_owned()));
    let (plain, wrapped): (Vec<_>, Vec<_>) = names().partition(|(clean, name)| clean == name);
    let mut keys: BTreeMap<_, _> = plain.into_iter().collect();
    for (clean, name) in wrapped {
        let key = if keys.contains_key(&clean) { format!("{clean} of {name}") } else { clean };
        keys.insert(key, name);
    }
    keys
}

fn network(
    file: &TensorFile,
    keys: &BTreeMap<String, String>,
    mut own: BTreeMap<String, String>,
    prefix: String,
    anchor: &str,
) -> NetworkInFile {
    let shape = |key: &str| own.get(key).and_then(|key| file.info(key)).map(|info| info.shape);
    let hugging_face = anchor.starts_with("embeddings");
    let positions = if hugging_face { "embeddings.position_embeddings" } else { "pos_embed" };
    let class_has_position = shape(positions).is_none_or(|shape| !only_patches(shape));
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
    let behind = take_behind(file, &mut own, anchor);
    let backbone = keys::recipes(keys::Traits { style, class_has_position, gated }, &own);
    NetworkInFile { prefix, style, backbone, head, patch_head, behind }
}

/// Removes the keys that do not affect the features from a network, and returns them as they are
/// in the file.
fn take_behind(file: &TensorFile, own: &mut BTreeMap<String, String>, anchor: &str) -> Vec<String> {
    let width = |key: &str| file.info(own.get(key)?)?.shape.last().copied();
    // A mask token of another width is that of MAE's decoder.
    let mask = anchor.replace("cls_token", "mask_token");
    let foreign_mask = width(&mask) != width(anchor);
    let is_behind = |key: &str| unknown::is_behind(key) || (foreign_mask && key == mask);
    let behind = own.iter().filter(|(key, _)| is_behind(key)).map(|(_, original)| original.clone());
    let behind = behind.collect();
    own.retain(|key, _| !is_behind(key));
    behind
}

/// Returns the keys that begin with `prefix`, without it.
fn under(keys: &BTreeMap<String, String>, prefix: &str) -> BTreeMap<String, String> {
    keys.range(prefix.to_owned()..)
        .take_while(|(key, _)| key.starts_with(prefix))
        .map(|(key, original)| (key[prefix.len()..].to_owned(), original.clone()))
        .collect()
}

/// Finds the head inside the backbone's own module, or beside a module called `backbone`.
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

/// Returns whether the number of positions is a square, so that the class token has none.
fn only_patches(shape: &[i64]) -> bool {
    matches!(*shape, [1, count, _] if is_square(count))
}

/// Returns whether the feed-forward network is gated but has the names of a plain one: the output
/// of its first layer is twice as wide as the input of its second.
fn gated(file: &TensorFile, own: &BTreeMap<String, String>) -> bool {
    let shape = |name: &str| own.get(name).and_then(|key| file.info(key)).map(|info| info.shape);
    match (shape("blocks.0.mlp.fc1.weight"), shape("blocks.0.mlp.fc2.weight")) {
        (Some(&[out, _]), Some(&[_, into])) => out == 2 * into,
        _ => false,
    }
}

/// Returns the network of `file` for `role`: the only one, or the one whose keys indicate the
/// role.
///
/// # Errors
/// Returns an error if the file contains no vision transformer, or several and none with this
/// role.
pub fn choose(file: &TensorFile, role: Role) -> Result<NetworkInFile> {
    let mut found = at_least_one(file)?;
    let prefixes: Vec<_> = found.iter().map(|network| network.prefix.as_str()).collect();
    match roles::find(&prefixes, role) {
        Some(index) => Ok(found.swap_remove(index)),
        // The only network is the teacher.
        None if found.len() == 1 && role == Role::Teacher => Ok(found.swap_remove(0)),
        None => {
            let wanted = if role == Role::Teacher { "the teacher" } else { "the student" };
            Err(which(file, &found, wanted.to_owned()))
        }
    }
}

/// Returns the network of `file` whose keys begin with `prefix`, ignoring wrappers. The trailing
/// dot may be omitted, and so may the rest of the prefix if it is unambiguous (`teacher` for
/// `teacher.backbone.`).
///
/// # Errors
/// Returns an error if the file contains no vision transformer, or none or several with this name.
pub fn named(file: &TensorFile, prefix: &str) -> Result<NetworkInFile> {
    let mut found = at_least_one(file)?;
    let clean = keys::cleaned(prefix.trim_end_matches('.'));
    let inner = if clean.is_empty() { String::new() } else { format!("{clean}.") };
    if let Some(index) = found.iter().position(|network| network.prefix == inner) {
        return Ok(found.swap_remove(index));
    }
    let mut inside = (0..found.len()).filter(|&i| found[i].prefix.starts_with(&inner));
    match (inside.next(), inside.next()) {
        (Some(index), None) => Ok(found.swap_remove(index)),
        _ => Err(which(file, &found, format!("the one with prefix '{prefix}'"))),
    }
}

/// Returns all networks of a file, or an error if there are none.
fn at_least_one(file: &TensorFile) -> Result<Vec<NetworkInFile>> {
    let found = networks(file);
    if found.is_empty() {
        let names: Vec<_> = file.tensors().map(|(name, _)| name.to_owned()).collect();
        let keys = super::shorten(&names);
        return Err(Error::NoNetwork { path: file.path().to_path_buf(), keys });
    }
    Ok(found)
}

fn which(file: &TensorFile, found: &[NetworkInFile], wanted: String) -> Error {
    let shown = |network: &NetworkInFile| match network.prefix.trim_end_matches('.') {
        "" => "'' (no prefix)".to_owned(),
        prefix => prefix.to_owned(),
    };
    let found = found.iter().map(shown).collect::<Vec<_>>().join(", ");
    Error::WhichNetwork { path: file.path().to_path_buf(), wanted, found }
}
