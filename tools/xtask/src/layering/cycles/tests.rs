//! Tests of the check on invented crates.

use std::path::Path;

use super::of_crate;

/// Returns the cycles of a crate with these files, the first of which is its root.
fn circles(files: &[(&str, &str)]) -> Vec<String> {
    let read = |path: &Path| {
        let found = files.iter().find(|(name, _)| Path::new("src").join(name) == path);
        Ok(found.map(|(_, text)| (*text).to_owned()))
    };
    of_crate(&Path::new("src").join(files[0].0), Path::new("src"), &read).unwrap()
}

/// Asserts that there is one cycle with these edges, in order.
#[track_caller]
fn one(files: &[(&str, &str)], edges: &[&str]) {
    let found = circles(files);
    assert_eq!(found.len(), 1, "{found:#?}");
    let lines: Vec<&str> = found[0].lines().skip(1).map(str::trim).collect();
    assert_eq!(lines, edges, "{}", found[0]);
}

#[track_caller]
fn none(files: &[(&str, &str)]) {
    assert_eq!(circles(files), Vec::<String>::new());
}

const ROOT: (&str, &str) = ("lib.rs", "mod a; mod b; mod c;");
const EMPTY: (&str, &str) = ("c.rs", "");
/// Uses `b` without an import, and defines what `b` may use in turn.
const A: (&str, &str) = ("a.rs", "pub struct A; pub fn fa() {}\nfn own() { crate::b::fb(); }");

#[test]
fn two_files_that_use_one_another() {
    let b = "use crate::a::A;\n\npub fn fb() {}\n";
    one(&[ROOT, A, ("b.rs", b), EMPTY], &["a.rs:2 uses fb of b.rs", "b.rs:1 uses A of a.rs"]);
}

#[test]
fn a_use_in_one_direction_is_none() {
    none(&[ROOT, A, ("b.rs", "pub fn fb() {}"), EMPTY]);
    none(&[ROOT, A, ("b.rs", "pub fn fb() {} use crate::c::C;"), ("c.rs", "pub struct C;")]);
}

#[test]
fn a_circle_of_three_files_is_one() {
    let b = "pub fn fb() { crate::c::fc() }";
    let c = "pub fn fc() { super::a::fa() }";
    one(
        &[ROOT, A, ("b.rs", b), ("c.rs", c)],
        &["a.rs:2 uses fb of b.rs", "b.rs:1 uses fc of c.rs", "c.rs:1 uses fa of a.rs"],
    );
}

#[test]
fn two_circles_are_told_apart() {
    let root = ("lib.rs", "mod a; mod b; mod c; mod d;");
    let c = ("c.rs", "pub struct C(crate::d::D);");
    let d = ("d.rs", "pub struct D; fn f(_: super::c::C) {}");
    let b = ("b.rs", "pub fn fb() { crate::a::fa() }");
    assert_eq!(circles(&[root, A, b, c, d]).len(), 2);
}

#[test]
fn a_re_export_leads_to_the_file_that_defines() {
    // b uses a's function under the names that the root and c give it.
    let c = ("c.rs", "pub use crate::a::fa as renamed;");
    for path in ["crate::fa()", "super::fa()", "crate::c::renamed()", "crate::twice()"] {
        let root = ("lib.rs", "mod a; mod b; mod c; pub use a::fa; pub use c::renamed as twice;");
        let b = format!("pub fn fb() {{ {path} }}");
        let name = path.trim_end_matches("()").rsplit("::").next().unwrap();
        let back = format!("b.rs:1 uses {name} of a.rs");
        one(&[root, A, ("b.rs", &b), c], &["a.rs:2 uses fb of b.rs", &back]);
    }
}

#[test]
fn re_exports_and_declarations_are_no_uses() {
    let root = ("lib.rs", "pub mod a;\npub use a::{A, inner::Inner};\npub struct Here;");
    let a = ("a.rs", "pub mod inner; pub(crate) use inner::Inner as I; pub struct A(crate::Here);");
    none(&[root, a, ("a/inner.rs", "pub struct Inner; fn f(_: super::A) {}")]);
    // But a file that uses what it re-exports does use it.
    let a = ("a.rs", "mod inner; pub use inner::Inner; pub struct A(Inner);");
    let inner = ("a/inner.rs", "pub struct Inner; fn f(_: super::A) {}");
    one(
        &[("lib.rs", "mod a;"), a, inner],
        &["a.rs:1 uses Inner of a/inner.rs", "a/inner.rs:1 uses A of a.rs"],
    );
}

