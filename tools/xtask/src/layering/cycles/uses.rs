//! Finds what each file uses from other files.

use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Expr, Item, Pat, Path, Stmt, Token, Type, Visibility};

use super::attributes::{of_item, of_statement, only_for_tests};
use super::members::{collect, type_of};
use super::modules::{Crate, DefId, Parsed, SPACES, Segments, Space, leaves, line};
use super::names::{inline_module, segments};
use super::scopes::{Place, Scope, Uses};

/// Finds all uses between the files of a crate.
pub fn find(krate: &mut Crate, parsed: &[Parsed]) -> Uses {
    for file in parsed {
        collect(krate, &file.items, file.module);
    }
    let mut uses = Uses::new();
    for file in parsed {
        let (scopes, self_types) = (Vec::new(), Vec::new());
        let (file, module, items) = (file.file, file.module, &file.items);
        let place = Place { krate, file, module, scopes, self_types, uses: &mut uses };
        let mut walk = Walk { place };
        items.iter().for_each(|item| walk.visit_item(item));
    }
    uses
}

/// A walk through the code of a file.
struct Walk<'a> {
    place: Place<'a>,
}

impl Walk<'_> {
    fn within(&mut self, scope: Scope, visit: impl FnOnce(&mut Self)) {
        self.place.scopes.push(scope);
        visit(self);
        self.place.scopes.pop();
    }

    fn with_self(&mut self, types: Vec<DefId>, visit: impl FnOnce(&mut Self)) {
        self.place.self_types.push(types);
        visit(self);
        self.place.self_types.pop();
    }

    /// Returns the definition of the type or trait of this name in the current module.
    fn named(&self, name: &Ident) -> Vec<DefId> {
        self.place.krate.own(self.place.module, &name.to_string(), Space::Type)
    }

    fn path(&mut self, path: &Path, space: Space) {
        let start = path.segments.first().map_or(0, |segment| line(segment.ident.span()));
        self.place.path(&segments(path), space, start);
        visit::visit_path(self, path);
    }

    /// Visits a pattern with a written type.
    fn typed(&mut self, pat: &Pat, ty: &Type) {
        self.visit_type(ty);
        match pat {
            Pat::Ident(pat) => self.place.bind(&pat.ident, Some(ty)),
            _ => self.visit_pat(pat),
        }
    }

    /// Visits the statements of a block, whose items are visible from its start.
    fn statements(&mut self, statements: &[Stmt]) {
        let outside = self.place.module;
        let items = statements.iter().filter_map(|statement| match statement {
            Stmt::Item(item) if !only_for_tests(of_item(item)) => Some(item),
            _ => None,
        });
        for item in items {
            if self.place.module == outside {
                self.place.module = self.place.krate.module(self.place.file, None, Some(outside));
            }
            self.place.krate.declare(item, self.place.module);
        }
        statements.iter().for_each(|statement| self.visit_stmt(statement));
        self.place.module = outside;
    }

    /// Visits the code inside a macro as arguments or as statements, or else only its paths.
    fn macro_code(&mut self, tokens: &TokenStream) {
        let arguments = Punctuated::<Expr, Token![,]>::parse_terminated;
        if let Ok(arguments) = arguments.parse2(tokens.clone()) {
            arguments.iter().for_each(|argument| self.visit_expr(argument));
        } else if let Ok(statements) = syn::Block::parse_within.parse2(tokens.clone()) {
            self.within(Scope::variables(), |this| this.statements(&statements));
        } else {
            self.tokens(tokens.clone());
        }
    }

    /// Visits paths of two or more segments in tokens of an unknown grammar.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path = Segments::new();
        let (mut colons, mut start) = (0, 0);
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.path_of_tokens(&mut path, start);
                        start = line(ident.span());
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.path_of_tokens(&mut path, start);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.path_of_tokens(&mut path, start);
    }

    fn path_of_tokens(&mut self, path: &mut Segments, line: usize) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            SPACES.into_iter().for_each(|space| self.place.path(&path, space, line));
        }
    }
}

