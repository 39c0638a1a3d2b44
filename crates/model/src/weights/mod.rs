//! Weight files, and how their keys map to those of a model.

mod architecture;
mod beside;
mod export;
mod file;
mod header;
mod import;
mod keys;
mod locate;
mod native;
mod networks;
mod parts;
mod pretrained;
pub mod pth;
mod read_back;
mod report;
mod resize;
mod roles;
mod step;
mod stored;
mod unknown;

use std::collections::{BTreeMap, BTreeSet};

use tch::{Tensor, nn};

pub use architecture::{Inferred, infer};
pub use beside::normalization;
pub use export::{Backbone, Layout, export, loading_lines};
pub use file::{FileFormat, TensorFile, TensorInfo};
pub use import::{ImportPolicy, Target, import};
pub use keys::KeyStyle;
pub use locate::find;
pub use native::{WeightsFile, read_safetensors, write_safetensors};
pub use networks::{NetworkInFile, choose, named, networks};
pub use parts::{is_index, is_part};
pub use pretrained::{LoadOptions, PretrainedBackbone};
pub use read_back::{ReadBack, verify};
pub use report::{ImportReport, OtherShape, Resized};
pub use roles::Role;

use crate::error::{Error, Result};

/// Number of names that [`MatchReport::require_complete`] lists before it counts the rest.
const NAMES_SHOWN: usize = 5;
/// Wrappers that training code adds in front of keys.
const WRAPPERS: [&str; 3] = ["module.", "_orig_mod.", "_fsdp_wrapped_module."];

/// How the keys of a file map to names of variables.
///
/// Wrappers (`module.`, `_orig_mod.`, `_fsdp_wrapped_module.`) are removed from the front first,
/// however many there are. Then, in a key that starts with `file_prefix`, this prefix is replaced
/// by `model_prefix`; other keys are reported as unexpected. Variables outside `model_prefix` are
/// neither loaded nor reported as missing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyRules {
    /// Prefix of the file's keys, for example `backbone.`; empty matches all.
    pub file_prefix: String,
    /// The prefix that replaces it in the model.
    pub model_prefix: String,
}

/// A tensor whose shape in the file differs from that in the model.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShapeMismatch {
    /// Name of the variable.
    pub name: String,
    /// Its shape in the model.
    pub expected: Vec<i64>,
    /// Its shape in the file.
    pub got: Vec<i64>,
}

/// What happened to each key. All lists are sorted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MatchReport {
    /// Variables that were loaded.
    pub matched: Vec<String>,
    /// Variables that are not in the file; they are unchanged.
    pub missing: Vec<String>,
    /// Keys of the file, as written there, for which the model has no variable.
    pub unexpected: Vec<String>,
    /// Variables whose shape differs from that in the file; they are unchanged.
    pub shape_mismatch: Vec<ShapeMismatch>,
}

impl MatchReport {
    /// Returns an error unless every variable was loaded; keys that the model does not have are
    /// accepted.
    ///
    /// # Errors
    /// Returns [`Error::Mismatch`], which names the first few variables.
    pub fn require_complete(&self) -> Result<()> {
        let mut problems = Vec::new();
        if !self.missing.is_empty() {
            problems.push(format!("missing {}", shorten(&self.missing)));
        }
        if !self.shape_mismatch.is_empty() {
            let shapes: Vec<_> = self
                .shape_mismatch
                .iter()
                .map(|m| format!("{} is {:?} in the file, {:?} here", m.name, m.got, m.expected))
                .collect();
            problems.push(format!("other shapes: {}", shorten(&shapes)));
        }
        if problems.is_empty() {
            return Ok(());
        }
        if !self.unexpected.is_empty() {
            problems.push(format!("unused keys of the file: {}", shorten(&self.unexpected)));
        }
        Err(Error::Mismatch { summary: problems.join("; ") })
    }
}

/// Returns every variable of `vs`, trainable or not, sorted by name.
pub fn named_variables(vs: &nn::VarStore) -> Vec<(String, Tensor)> {
    vs.variables().into_iter().collect::<BTreeMap<_, _>>().into_iter().collect()
}

/// Copies the tensors of `file` into the variables of `vs` with matching names and shapes,
/// converting dtype and device.
///
/// # Errors
/// Returns an error only if libtorch fails to copy; keys that do not match are in the report.
pub fn load_into(
    vs: &mut nn::VarStore,
    file: &WeightsFile,
    rules: &KeyRules,
) -> Result<MatchReport> {
    let variables: BTreeMap<_, _> = vs.variables().into_iter().collect();
    let mut report = MatchReport::default();
    let mut seen = BTreeSet::new();
    for (key, tensor) in &file.tensors {
        let name = rules.apply(key);
        let Some((name, variable)) = name.and_then(|name| variables.get_key_value(&name)) else {
            report.unexpected.push(key.clone());
            continue;
        };
        if !seen.insert(name) {
            report.unexpected.push(key.clone()); // a second key for the same variable
        } else if variable.size() == tensor.size() {
            let mut variable = variable.shallow_clone();
            tch::no_grad(|| variable.f_copy_(tensor))?;
            report.matched.push(name.clone());
        } else {
            let (expected, got) = (variable.size(), tensor.size());
            report.shape_mismatch.push(ShapeMismatch { name: name.clone(), expected, got });
        }
    }
    let wanted = variables.keys().filter(|name| name.starts_with(&rules.model_prefix));
    report.missing = wanted.filter(|name| !seen.contains(name)).cloned().collect();
    report.matched.sort();
    report.shape_mismatch.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(report)
}

impl KeyRules {
    /// Returns the name of the variable for `key`, if there is one.
    fn apply(&self, key: &str) -> Option<String> {
        let mut key = key;
        while let Some(rest) = WRAPPERS.iter().find_map(|wrapper| key.strip_prefix(wrapper)) {
            key = rest;
        }
        let rest = key.strip_prefix(self.file_prefix.as_str())?;
        Some(format!("{}{rest}", self.model_prefix))
    }
}

fn shorten(names: &[String]) -> String {
    let shown = names.iter().take(NAMES_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rules: &KeyRules, key: &str, expected: Option<&str>) {
        assert_eq!(rules.apply(key).as_deref(), expected, "{key}");
    }

    #[test]
    fn keys_are_mapped() {
        let plain = KeyRules::default();
        check(&plain, "norm.weight", Some("norm.weight"));
        check(&plain, "module._orig_mod.module.norm.weight", Some("norm.weight"));
        let backbone = KeyRules { file_prefix: "backbone.".into(), model_prefix: String::new() };
        check(&backbone, "module.backbone.norm.weight", Some("norm.weight"));
        check(&backbone, "head.mlp.0.weight", None);
        let into = KeyRules { file_prefix: String::new(), model_prefix: "backbone.".into() };
        check(&into, "norm.weight", Some("backbone.norm.weight"));
    }

    #[test]
    fn a_long_list_of_names_is_counted() {
        let names: Vec<_> = (0..7).map(|i| format!("n{i}")).collect();
        assert_eq!(shorten(&names), "n0, n1, n2, n3, n4 and 2 more");
        assert_eq!(shorten(&names[..2]), "n0, n1");
    }
}
