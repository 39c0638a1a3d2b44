//! Loads weights from any file into the variables of a network, and accounts for every tensor.

use std::collections::{BTreeMap, BTreeSet};

use tch::{Kind, Tensor, nn};

use super::architecture::check_positions;
use super::file::TensorFile;
use super::keys::Recipe;
use super::networks::{self, NetworkInFile};
use super::report::{ImportReport, OtherShape, Resized};
use super::roles::Role;
use super::step::{Step, fits, same_elements, shape};
use super::{shorten, unknown};
use crate::config::ModelConfig;
use crate::error::{Error, Result};

/// The location of a network among the variables that it is loaded into.
#[derive(Debug)]
pub struct Target<'a> {
    /// The variables.
    pub vars: &'a nn::VarStore,
    /// Architecture of the backbone.
    pub model: &'a ModelConfig,
    /// Prefix of the backbone's variables: `backbone.` in a [`crate::Network`], otherwise empty.
    pub backbone: &'a str,
    /// Prefix of the head's variables, if the head should be loaded, too: `head.` in a
    /// [`crate::Network`].
    pub head: Option<&'a str>,
    /// The same for the patch head, if there is a separate one: `patch_head.` in a
    /// [`crate::Network`].
    pub patch_head: Option<&'a str>,
}

/// Options for loading a file.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportPolicy {
    /// Which network of a training checkpoint to load.
    pub role: Role,
    /// Key prefix of the network, instead of its role; see [`networks::named`].
    pub prefix: Option<String>,
    /// Minimum fraction of the backbone's tensors that must be found, 0 to 1; below it, nothing is
    /// loaded.
    pub min_matched: f64,
    /// Ignore tensors of the network that have no counterpart here; otherwise they are an error.
    pub ignore_unused: bool,
    /// Resize positions, patch kernels, and channels to the sizes of the target; otherwise they
    /// count as not found.
    pub resize: bool,
}

impl Default for ImportPolicy {
    fn default() -> Self {
        let role = Role::Teacher;
        Self { role, prefix: None, min_matched: 1.0, ignore_unused: false, resize: true }
    }
}

impl ImportPolicy {
    /// Selects the requested network of `file`.
    ///
    /// # Errors
    /// Returns an error if there is none or the choice is ambiguous.
    pub fn choose(&self, file: &TensorFile) -> Result<NetworkInFile> {
        match &self.prefix {
            Some(prefix) => networks::named(file, prefix),
            None => networks::choose(file, self.role),
        }
    }
}

/// Loads a network of `file` into variables: the backbone, and the head if it is requested and
/// complete with the same shapes. Keys of every style are recognized (see [`networks::networks`]),
/// and nothing is changed unless enough of the backbone is found.
///
/// Tensors of the network that have no counterpart here are an error unless the policy ignores
/// them; a mask token does not affect the features. Kinds and devices are those of the variables.
/// Positions are resized according to the target's `pos_interpolation`, patch kernels by
/// pseudo-inverse, and channels by summing or repeating.
///
/// ```no_run
/// # use model::weights::{ImportPolicy, Target, TensorFile, import};
/// # fn f(vars: &tch::nn::VarStore, model: &model::ModelConfig) -> model::Result<()> {
/// let file = TensorFile::open("dinov2_vitb14_pretrain.pth".as_ref())?;
/// let target = Target { vars, model, backbone: "backbone.", head: None, patch_head: None };
/// let report = import(&file, &target, &ImportPolicy::default())?;
/// # let _ = report; Ok(()) }
/// ```
///
/// # Errors
/// Returns an error if the file has no network or none with the role, does not tell which grid its
/// positions belong to, has tensors without a counterpart, or matches too little; if tensors overlap,
/// contain integers, or contain a non-finite value (the variables are then partly loaded); or if the
/// file cannot be read.
pub fn import(
    file: &TensorFile,
    target: &Target<'_>,
    policy: &ImportPolicy,
) -> Result<ImportReport> {
    let network = policy.choose(file)?;
    check_positions(file, &network)?;
    let variables: BTreeMap<String, Tensor> = target.vars.variables().into_iter().collect();
    let mut plan = Plan::new(file, &network);
    plan.backbone(&variables, target.backbone, policy.resize);
    plan.check_unused(&variables, target.backbone, policy.ignore_unused)?;
    check_share(&plan.report, policy.min_matched)?;
    let heads = [(target.head, &network.head), (target.patch_head, &network.patch_head)];
    let asked = heads.into_iter().filter_map(|(prefix, recipes)| Some((prefix?, recipes)));
    let loaded: Vec<bool> =
        asked.map(|(prefix, recipes)| plan.head(&variables, prefix, recipes)).collect();
    plan.report.head_loaded = !loaded.is_empty() && loaded.iter().all(|&loaded| loaded);
    plan.finish(&variables, target)?;
    plan.check_kinds()?;
    let Plan { steps, report, .. } = plan;
    for step in steps {
        step.run(file, &variables, target.model)?;
    }
    for variable in report.zero.iter().filter_map(|name| variables.get(name)) {
        let _ = tch::no_grad(|| variable.detach().f_zero_())?;
    }
    Ok(report)
}

