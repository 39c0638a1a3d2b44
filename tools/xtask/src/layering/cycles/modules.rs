//! The modules of a crate, with the file, definitions, and imports of each.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use syn::{Fields, Item, ItemMod, ItemUse, UseTree, Visibility};

use super::attributes::{has, of_item, only_for_tests, path_of};
use crate::fail::{Context, Result, failed};

pub type FileId = usize;
pub type ModuleId = usize;
pub type DefId = usize;

/// A namespace: types, values, and macros have separate ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    Type,
    Value,
    Macro,
}

pub const SPACES: [Space; 3] = [Space::Type, Space::Value, Space::Macro];

/// The kind of a definition.
#[derive(Debug)]
pub enum Kind {
    Module(ModuleId),
    /// An enum with the names of its variants.
    Enum(Vec<String>),
    /// A type or trait that is not a value, such as an alias or a struct with named fields.
    Type,
    /// A tuple or unit struct, which is also a value.
    TypeAndValue,
    Value,
    Macro,
}

impl Kind {
    pub fn is_in(&self, space: Space) -> bool {
        match self {
            Self::Module(_) | Self::Enum(_) | Self::Type => space == Space::Type,
            Self::TypeAndValue => space != Space::Macro,
            Self::Value => space == Space::Value,
            Self::Macro => space == Space::Macro,
        }
    }
}

/// A definition, and the file that contains it.
#[derive(Debug)]
pub struct Def {
    pub file: FileId,
    pub kind: Kind,
}

/// Segments of a path. A leading `::` is a segment of its own, which no module defines.
pub type Segments = Vec<String>;

#[derive(Clone, Debug)]
pub enum Target {
    Def(DefId),
    Import(Segments),
}

/// One meaning of a name in a module.
#[derive(Clone, Debug)]
pub struct Entry {
    pub target: Target,
    /// The module within which the name is visible; `None` if it is visible everywhere.
    pub within: Option<ModuleId>,
}

/// A module, or a block that contains items.
#[derive(Debug)]
pub struct Module {
    pub file: FileId,
    /// The parent module; `None` for the root and for blocks.
    pub parent: Option<ModuleId>,
    /// The module or block that encloses a block.
    pub around: Option<ModuleId>,
    pub names: HashMap<String, Vec<Entry>>,
    pub globs: Vec<Entry>,
}

/// A parsed file, and the module that it defines.
pub struct Parsed {
    pub file: FileId,
    pub module: ModuleId,
    pub items: Vec<Item>,
}

/// The files, modules, and definitions of a crate.
#[derive(Debug, Default)]
pub struct Crate {
    pub files: Vec<PathBuf>,
    pub modules: Vec<Module>,
    pub defs: Vec<Def>,
    /// The files whose `impl` blocks define a function or constant of a type.
    pub members: HashMap<(DefId, String), Vec<FileId>>,
}

/// The root module of a crate.
pub const ROOT: ModuleId = 0;

/// Returns the text of a file, or `None` if there is no such file.
pub type Read<'a> = &'a dyn Fn(&Path) -> Result<Option<String>>;

/// Reads a crate from its root file.
///
/// # Errors
/// Returns an error if a file is missing, cannot be read, or cannot be parsed.
pub fn load(root: &Path, read: Read<'_>) -> Result<(Crate, Vec<Parsed>)> {
    let mut loader = Loader { krate: Crate::default(), parsed: Vec::new(), read };
    let Some(text) = read(root)? else {
        return failed(format!("{} is missing", root.display()));
    };
    loader.file(root, &text, None, root.with_file_name(""))?;
    loader.krate.defs.push(Def { file: 0, kind: Kind::Module(ROOT) });
    Ok((loader.krate, loader.parsed))
}

struct Loader<'a> {
    krate: Crate,
    parsed: Vec<Parsed>,
    read: Read<'a>,
}

