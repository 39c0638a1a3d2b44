//! Where a walk through a file stands: what hides the names of the module there, what `Self` is, and
//! what was found to be used so far.

use std::collections::{BTreeMap, HashMap, HashSet};

use syn::{Expr, Generics, Ident, Type};

use super::members::type_of;
use super::modules::{Crate, DefId, FileId, ModuleId, Segments, Space};
use super::names::resolve;

/// What one file uses of another: names, each with the line it is first used on.
pub type Names = BTreeMap<String, usize>;

/// From the file that uses to the file that defines.
pub type Uses = BTreeMap<(FileId, FileId), Names>;

/// Names that hide those of the module, inside a function or an item with parameters.
pub enum Scope {
    /// Variables, with their type where it is written beside them.
    Variables(HashMap<String, Vec<DefId>>),
    /// Type parameters and constant parameters.
    Parameters(HashSet<String>),
}

impl Scope {
    /// Of a function body, arm or closure, before its first variable.
    pub fn variables() -> Self {
        Self::Variables(HashMap::new())
    }

    pub fn parameters(generics: &Generics) -> Self {
        let types = generics.type_params().map(|one| one.ident.to_string());
        let constants = generics.const_params().map(|one| one.ident.to_string());
        Self::Parameters(types.chain(constants).collect())
    }
}

/// Where a walk through a file stands.
pub struct Place<'a> {
    pub krate: &'a mut Crate,
    pub file: FileId,
    pub module: ModuleId,
    pub scopes: Vec<Scope>,
    pub self_types: Vec<Vec<DefId>>,
    pub uses: &'a mut Uses,
}

impl Place<'_> {
    /// Notes a path as used.
    pub fn path(&mut self, path: &Segments, space: Space, line: usize) {
        let Some(first) = path.first() else { return };
        if first == "Self" {
            return self.member(&self.self_type(), path.get(1), line);
        }
        let first_space = if path.len() == 1 { space } else { Space::Type };
        if self.is_hidden(first, first_space) {
            return;
        }
        let defs = resolve(self.krate, self.module, path, space);
        for def in &defs {
            self.note(self.krate.defs[*def].file, shown(path), line);
        }
        if path.len() > 1 {
            self.member(&defs, path.last(), line);
        }
    }

    /// Notes a function or constant of a type, where just one file defines it.
    pub fn member(&mut self, types: &[DefId], name: Option<&String>, line: usize) {
        let Some(name) = name else { return };
        for def in types {
            let files = self.krate.members.get(&(*def, name.clone()));
            let mut files = files.cloned().unwrap_or_default();
            files.dedup();
            if let [file] = files[..] {
                self.note(file, name, line);
            }
        }
    }

    fn note(&mut self, defined_in: FileId, name: &str, line: usize) {
        if defined_in != self.file {
            let names = self.uses.entry((self.file, defined_in)).or_default();
            names.entry(name.to_owned()).or_insert(line);
        }
    }

    /// Whether a variable or parameter has this name.
    fn is_hidden(&self, name: &str, space: Space) -> bool {
        self.scopes.iter().any(|scope| match scope {
            Scope::Variables(names) => space == Space::Value && names.contains_key(name),
            Scope::Parameters(names) => space != Space::Macro && names.contains(name),
        })
    }

    /// Makes a variable known to the innermost scope; `ty` is its type where one is written.
    pub fn bind(&mut self, name: &Ident, ty: Option<&Type>) {
        let types = ty.map(|ty| type_of(self.krate, self.module, ty)).unwrap_or_default();
        if let Some(Scope::Variables(names)) = self.scopes.last_mut() {
            names.insert(name.to_string(), types);
        }
    }

    pub fn self_type(&self) -> Vec<DefId> {
        self.self_types.last().cloned().unwrap_or_default()
    }

    /// The type of `self`, or of a variable whose type is written.
    pub fn receiver(&self, receiver: &Expr) -> Vec<DefId> {
        let Expr::Path(path) = receiver else { return Vec::new() };
        let Some(name) = path.path.get_ident() else { return Vec::new() };
        if name == "self" {
            return self.self_type();
        }
        let name = name.to_string();
        let found = self.scopes.iter().rev().find_map(|scope| match scope {
            Scope::Variables(names) => names.get(&name),
            Scope::Parameters(_) => None,
        });
        found.cloned().unwrap_or_default()
    }
}

/// The part of a path by which people know what it leads to: the type, else the last name.
fn shown(path: &Segments) -> &str {
    let is_type = |name: &&String| name.starts_with(char::is_uppercase);
    path.iter().find(is_type).or(path.last()).map_or("", String::as_str)
}