#[test]
fn parent_and_child() {
    let child = ("a/child.rs", "use super::Trait;\npub struct Child;\nimpl Trait for Child {}");
    let parent = "mod child;\npub trait Trait {}\npub fn new() -> child::Child { todo!() }";
    one(
        &[("lib.rs", "mod a;"), ("a/mod.rs", parent), child],
        &["a/mod.rs:3 uses Child of a/child.rs", "a/child.rs:1 uses Trait of a/mod.rs"],
    );
    none(&[("lib.rs", "mod a;"), ("a/mod.rs", "mod child; pub trait Trait {}"), child]);
    // A private import of a parent is visible in its child.
    let open = ("a/open.rs", "use super::*; fn open() -> Child { Child }");
    let parent = "mod child; mod open; use child::Child; pub trait Trait {}";
    one(
        &[("lib.rs", "mod a;"), ("a/mod.rs", parent), child, open],
        &["a/mod.rs:1 uses Child of a/child.rs", "a/child.rs:1 uses Trait of a/mod.rs"],
    );
}

#[test]
fn tests_and_comments_do_not_count() {
    for back in [
        "#[cfg(test)] mod tests { use crate::a::A; }",
        "#[cfg(test)] mod missing_file;",
        "#[cfg(all(test, unix))] use crate::a::A;",
        "#[cfg(test)] fn f() { crate::a::fa() }",
        "#[test] fn f() { crate::a::fa() }",
        "pub struct B; impl B { #[cfg(test)] fn f() { crate::a::fa() } }",
        "fn f() { #[cfg(test)] crate::a::fa(); }",
        "fn f() { #[cfg(test)] { crate::a::fa(); } }",
        "fn f() { #[cfg(test)] x.push(crate::a::fa()); }",
        "fn f() { #[cfg(test)] assert!(crate::a::fa()); }",
        "fn f() { #[cfg(test)] use crate::a::A; }",
        "fn f() { #[cfg(test)] let _ = crate::a::fa(); }",
        "pub struct B { #[cfg(test)] a: crate::a::A }",
        "/// [`crate::a::A`]\nfn f() {} // crate::a::fa()",
        "const TEXT: &str = \"crate::a::fa()\";",
    ] {
        none(&[ROOT, A, ("b.rs", &format!("pub fn fb() {{}}\n{back}")), EMPTY]);
    }
    // Code under other conditions belongs to the crate, and so does code in builds without tests.
    for back in [
        "#[cfg(not(test))] use crate::a::A;",
        "#[cfg(any(test, feature = \"x\"))] use crate::a::A;",
        "#[cfg(feature = \"x\")] fn f(_: crate::a::A) {}",
    ] {
        let files = [ROOT, A, ("b.rs", &format!("pub fn fb() {{}}\n{back}")), EMPTY];
        assert_eq!(circles(&files).len(), 1, "{back}");
    }
}

#[test]
fn globs() {
    let uses = ["fn f() { fa(); }", "struct B(A);", "fn f(a: A) {}", "fn f() { let x = A; }"];
    for code in uses {
        let b = format!("use crate::a::*; pub fn fb() {{}} {code}");
        assert_eq!(circles(&[ROOT, A, ("b.rs", &b), EMPTY]).len(), 1, "{code}");
    }
    // A glob of which nothing is used, private names, which globs do not import, and names that
    // shadow those of globs.
    for code in [
        "",
        "fn f() { own(); }",
        "fn fa() {} fn f() { fa(); }",
        "use std::mem::swap as fa; fn f() { fa(); }",
        "fn f() { fn fa() {} fa(); }",
        "fn f(fa: fn()) { fa(); }",
    ] {
        let b = format!("use crate::a::*; pub fn fb() {{}} {code}");
        let a = "pub struct A; pub fn fa() {}\nfn own() { crate::b::fb(); }";
        none(&[ROOT, ("a.rs", a), ("b.rs", &b), EMPTY]);
    }
    // Through a re-exported glob, and a glob that leads back to itself.
    let c = ("c.rs", "pub use super::a::*; pub use super::c::*;");
    let b = ("b.rs", "use super::c::*; pub fn fb() { fa() }");
    one(&[ROOT, A, b, c], &["a.rs:2 uses fb of b.rs", "b.rs:1 uses fa of a.rs"]);
}