impl Loader<'_> {
    /// Reads a file as a module, whose submodules are in `folder`.
    fn file(
        &mut self,
        path: &Path,
        text: &str,
        parent: Option<ModuleId>,
        folder: PathBuf,
    ) -> Result<ModuleId> {
        let ast = syn::parse_file(text).context(|| format!("cannot parse {}", path.display()))?;
        let file = self.krate.files.len();
        self.krate.files.push(path.to_owned());
        let module = self.krate.module(file, parent, None);
        self.items(&ast.items, module, &folder)?;
        self.parsed.push(Parsed { file, module, items: ast.items });
        Ok(module)
    }

    fn items(&mut self, items: &[Item], module: ModuleId, folder: &Path) -> Result<()> {
        for item in items.iter().filter(|item| !only_for_tests(of_item(item))) {
            match item {
                Item::Mod(item) => self.submodule(item, module, folder)?,
                _ => self.krate.declare(item, module),
            }
        }
        Ok(())
    }

    fn submodule(&mut self, item: &ItemMod, parent: ModuleId, folder: &Path) -> Result<()> {
        let name = item.ident.to_string();
        let module = match &item.content {
            Some((_, items)) => {
                let module = self.krate.module(self.krate.modules[parent].file, Some(parent), None);
                self.items(items, module, &folder.join(&name))?;
                module
            }
            None => self.declared_file(item, parent, folder)?,
        };
        let file = self.krate.modules[module].file;
        self.krate.define(parent, &name, &item.vis, file, Kind::Module(module));
        Ok(())
    }

    /// Returns the file of `mod name;`.
    fn declared_file(
        &mut self,
        item: &ItemMod,
        parent: ModuleId,
        folder: &Path,
    ) -> Result<ModuleId> {
        let name = item.ident.to_string();
        let beside = self.krate.files[self.krate.modules[parent].file].with_file_name("");
        let candidates = match path_of(&item.attrs) {
            Some(path) => vec![beside.join(path)],
            None => vec![folder.join(format!("{name}.rs")), folder.join(&name).join("mod.rs")],
        };
        for path in &candidates {
            if let Some(text) = (self.read)(path)? {
                let own_folder = match path.file_name().is_some_and(|file| file == "mod.rs") {
                    true => path.with_file_name(""),
                    false => path.with_extension(""),
                };
                return self.file(path, &text, Some(parent), own_folder);
            }
        }
        failed(format!("the file of `mod {name}` is missing below {}", folder.display()))
    }
}

impl Crate {
    /// Adds an empty module.
    pub fn module(
        &mut self,
        file: FileId,
        parent: Option<ModuleId>,
        around: Option<ModuleId>,
    ) -> ModuleId {
        let (names, globs) = (HashMap::new(), Vec::new());
        self.modules.push(Module { file, parent, around, names, globs });
        self.modules.len() - 1
    }

    /// Adds the names that an item other than a module declares to its module.
    pub fn declare(&mut self, item: &Item, module: ModuleId) {
        let (name, vis, kind) = match item {
            Item::Const(item) => (&item.ident, &item.vis, Kind::Value),
            Item::Static(item) => (&item.ident, &item.vis, Kind::Value),
            Item::Fn(item) => (&item.sig.ident, &item.vis, Kind::Value),
            Item::Struct(item) => {
                let named = matches!(item.fields, Fields::Named(_));
                let kind = if named { Kind::Type } else { Kind::TypeAndValue };
                (&item.ident, &item.vis, kind)
            }
            Item::Enum(item) => {
                let variants = item.variants.iter().map(|one| one.ident.to_string()).collect();
                (&item.ident, &item.vis, Kind::Enum(variants))
            }
            Item::Union(item) => (&item.ident, &item.vis, Kind::Type),
            Item::Type(item) => (&item.ident, &item.vis, Kind::Type),
            Item::Trait(item) => (&item.ident, &item.vis, Kind::Type),
            Item::Macro(item) => {
                let Some(name) = &item.ident else { return };
                let file = self.modules[module].file;
                if has(&item.attrs, "macro_export") {
                    let everywhere = Visibility::Public(Default::default());
                    self.define(ROOT, &name.to_string(), &everywhere, file, Kind::Macro);
                }
                (name, &Visibility::Inherited, Kind::Macro)
            }
            Item::Use(item) => {
                let within = self.within(&item.vis, module);
                for leaf in leaves(item) {
                    self.import(module, leaf, within);
                }
                return;
            }
            _ => return,
        };
        let file = self.modules[module].file;
        self.define(module, &name.to_string(), vis, file, kind);
    }