/// Returns an error that names the missing tensors unless enough of the backbone was found.
fn check_share(report: &ImportReport, least: f64) -> Result<()> {
    let (matched, total) = report.backbone;
    if matched as f64 >= least * total as f64 {
        return Ok(());
    }
    let mut names = report.missing.clone();
    let shape =
        |o: &OtherShape| format!("{} ({:?} in the file, {:?} here)", o.name, o.in_file, o.here);
    names.extend(report.other_shape.iter().map(shape));
    Err(Error::TooFewMatched {
        path: report.path.clone(),
        matched,
        total,
        percent: 100.0 * matched as f64 / total.max(1) as f64,
        names: format!("not found: {}", shorten(&names)),
    })
}

struct Plan<'a> {
    file: &'a TensorFile,
    network: &'a NetworkInFile,
    steps: Vec<Step>,
    report: ImportReport,
}

impl<'a> Plan<'a> {
    fn new(file: &'a TensorFile, network: &'a NetworkInFile) -> Self {
        let report = ImportReport {
            path: file.path().to_path_buf(),
            prefix: network.prefix.clone(),
            style: network.style,
            matched: Vec::new(),
            resized: Vec::new(),
            missing: Vec::new(),
            other_shape: Vec::new(),
            unexpected: Vec::new(),
            behind: network.behind.clone(),
            zero: Vec::new(),
            head_loaded: false,
            backbone: (0, 0),
        };
        Self { file, network, steps: Vec::new(), report }
    }

    /// Finds each variable of the backbone in the file.
    fn backbone(&mut self, variables: &BTreeMap<String, Tensor>, prefix: &str, resize: bool) {
        for (name, variable) in variables.iter().filter(|(name, _)| name.starts_with(prefix)) {
            let ours = &name[prefix.len()..];
            self.report.backbone.1 += 1;
            let recipe = self.network.backbone.get(ours);
            let found = recipe.and_then(|recipe| Some((recipe, shape(self.file, recipe)?)));
            let Some((recipe, from)) = found else {
                if ours.ends_with(".attn.qkv.bias") && self.network.lacks_qkv_bias() {
                    self.report.zero.push(name.clone());
                    self.report.backbone.0 += 1;
                } else {
                    self.report.missing.push(name.clone());
                }
                continue;
            };
            let to = variable.size();
            if same_elements(&from, &to) {
                self.report.matched.push(name.clone());
            } else if resize && fits(ours, &from, &to) {
                let resized = Resized { name: name.clone(), from: from.clone(), to };
                self.report.resized.push(resized);
            } else {
                let other = OtherShape { name: name.clone(), in_file: from, here: to };
                self.report.other_shape.push(other);
                continue;
            }
            self.report.backbone.0 += 1;
            self.steps.push(Step { name: name.clone(), recipe: recipe.clone(), from });
        }
    }