#[test]
fn variants_and_functions_of_types() {
    let a = "pub enum E { One, Two { x: u8 }, Three(u8) }\n\
             pub struct S;\nimpl S { pub const N: u8 = 1; pub fn new() -> S { S } }\n\
             fn own() { crate::b::fb(); }";
    for code in [
        "use crate::a::E::One;",
        "use crate::a::E::*; fn f() { Three(1); }",
        "fn f(e: u8) { crate::a::E::Two { x: e }; }",
        "fn f(e: u8) { if let crate::a::E::Three(_) = e {} }",
        "fn f(e: u8) { match e { crate::a::E::One => {} } }",
        "fn f() { crate::a::S::new(); }",
        "fn f() -> u8 { <crate::a::S>::N }",
        "fn f() { let x: Vec<Option<crate::a::S>> = g::<u8>(); }",
        "fn f() { g::<crate::a::S>(); }",
        "impl From<crate::a::S> for u8 {}",
        "fn f() -> impl Into<crate::a::S> {}",
    ] {
        let b = format!("pub fn fb() {{}} {code}");
        assert_eq!(circles(&[ROOT, ("a.rs", a), ("b.rs", &b), EMPTY]).len(), 1, "{code}");
    }
    none(&[
        ROOT,
        ("a.rs", a),
        ("b.rs", "pub fn fb() {} mod e { pub enum E { One } } use e::E::*; fn f() { One; }"),
        EMPTY,
    ]);
}

#[test]
fn functions_in_an_impl_away_from_the_type() {
    // a defines S; b adds a function to S, which a calls.
    let b = ("b.rs", "impl crate::a::S { pub fn added(&self) {} pub fn made() -> Self {} }");
    for code in [
        "impl S { fn f(&self) { self.added(); } }",
        "impl S { fn f(&self) { Self::made(); } }",
        "fn f() { S::made(); }",
        "fn f(s: &S) { s.added(); }",
        "fn f() { let s: S = g(); s.added(); }",
    ] {
        let a = format!("pub struct S; {code}");
        assert_eq!(circles(&[ROOT, ("a.rs", &a), b, EMPTY]).len(), 1, "{code}");
    }
    let a = "pub struct S; struct T; impl T { fn added(&self) {} fn f(&self) { self.added(); } }";
    none(&[ROOT, ("a.rs", a), b, EMPTY]);
}

#[test]
fn shadowed_names() {
    // Something in the file, in another crate, or in a function has the name of one of a's items.
    for code in [
        "use other::a::A;",
        "use ::a::A;",
        "mod a { pub struct A; } use a::A; fn f() -> a::A {}",
        "use other::a; fn f() -> a::A {}",
        "fn f<A>(a: A) {}",
        "fn f() { let fa = 1; g(fa); }",
        "fn f() { for fa in x { g(fa); } }",
        "fn f() { match x { Some(fa) => fa(), _ => {} } }",
        "fn f() { if let Some(fa) = x { fa(); } }",
        "fn f() { |fa: u8| fa; }",
        "fn f() { x.fa(); x.A; }",
        "struct B<A>(A); impl<A> B<A> { fn f(a: A) {} }",
    ] {
        let b = format!("pub fn fb() {{}} {code}");
        none(&[ROOT, A, ("b.rs", &b), EMPTY]);
        // A glob does not change that.
        let b = format!("use crate::a::*; pub fn fb() {{}} {code}");
        none(&[ROOT, A, ("b.rs", &b), EMPTY]);
    }
    // Outside the function that shadows it, the name refers to a's item again.
    for code in [
        "fn f() { let fa = fa(); }",
        "fn f() { { let fa = 1; } fa(); }",
        "fn f() { if let Some(fa) = x {} fa(); }",
        "fn f<A>() {} fn g(_: A) {}",
        "fn f(fa: u8) {} fn g() { fa(); }",
    ] {
        let b = format!("use crate::a::*; pub fn fb() {{}} {code}");
        assert_eq!(circles(&[ROOT, A, ("b.rs", &b), EMPTY]).len(), 1, "{code}");
    }
}