impl<'ast> Visit<'ast> for Walk<'_> {
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}

    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_item(&mut self, item: &'ast Item) {
        if only_for_tests(of_item(item)) {
            return;
        }
        match item {
            Item::Struct(item) => {
                let types = self.named(&item.ident);
                self.with_self(types, |this| {
                    this.within(Scope::parameters(&item.generics), |this| {
                        visit::visit_item_struct(this, item);
                    });
                });
            }
            Item::Enum(item) => {
                let types = self.named(&item.ident);
                self.with_self(types, |this| {
                    this.within(Scope::parameters(&item.generics), |this| {
                        visit::visit_item_enum(this, item);
                    });
                });
            }
            Item::Trait(item) => {
                let types = self.named(&item.ident);
                self.with_self(types, |this| {
                    this.within(Scope::parameters(&item.generics), |this| {
                        visit::visit_item_trait(this, item);
                    });
                });
            }
            Item::Impl(item) => self.within(Scope::parameters(&item.generics), |this| {
                let types = type_of(this.place.krate, this.place.module, &item.self_ty);
                this.with_self(types, |this| visit::visit_item_impl(this, item));
            }),
            Item::Type(item) => self.within(Scope::parameters(&item.generics), |this| {
                visit::visit_item_type(this, item);
            }),
            _ => visit::visit_item(self, item),
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let Some((_, items)) = &item.content else { return };
        let outside = self.place.module;
        if let Some(module) = inline_module(self.place.krate, outside, &item.ident) {
            self.place.module = module;
            items.iter().for_each(|item| self.visit_item(item));
            self.place.module = outside;
        }
    }

    /// Records an import as a use, but not a re-export. Names of a glob are recorded where they are
    /// used.
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !matches!(item.vis, Visibility::Inherited) {
            return;
        }
        for leaf in leaves(item) {
            SPACES.into_iter().for_each(|space| self.place.path(&leaf.path, space, leaf.line));
        }
    }

    fn visit_item_macro(&mut self, item: &'ast syn::ItemMacro) {
        match item.ident {
            Some(_) => self.tokens(item.mac.tokens.clone()),
            None => self.visit_macro(&item.mac),
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.within(Scope::parameters(&item.sig.generics), |this| {
            this.within(Scope::variables(), |this| visit::visit_item_fn(this, item));
        });
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        match item {
            syn::ImplItem::Fn(item) if only_for_tests(&item.attrs) => {}
            syn::ImplItem::Fn(item) => {
                self.within(Scope::parameters(&item.sig.generics), |this| {
                    this.within(Scope::variables(), |this| visit::visit_impl_item_fn(this, item));
                });
            }
            _ => visit::visit_impl_item(self, item),
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.within(Scope::parameters(&item.sig.generics), |this| {
            this.within(Scope::variables(), |this| visit::visit_trait_item_fn(this, item));
        });
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if !only_for_tests(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_block(&mut self, block: &'ast syn::Block) {
        self.within(Scope::variables(), |this| this.statements(&block.stmts));
    }

    fn visit_stmt(&mut self, statement: &'ast Stmt) {
        if !only_for_tests(of_statement(statement)) {
            visit::visit_stmt(self, statement);
        }
    }

    /// Visits the value before the variable comes into scope.
    fn visit_local(&mut self, local: &'ast syn::Local) {
        if let Some(init) = &local.init {
            self.visit_local_init(init);
        }
        self.visit_pat(&local.pat);
    }

    fn visit_pat_type(&mut self, typed: &'ast syn::PatType) {
        self.typed(&typed.pat, &typed.ty);
    }

    /// Treats a name in a pattern as a variable, unless it is written like a constant or a variant.
    fn visit_pat_ident(&mut self, pat: &'ast syn::PatIdent) {
        let name = pat.ident.to_string();
        if name.starts_with(char::is_uppercase) {
            self.place.path(&vec![name], Space::Value, line(pat.ident.span()));
        } else {
            self.place.bind(&pat.ident, None);
        }
        if let Some((_, pat)) = &pat.subpat {
            self.visit_pat(pat);
        }
    }

    fn visit_pat_tuple_struct(&mut self, pat: &'ast syn::PatTupleStruct) {
        if let Some(qself) = &pat.qself {
            self.visit_qself(qself);
        }
        self.path(&pat.path, Space::Value);
        pat.elems.iter().for_each(|pat| self.visit_pat(pat));
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        if !only_for_tests(&arm.attrs) {
            self.within(Scope::variables(), |this| visit::visit_arm(this, arm));
        }
    }

    fn visit_expr_closure(&mut self, closure: &'ast syn::ExprClosure) {
        self.within(Scope::variables(), |this| visit::visit_expr_closure(this, closure));
    }

    fn visit_expr_if(&mut self, branch: &'ast syn::ExprIf) {
        self.within(Scope::variables(), |this| visit::visit_expr_if(this, branch));
    }

    fn visit_expr_while(&mut self, repeat: &'ast syn::ExprWhile) {
        self.within(Scope::variables(), |this| visit::visit_expr_while(this, repeat));
    }

    fn visit_expr_let(&mut self, condition: &'ast syn::ExprLet) {
        self.visit_expr(&condition.expr);
        self.visit_pat(&condition.pat);
    }

    fn visit_expr_for_loop(&mut self, repeat: &'ast syn::ExprForLoop) {
        self.visit_expr(&repeat.expr);
        self.within(Scope::variables(), |this| {
            this.visit_pat(&repeat.pat);
            this.visit_block(&repeat.body);
        });
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let types = self.place.receiver(&call.receiver);
        let name = call.method.to_string();
        self.place.member(&types, Some(&name), line(call.method.span()));
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr_path(&mut self, expr: &'ast syn::ExprPath) {
        if let Some(qself) = &expr.qself {
            self.visit_qself(qself);
        }
        self.path(&expr.path, Space::Value);
    }

    fn visit_path(&mut self, path: &'ast Path) {
        self.path(path, Space::Type);
    }

    fn visit_macro(&mut self, code: &'ast syn::Macro) {
        self.path(&code.path, Space::Macro);
        self.macro_code(&code.tokens);
    }
}