    /// Plans to load a head if each of its variables is in the file with the same shape; returns
    /// whether that is the case.
    fn head(
        &mut self,
        variables: &BTreeMap<String, Tensor>,
        prefix: &str,
        recipes: &BTreeMap<String, Recipe>,
    ) -> bool {
        let own = variables.iter().filter(|(name, _)| name.starts_with(prefix));
        let steps: Option<Vec<Step>> = own
            .clone()
            .map(|(name, variable)| {
                let recipe = recipes.get(&name[prefix.len()..])?;
                let from = shape(self.file, recipe)?;
                let fits = same_elements(&from, &variable.size());
                fits.then(|| Step { name: name.clone(), recipe: recipe.clone(), from })
            })
            .collect();
        let Some(steps) = steps.filter(|steps| !steps.is_empty()) else {
            self.report.missing.extend(own.map(|(name, _)| name.clone()));
            return false;
        };
        self.report.matched.extend(steps.iter().map(|step| step.name.clone()));
        self.steps.extend(steps);
        true
    }

    /// Returns an error that names the tensors of the backbone without a counterpart, unless they
    /// should be ignored.
    fn check_unused(
        &self,
        variables: &BTreeMap<String, Tensor>,
        prefix: &str,
        ignore: bool,
    ) -> Result<()> {
        let placed = |name: &String| {
            // Features never depend on the mask token.
            name == "mask_token" || variables.contains_key(&format!("{prefix}{name}"))
        };
        let unused = self.network.backbone.iter().filter(|(name, _)| !placed(name));
        let mut keys: Vec<_> =
            unused.flat_map(|(_, recipe)| recipe.keys().iter().cloned()).collect();
        if ignore || keys.is_empty() {
            return Ok(());
        }
        keys.sort();
        let mut hint = unknown::hint(&keys).map(|hint| format!(": {hint}")).unwrap_or_default();
        if !self.report.missing.is_empty() {
            hint.push_str(&format!("; and it lacks {}", shorten(&self.report.missing)));
        }
        let (path, names) = (self.report.path.clone(), shorten(&keys));
        Err(Error::Unused { path, names, hint })
    }

    /// Returns an error that names a tensor to be loaded if it does not contain real numbers:
    /// integers or booleans in place of weights indicate a quantized network or something else.
    fn check_kinds(&self) -> Result<()> {
        let keys = self.steps.iter().flat_map(|step| step.recipe.keys());
        for (key, info) in keys.filter_map(|key| Some((key, self.file.info(key)?))) {
            if !matches!(info.kind, Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16) {
                let (path, name) = (self.report.path.clone(), key.clone());
                return Err(Error::NotReal { path, name, kind: info.kind });
            }
        }
        Ok(())
    }

    /// Reports the remaining tensors, and checks that the total size to read does not exceed the
    /// file.
    fn finish(&mut self, variables: &BTreeMap<String, Tensor>, target: &Target<'_>) -> Result<()> {
        let has = |prefix: &str, name: &str| variables.contains_key(&format!("{prefix}{name}"));
        let backbone = self.network.backbone.iter();
        let mut left: BTreeSet<String> = backbone
            .filter(|(name, _)| !has(target.backbone, name))
            .flat_map(|(_, recipe)| recipe.keys().to_vec())
            .collect();
        let heads =
            [(target.head, &self.network.head), (target.patch_head, &self.network.patch_head)];
        for (prefix, recipes) in heads {
            let Some(prefix) = prefix else { continue };
            let more = recipes.iter().filter(|(name, _)| !has(prefix, name));
            left.extend(more.flat_map(|(_, recipe)| recipe.keys().to_vec()));
        }
        self.report.unexpected = left.into_iter().collect();
        self.report.missing.sort();
        self.report.missing.dedup();
        self.report.matched.sort();
        let keys = self.steps.iter().flat_map(|step| step.recipe.keys()).map(String::as_str);
        let (bytes, len) = (self.file.num_bytes(keys), self.file.len()?);
        if bytes > len {
            return Err(Error::Overlap { path: self.report.path.clone(), bytes, len });
        }
        Ok(())
    }
}
