//! Attributes that determine whether only test builds contain an item.

use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, ExprLit, Item, Lit, Meta, Stmt, Token};

/// Returns whether only test builds contain code with these attributes.
pub fn only_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let path = attribute.path();
        if path.is_ident("test") || path.is_ident("bench") {
            return true;
        }
        path.is_ident("cfg")
            && attribute.parse_args::<Meta>().is_ok_and(|predicate| needs_test(&predicate))
    })
}

/// Returns whether a `cfg` predicate holds only in test builds.
fn needs_test(predicate: &Meta) -> bool {
    if predicate.path().is_ident("test") {
        return true;
    }
    let Meta::List(list) = predicate else { return false };
    let parts = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
    let Ok(parts) = parts else { return false };
    if list.path.is_ident("all") {
        parts.iter().any(needs_test)
    } else {
        list.path.is_ident("any") && !parts.is_empty() && parts.iter().all(needs_test)
    }
}

/// Returns the file that a `#[path = "..."]` attribute names.
pub fn path_of(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    })
}

/// Returns whether there is an attribute of this name.
pub fn has(attributes: &[Attribute], name: &str) -> bool {
    attributes.iter().any(|attribute| attribute.path().is_ident(name))
}

/// Returns the attributes of an item.
pub fn of_item(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Returns the attributes of a statement.
pub fn of_statement(statement: &Stmt) -> &[Attribute] {
    match statement {
        Stmt::Local(statement) => &statement.attrs,
        Stmt::Macro(statement) => &statement.attrs,
        Stmt::Item(item) => of_item(item),
        Stmt::Expr(Expr::Block(code), _) => &code.attrs,
        Stmt::Expr(Expr::Call(code), _) => &code.attrs,
        Stmt::Expr(Expr::ForLoop(code), _) => &code.attrs,
        Stmt::Expr(Expr::If(code), _) => &code.attrs,
        Stmt::Expr(Expr::Match(code), _) => &code.attrs,
        Stmt::Expr(Expr::MethodCall(code), _) => &code.attrs,
        Stmt::Expr(Expr::Unsafe(code), _) => &code.attrs,
        Stmt::Expr(..) => &[],
    }
}
