//! The state of a walk through a file: which names are shadowed, what `Self` is, and the uses found
//! so far.

use std::collections::{BTreeMap, HashMap, HashSet};

use syn::{Expr, Generics, Ident, Type};

use super::members::type_of;
use super::modules::{Crate, DefId, FileId, ModuleId, Segments, Space};
use super::names::resolve;

/// The names of another file that a file uses, each with the line of its first use.
pub type Names = BTreeMap<String, usize>;

/// Uses, from the file that uses a name to the file that defines it.
pub type Uses = BTreeMap<(FileId, FileId), Names>;

/// Names that shadow those of the module inside a function or an item with parameters.
pub enum Scope {
    /// Variables, with the definitions of their types, if written.
    Variables(HashMap<String, Vec<DefId>>),
    /// Type parameters and constant parameters.
    Parameters(HashSet<String>),
}

impl Scope {
    /// Returns the scope of a function body, match arm, or closure before its first variable.
    pub fn variables() -> Self {
        Self::Variables(HashMap::new())
    }

    pub fn parameters(generics: &Generics) -> Self {
        let types = generics.type_params().map(|one| one.ident.to_string());
        let constants = generics.const_params().map(|one| one.ident.to_string());
        Self::Parameters(types.chain(constants).collect())
    }
}

/// The state of a walk through a file.
pub struct Place<'a> {
    pub krate: &'a mut Crate,
    pub file: FileId,
    pub module: ModuleId,
    pub scopes: Vec<Scope>,
    pub self_types: Vec<Vec<DefId>>,
    pub uses: &'a mut Uses,
}

impl Place<'_> {
    /// Records the use of a path.
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

    /// Records the use of a function or constant of a type, if exactly one file defines it.
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

    /// Returns whether a variable or parameter has this name.
    fn is_hidden(&self, name: &str, space: Space) -> bool {
        self.scopes.iter().any(|scope| match scope {
            Scope::Variables(names) => space == Space::Value && names.contains_key(name),
            Scope::Parameters(names) => space != Space::Macro && names.contains(name),
        })
    }

    /// Adds a variable to the innermost scope; `ty` is its type, if written.
    pub fn bind(&mut self, name: &Ident, ty: Option<&Type>) {
        let types = ty.map(|ty| type_of(self.krate, self.module, ty)).unwrap_or_default();
        if let Some(Scope::Variables(names)) = self.scopes.last_mut() {
            names.insert(name.to_string(), types);
        }
    }

    pub fn self_type(&self) -> Vec<DefId> {
        self.self_types.last().cloned().unwrap_or_default()
    }

    /// Returns the type of `self`, or of a variable whose type is written.
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

/// Returns the most recognizable part of a path: the type, or else the last name.
fn shown(path: &Segments) -> &str {
    let is_type = |name: &&String| name.starts_with(char::is_uppercase);
    path.iter().find(is_type).or(path.last()).map_or("", String::as_str)
}
