//! Name resolution: finds the definitions behind paths, through imports, re-exports, and globs.

use std::collections::HashSet;

use syn::Ident;

use super::modules::{Crate, DefId, Entry, Kind, ModuleId, ROOT, SPACES, Segments, Space, Target};

/// Names that are being resolved. A name that leads back to itself resolves to nothing.
type Busy = HashSet<(ModuleId, String, Space)>;

/// Returns the definitions that a path written in `module` may refer to: the enum of a variant, or
/// the type of a function. There are several if a `cfg` selects one of them. Modules and
/// definitions of other crates are left out.
pub fn resolve(krate: &Crate, module: ModuleId, path: &[String], space: Space) -> Vec<DefId> {
    let found = Names(krate).path(module, path, space, &mut Busy::new());
    found.into_iter().filter(|def| !matches!(krate.defs[*def].kind, Kind::Module(_))).collect()
}

/// Returns the module of `mod name { ... }` in `parent`.
pub fn inline_module(krate: &Crate, parent: ModuleId, name: &Ident) -> Option<ModuleId> {
    let file = krate.modules[parent].file;
    let modules = krate.own(parent, &name.to_string(), Space::Type);
    modules.into_iter().find_map(|def| match krate.defs[def].kind {
        Kind::Module(module) if krate.modules[module].file == file => Some(module),
        _ => None,
    })
}

/// The lookups of name resolution.
struct Names<'a>(&'a Crate);