    fn define(&mut self, module: ModuleId, name: &str, vis: &Visibility, file: FileId, kind: Kind) {
        self.defs.push(Def { file, kind });
        let target = Target::Def(self.defs.len() - 1);
        let within = self.within(vis, module);
        self.modules[module]
            .names
            .entry(name.to_owned())
            .or_default()
            .push(Entry { target, within });
    }

    fn import(&mut self, module: ModuleId, leaf: Leaf, within: Option<ModuleId>) {
        let entry = Entry { target: Target::Import(leaf.path), within };
        let module = &mut self.modules[module];
        match leaf.name {
            Some(name) if name == "_" => {}
            Some(name) => module.names.entry(name).or_default().push(entry),
            None => module.globs.push(entry),
        }
    }

    /// Returns what a module itself defines under a name.
    pub fn own(&self, module: ModuleId, name: &str, space: Space) -> Vec<DefId> {
        let entries = self.modules[module].names.get(name).into_iter().flatten();
        let defs = entries.filter_map(|entry| match entry.target {
            Target::Def(def) => Some(def),
            Target::Import(_) => None,
        });
        defs.filter(|def| self.defs[*def].kind.is_in(space)).collect()
    }

    /// Returns `module`, or the module that contains it if it is a block.
    pub fn named(&self, mut module: ModuleId) -> ModuleId {
        while let Some(around) = self.modules[module].around {
            module = around;
        }
        module
    }

    fn within(&self, vis: &Visibility, module: ModuleId) -> Option<ModuleId> {
        match vis {
            Visibility::Public(_) => None,
            Visibility::Inherited => Some(module),
            Visibility::Restricted(vis) if vis.path.is_ident("super") => {
                self.modules[self.named(module)].parent
            }
            Visibility::Restricted(vis) if vis.path.is_ident("self") => Some(module),
            Visibility::Restricted(_) => Some(ROOT),
        }
    }
}

/// A name that a `use` imports, or a glob, which has no name.
#[derive(Debug)]
pub struct Leaf {
    pub path: Segments,
    pub name: Option<String>,
    pub line: usize,
}

/// Returns all names that a `use` imports.
pub fn leaves(item: &ItemUse) -> Vec<Leaf> {
    let start = item.leading_colon.as_ref().map(|_| "::".to_owned());
    below(&item.tree, start.into_iter().collect())
}

/// Returns the names of a subtree of a `use`, with the path `before` it.
fn below(tree: &UseTree, mut before: Segments) -> Vec<Leaf> {
    let leaf = |path: Segments, name: Option<String>, line| Leaf { path, name, line };
    match tree {
        UseTree::Path(part) => {
            before.push(part.ident.to_string());
            below(&part.tree, before)
        }
        UseTree::Group(group) => {
            group.items.iter().flat_map(|tree| below(tree, before.clone())).collect()
        }
        UseTree::Glob(star) => vec![leaf(before, None, line(star.star_token.spans[0]))],
        UseTree::Name(part) => {
            let name = with_last(&mut before, &part.ident);
            vec![leaf(before, Some(name), line(part.ident.span()))]
        }
        UseTree::Rename(part) => {
            with_last(&mut before, &part.ident);
            vec![leaf(before, Some(part.rename.to_string()), line(part.ident.span()))]
        }
    }
}

/// Adds the last segment to a path, unless it is `self`, which stands for the path itself. Returns
/// the name that the path ends with.
fn with_last(path: &mut Segments, last: &syn::Ident) -> String {
    if last != "self" || path.is_empty() {
        path.push(last.to_string());
    }
    path.last().cloned().unwrap_or_default()
}

/// Returns the line on which a span starts, counted from 1.
pub fn line(span: proc_macro2::Span) -> usize {
    span.start().line
}
