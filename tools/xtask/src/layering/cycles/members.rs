//! The files that define the functions of a type, whose `impl` blocks may be in other files than
//! the type.

use syn::{ImplItem, Item, Type};

use super::attributes::{of_item, only_for_tests};
use super::modules::{Crate, DefId, ModuleId, Space};
use super::names::{inline_module, resolve, segments};

/// Records the functions and constants that the `impl` blocks of a module define.
pub fn collect(krate: &mut Crate, items: &[Item], module: ModuleId) {
    for item in items.iter().filter(|item| !only_for_tests(of_item(item))) {
        match item {
            Item::Mod(item) => {
                if let Some((_, items)) = &item.content
                    && let Some(module) = inline_module(krate, module, &item.ident)
                {
                    collect(krate, items, module);
                }
            }
            Item::Impl(item) => {
                let file = krate.modules[module].file;
                for def in type_of(krate, module, &item.self_ty) {
                    for name in item.items.iter().filter_map(name_of) {
                        krate.members.entry((def, name)).or_default().push(file);
                    }
                }
            }
            _ => {}
        }
    }
}

fn name_of(item: &ImplItem) -> Option<String> {
    match item {
        ImplItem::Fn(item) if !only_for_tests(&item.attrs) => Some(item.sig.ident.to_string()),
        ImplItem::Const(item) if !only_for_tests(&item.attrs) => Some(item.ident.to_string()),
        _ => None,
    }
}

/// Returns the definitions behind `T`, `&T`, or `&mut T`.
pub fn type_of(krate: &Crate, module: ModuleId, ty: &Type) -> Vec<DefId> {
    match ty {
        Type::Path(ty) if ty.qself.is_none() => {
            resolve(krate, module, &segments(&ty.path), Space::Type)
        }
        Type::Reference(reference) => type_of(krate, module, &reference.elem),
        _ => Vec::new(),
    }
}
