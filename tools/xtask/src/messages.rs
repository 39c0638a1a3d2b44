//! `docs/MESSAGES.txt`: every sentence that the program can print, in one file, so that changes of
//! the wording can be reviewed together.
//!
//! The file is generated from the sources: the texts of errors, and every literal of three or more
//! words in code that is not for tests. `cargo xtask messages` writes it; the stage `messages` of
//! `cargo xtask test` fails if it is not up to date.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, File, Item, LitStr, Macro};

use crate::fail::{Context, Result, failed};
use crate::layering::cycles::attributes::{of_item, only_for_tests};
use crate::workspace::Workspace;

const FILE: &str = "docs/MESSAGES.txt";
/// Minimum number of words. Literals with fewer are names or units rather than sentences.
const LEAST_WORDS: usize = 3;
const HEAD: &str = "\
# Every sentence that simdino can print, by source file. Generated: do not edit, run `cargo xtask messages`.
";

/// Writes the file.
///
/// # Errors
/// Returns an error if a source cannot be read or parsed, or the file cannot be written.
pub fn write(workspace: &Workspace) -> Result<()> {
    let path = workspace.path(FILE);
    let text = collect(&workspace.path("crates"), workspace.root())?;
    fs::write(&path, text).context(|| format!("cannot write {}", path.display()))
}

/// Checks that the file is up to date.
///
/// # Errors
/// Returns an error that names the first differing line if it is not, or if a source cannot be read
/// or parsed.
pub fn check(workspace: &Workspace) -> Result<()> {
    let expected = collect(&workspace.path("crates"), workspace.root())?;
    let found = fs::read_to_string(workspace.path(FILE)).unwrap_or_default();
    if found == expected {
        return Ok(());
    }
    let differing = expected.lines().zip(found.lines().chain(std::iter::repeat("")));
    let line = differing.into_iter().find(|(new, old)| new != old);
    let line = line.map_or("an extra line", |(new, _)| new).trim();
    failed(format!(
        "{FILE} is not up to date ({line}): run `cargo xtask messages` and read its diff"
    ))
}

fn collect(crates: &Path, root: &Path) -> Result<String> {
    let mut text = HEAD.to_owned();
    for path in sources(crates)? {
        let source =
            fs::read_to_string(&path).context(|| format!("cannot read {}", path.display()))?;
        let file =
            syn::parse_file(&source).context(|| format!("cannot parse {}", path.display()))?;
        let sentences = sentences(&file);
        if sentences.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n{}", path.strip_prefix(root).unwrap_or(&path).display());
        for sentence in sentences {
            let _ = writeln!(text, "  {}", sentence.replace('\n', "\\n"));
        }
    }
    Ok(text)
}

/// Returns the source files of all crates, except those that are only for tests, sorted.
fn sources(crates: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut for_tests) = (Vec::new(), BTreeSet::new());
    let mut waiting = vec![crates.to_owned()];
    while let Some(folder) = waiting.pop() {
        let entries =
            fs::read_dir(&folder).context(|| format!("cannot read {}", folder.display()))?;
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|end| end == "rs")
                && path.components().any(|part| part.as_os_str() == "src")
            {
                for_tests.extend(test_modules(&path)?);
                found.push(path);
            }
        }
    }
    found.retain(|path| !for_tests.contains(path));
    found.sort();
    Ok(found)
}

/// Returns the files of the modules that `path` declares for test builds only.
fn test_modules(path: &Path) -> Result<Vec<PathBuf>> {
    let source = fs::read_to_string(path).context(|| format!("cannot read {}", path.display()))?;
    let file = syn::parse_file(&source).context(|| format!("cannot parse {}", path.display()))?;
    let stem = path.file_stem().unwrap_or_default();
    let own_folder = ["mod", "lib", "main"].iter().any(|root| stem == *root);
    let folder = if own_folder { path.with_file_name("") } else { path.with_extension("") };
    let modules = file.items.iter().filter_map(|item| match item {
        Item::Mod(module) if module.content.is_none() && only_for_tests(&module.attrs) => {
            Some(folder.join(format!("{}.rs", module.ident)))
        }
        _ => None,
    });
    Ok(modules.collect())
}

/// Returns the sentences of a file in their order, each once.
fn sentences(file: &File) -> Vec<String> {
    let mut found = Sentences::default();
    found.visit_file(file);
    let mut seen = BTreeSet::new();
    found.0.retain(|sentence| seen.insert(sentence.clone()));
    found.0
}

#[derive(Default)]
struct Sentences(Vec<String>);

impl Sentences {
    fn add(&mut self, literal: &LitStr) {
        let text = literal.value();
        if text.split_whitespace().count() >= LEAST_WORDS {
            self.0.push(text);
        }
    }

    /// Adds the literals among the tokens of a macro or an attribute.
    fn add_tokens(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.add_tokens(group.stream()),
                TokenTree::Literal(literal) => {
                    if let Ok(literal) = syn::parse_str::<LitStr>(&literal.to_string()) {
                        self.add(&literal);
                    }
                }
                _ => {}
            }
        }
    }
}

impl Visit<'_> for Sentences {
    fn visit_item(&mut self, item: &Item) {
        if !only_for_tests(of_item(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_attribute(&mut self, attribute: &Attribute) {
        if let (true, syn::Meta::List(list)) = (attribute.path().is_ident("error"), &attribute.meta)
        {
            self.add_tokens(list.tokens.clone());
        }
    }

    fn visit_macro(&mut self, call: &Macro) {
        self.add_tokens(call.tokens.clone());
    }

    fn visit_lit_str(&mut self, literal: &LitStr) {
        self.add(literal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(source: &str) -> Vec<String> {
        sentences(&syn::parse_file(source).unwrap())
    }

    #[test]
    fn errors_literals_and_macros_are_sentences() {
        let source = r#"
            /// A doc comment is none.
            #[derive(Debug)]
            enum Error { #[error("cannot read {path}: try again")] Io { path: String } }
            const SHORT: &str = "two words";
            fn f() -> String {
                log("a line that \
                     goes on");
                format!("{} of {} images", g("one two three"), 2)
            }
            #[cfg(test)]
            mod tests { const X: &str = "a sentence of tests"; }
        "#;
        assert_eq!(
            of(source),
            [
                "cannot read {path}: try again",
                "a line that goes on",
                "{} of {} images",
                "one two three",
            ]
        );
    }

    #[test]
    fn a_sentence_that_comes_again_is_there_once() {
        assert_eq!(of(r#"fn f() { a("one two three"); b("one two three"); }"#), ["one two three"]);
    }
}