impl Names<'_> {
    /// Returns what a path refers to, including modules.
    fn path(&self, module: ModuleId, path: &[String], space: Space, busy: &mut Busy) -> Vec<DefId> {
        let (starts, read) = self.start(module, path);
        let Some((first, rest)) = path[read..].split_first() else {
            return Vec::new();
        };
        let wanted = if rest.is_empty() { space } else { Space::Type };
        let found = match starts {
            Some(start) => self.name(start, first, wanted, module, busy),
            None => self.lexical(module, first, wanted, busy),
        };
        found.into_iter().flat_map(|def| self.follow(def, rest, space, module, busy)).collect()
    }

    /// Returns the module that `crate`, `self`, and `super` at the start of a path lead to, and the
    /// number of these segments.
    fn start(&self, module: ModuleId, path: &[String]) -> (Option<ModuleId>, usize) {
        let mut at = None;
        let mut read = 0;
        for segment in path {
            let here = self.0.named(at.unwrap_or(module));
            at = match segment.as_str() {
                "crate" => Some(ROOT),
                "self" => Some(here),
                "super" => self.0.modules[here].parent,
                _ => break,
            };
            read += 1;
        }
        (at, read)
    }

    /// Resolves a name as written in `module`. Blocks see the names of their surroundings; modules
    /// do not.
    fn lexical(&self, module: ModuleId, name: &str, space: Space, busy: &mut Busy) -> Vec<DefId> {
        let mut at = Some(module);
        while let Some(here) = at {
            let found = self.name(here, name, space, module, busy);
            if !found.is_empty() {
                return found;
            }
            at = self.0.modules[here].around;
        }
        if space == Space::Macro { self.textual_macro(module, name) } else { Vec::new() }
    }

    /// Resolves a macro by textual scope: it is also visible in modules declared after it.
    fn textual_macro(&self, module: ModuleId, name: &str) -> Vec<DefId> {
        let mut at = Some(self.0.named(module));
        while let Some(here) = at {
            let found = self.0.own(here, name, Space::Macro);
            if !found.is_empty() {
                return found;
            }
            at = self.0.modules[here].parent;
        }
        Vec::new()
    }

    /// Resolves the rest of a path, starting from a definition.
    fn follow(
        &self,
        def: DefId,
        rest: &[String],
        space: Space,
        from: ModuleId,
        busy: &mut Busy,
    ) -> Vec<DefId> {
        let Some((first, after)) = rest.split_first() else { return vec![def] };
        let Kind::Module(module) = self.0.defs[def].kind else { return vec![def] };
        let wanted = if after.is_empty() { space } else { Space::Type };
        let found = self.name(module, first, wanted, from, busy);
        found.into_iter().flat_map(|def| self.follow(def, after, space, from, busy)).collect()
    }

    /// Resolves a name in a module, as seen from module `from`: definitions come first, then
    /// imports by name, then globs.
    fn name(
        &self,
        module: ModuleId,
        name: &str,
        space: Space,
        from: ModuleId,
        busy: &mut Busy,
    ) -> Vec<DefId> {
        let key = (module, name.to_owned(), space);
        if !busy.insert(key.clone()) {
            return Vec::new();
        }
        let mut found = self.0.own(module, name, space);
        let mut foreign = false;
        for entry in self.0.modules[module].names.get(name).into_iter().flatten() {
            if let Target::Import(path) = &entry.target {
                found.extend(self.path(module, path, space, busy));
                foreign |= found.is_empty() && self.is_foreign(module, path, busy);
            }
        }
        // A name imported from another crate shadows the names of globs.
        if found.is_empty() && !foreign {
            for glob in &self.0.modules[module].globs {
                if self.is_visible(glob, from) {
                    found.extend(self.glob(module, glob, name, space, busy));
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        busy.remove(&key);
        found
    }

    /// Returns whether an import leads out of the crate.
    fn is_foreign(&self, module: ModuleId, path: &[String], busy: &mut Busy) -> bool {
        SPACES.into_iter().all(|space| self.path(module, path, space, busy).is_empty())
    }

    /// Returns what a glob imports under a name.
    fn glob(
        &self,
        module: ModuleId,
        glob: &Entry,
        name: &str,
        space: Space,
        busy: &mut Busy,
    ) -> Vec<DefId> {
        let Target::Import(path) = &glob.target else { return Vec::new() };
        let mut found = Vec::new();
        for def in self.glob_sources(module, path, busy) {
            match &self.0.defs[def].kind {
                Kind::Enum(variants) if variants.iter().any(|variant| variant == name) => {
                    found.push(def);
                }
                Kind::Module(inner) if self.shows(*inner, name, module) => {
                    found.extend(self.name(*inner, name, space, module, busy));
                }
                _ => {}
            }
        }
        found
    }

    /// Returns the modules and enums whose names a glob imports.
    fn glob_sources(&self, module: ModuleId, path: &[String], busy: &mut Busy) -> Vec<DefId> {
        let (start, read) = self.start(module, path);
        match start {
            Some(start) if read == path.len() => self.def_of_module(start).into_iter().collect(),
            _ => self.path(module, path, Space::Type, busy),
        }
    }

    /// Returns the definition of a module, which `super::*` refers to without naming it.
    fn def_of_module(&self, module: ModuleId) -> Option<DefId> {
        self.0.defs.iter().position(|def| matches!(def.kind, Kind::Module(one) if one == module))
    }

    /// Returns whether a glob in module `from` sees this name of `module`. Names that come from
    /// globs are checked when those globs are followed.
    fn shows(&self, module: ModuleId, name: &str, from: ModuleId) -> bool {
        let entries = self.0.modules[module].names.get(name);
        entries.is_none_or(|entries| entries.iter().any(|entry| self.is_visible(entry, from)))
    }

    fn is_visible(&self, entry: &Entry, from: ModuleId) -> bool {
        let Some(within) = entry.within else { return true };
        let within = self.0.named(within);
        let mut at = Some(self.0.named(from));
        while let Some(here) = at {
            if here == within {
                return true;
            }
            at = self.0.modules[here].parent;
        }
        false
    }
}

/// Returns the segments of a path.
pub fn segments(path: &syn::Path) -> Segments {
    let start = path.leading_colon.as_ref().map(|_| "::".to_owned());
    start.into_iter().chain(path.segments.iter().map(|segment| segment.ident.to_string())).collect()
}