#[test]
fn inline_modules_and_blocks() {
    for code in [
        "mod inner { pub fn f() { super::super::a::fa() } }",
        "mod inner { use super::*; pub fn f() { a::fa() } } use super::a;",
        "fn f() { use crate::a::fa; fa() }",
        "fn f() { use crate::a; a::fa() }",
        "use super::a::{self as other}; fn f() { other::fa() }",
    ] {
        let b = format!("pub fn fb() {{}} {code}");
        assert_eq!(circles(&[ROOT, A, ("b.rs", &b), EMPTY]).len(), 1, "{code}");
    }
    // Importing a module alone does not use anything in it.
    none(&[ROOT, A, ("b.rs", "pub fn fb() {} use super::a;"), EMPTY]);
    none(&[ROOT, A, ("b.rs", "pub fn fb() {} fn f() { use crate::a; }"), EMPTY]);
}

#[test]
fn macros() {
    for code in [
        "fn f() { println!(\"{}\", crate::a::fa()); }",
        "fn f() { assert!(matches!(x, Some(y) if y == crate::a::A)); }",
        "fn f() { vec![crate::a::A; 3]; }",
        "fn f() { anything!(crate::a::fa() => 1); }",
        "macro_rules! m { ($x:expr) => { $crate::a::fa($x) } }",
    ] {
        let b = format!("pub fn fb() {{}} {code}");
        assert_eq!(circles(&[ROOT, A, ("b.rs", &b), EMPTY]).len(), 1, "{code}");
    }
    // A macro of another file, by its path, by textual order, and exported.
    let b = "macro_rules! helper { () => {} } pub(crate) use helper; fn f() { crate::a::fa() }";
    for call in ["crate::b::helper!();", "use crate::b::helper; fn g() { helper!(); }"] {
        let a = format!("pub fn fa() {{}} {call}");
        assert_eq!(circles(&[ROOT, ("a.rs", &a), ("b.rs", b), EMPTY]).len(), 1, "{call}");
    }
    let root = ("lib.rs", "macro_rules! m { () => {} } mod a; fn f() { a::fa() }");
    one(
        &[root, ("a.rs", "pub fn fa() { m!(); }")],
        &["lib.rs:1 uses fa of a.rs", "a.rs:1 uses m of lib.rs"],
    );
    let b = "#[macro_export] macro_rules! e { () => {} } fn f() { crate::a::fa() }";
    assert_eq!(
        circles(&[ROOT, ("a.rs", "pub fn fa() { crate::e!() }"), ("b.rs", b), EMPTY]).len(),
        1
    );
}

#[test]
fn files_of_modules() {
    let child = "pub fn f() { super::super::g() }";
    for (root, path) in [
        ("pub fn g() { a::b::f() } mod a { pub mod b; }", "a/b.rs"),
        ("pub fn g() { b::f() } #[path = \"odd/place.rs\"] mod b;", "odd/place.rs"),
        ("pub fn g() { b::f() } mod b;", "b/mod.rs"),
    ] {
        let child = if path == "a/b.rs" { child } else { "pub fn f() { super::g() }" };
        assert_eq!(circles(&[("lib.rs", root), (path, child)]).len(), 1, "{path}");
    }
    let read = |path: &Path| Ok((path == Path::new("lib.rs")).then(|| "mod gone;".to_owned()));
    let error = of_crate(Path::new("lib.rs"), Path::new(""), &read).unwrap_err().to_string();
    assert!(error.contains("mod gone"), "{error}");
    let read = |_: &Path| Ok(Some("fn (".to_owned()));
    let error = of_crate(Path::new("lib.rs"), Path::new(""), &read).unwrap_err().to_string();
    assert!(error.contains("cannot parse lib.rs"), "{error}");
}

#[test]
fn long_lists_of_names_are_cut() {
    let a = "pub fn f1() {} pub fn f2() {} pub fn f3() {} pub fn f4() {} pub fn f5() {}\n\
             fn own() { crate::b::fb(); }";
    let b = "use crate::a::{f5, f4, f3,\n f2, f1}; pub fn fb() {}";
    one(
        &[ROOT, ("a.rs", a), ("b.rs", b), EMPTY],
        &["a.rs:2 uses fb of b.rs", "b.rs:1 uses f3, f4, f5, f1 and 1 more of a.rs"],
    );
}
