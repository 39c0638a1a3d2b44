//! Keeps `configs/default.yaml` and `docs/CONFIG.md` in sync with the code: both are generated
//! from the config types, their defaults, and the doc comments of their fields.
//!
//! `SIMDINO_WRITE_REFERENCE=1 cargo test -p trainer --bin simdino reference` regenerates them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use simdino::RunConfig;
use simdino::config::problems::{expectation, kind_at};
use simdino::config::schema;

/// Source files that hold the config types, relative to this package.
const SOURCES: [&str; 13] = [
    "../simdino/src/config/mod.rs",
    "../data/src/config.rs",
    "../augment/src/config.rs",
    "../data/src/masking.rs",
    "../model/src/config.rs",
    "../objectives/src/config/simdino.rs",
    "../objectives/src/config/dino.rs",
    "../objectives/src/config/ibot.rs",
    "../objectives/src/config/koleo.rs",
    "../trainer/src/config/init.rs",
    "../trainer/src/config/optim.rs",
    "../trainer/src/config/train.rs",
    "../trainer/src/config/probe.rs",
];

/// Doc comment and type of each field of each struct.
type Docs = BTreeMap<String, BTreeMap<String, (String, String)>>;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Reads the doc comments of `pub struct` fields. Knows only the plain style of our config files.
fn read_docs(source: &str, docs: &mut Docs) {
    let (mut doc, mut owner) = (String::new(), None);
    for line in source.lines() {
        let line = line.trim();
        if let Some(text) = line.strip_prefix("/// ") {
            let space = if doc.is_empty() { "" } else { " " };
            write!(doc, "{space}{text}").unwrap();
        } else if let Some(name) = line.strip_prefix("pub struct ") {
            let name = name.trim_end_matches([' ', '{']).to_owned();
            docs.entry(name.clone()).or_default();
            owner = Some(name);
            doc.clear();
        } else if line == "}" {
            owner = None;
            doc.clear();
        } else if let (Some(owner), Some((name, kind))) =
            (&owner, line.strip_prefix("pub ").and_then(|field| field.split_once(": ")))
        {
            let kind = kind.trim_end_matches(',').to_owned();
            let field = (std::mem::take(&mut doc), kind);
            docs.get_mut(owner).unwrap().insert(name.to_owned(), field);
        } else if !line.starts_with("#[") {
            doc.clear();
        }
    }
}

fn docs() -> Docs {
    let mut docs = Docs::new();
    for source in SOURCES {
        read_docs(&fs::read_to_string(here(source)).unwrap(), &mut docs);
    }
    docs
}

/// The doc comment at a dotted path.
fn doc_at(docs: &Docs, path: &str) -> String {
    let mut owner = "RunConfig".to_owned();
    let mut found = String::new();
    for key in path.split('.') {
        let (doc, kind) = &docs[&owner][key];
        found.clone_from(doc);
        owner.clone_from(kind);
    }
    assert!(!found.is_empty(), "{path} has no doc comment");
    found
}

/// The lines of the default config with their dotted paths, in the order of the code.
fn lines() -> Vec<(String, String)> {
    let yaml = super::to_yaml(&RunConfig::default()).unwrap();
    let mut path: Vec<&str> = Vec::new();
    let mut lines = Vec::new();
    for line in yaml.lines() {
        let depth = (line.len() - line.trim_start().len()) / 2;
        path.truncate(depth);
        path.push(line.trim_start().split_once(':').unwrap().0);
        lines.push((path.join("."), line.to_owned()));
    }
    lines
}

fn wrapped(text: &str, indent: &str) -> String {
    let (mut wrapped, mut width) = (String::new(), usize::MAX);
    for word in text.split_whitespace() {
        if width.saturating_add(word.len()) >= 92 {
            write!(wrapped, "{}{indent}#", if wrapped.is_empty() { "" } else { "\n" }).unwrap();
            width = indent.len() + 1;
        }
        write!(wrapped, " {word}").unwrap();
        width += word.len() + 1;
    }
    wrapped + "\n"
}

fn default_yaml() -> String {
    let docs = docs();
    let mut text = "\
# Every key with its default. Generated from the code, see crates/cli/src/config/reference.rs: do not edit. A config of your own holds only what differs.
"
    .to_owned();
    for (path, line) in lines() {
        if !path.contains('.') {
            text.push('\n');
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        text += &wrapped(&doc_at(&docs, &path), indent);
        text += &line;
        text.push('\n');
    }
    text
}

fn config_md() -> String {
    let docs = docs();
    let shape = schema::of::<RunConfig>().unwrap();
    let mut text = "\
# Config reference

Generated from the code: do not edit. A config is one YAML file that holds what differs from these
defaults; `key.path=value` on the command line wins over the file. `simdino config show FILE` prints
the result, `simdino config check FILE` all that is wrong with it.
"
    .to_owned();
    // Section by section, since one may stand in the middle of another.
    let mut sections: Vec<(String, String)> = Vec::new();
    for (path, line) in lines() {
        let doc = doc_at(&docs, &path);
        let Some((_, default)) = line.split_once(": ") else {
            let head = format!(
                "\n## `{path}`\n{doc}\n\n| key | takes | default | meaning |\n|---|---|---|---|\n"
            );
            sections.push((path, head));
            continue;
        };
        let takes = expectation(kind_at(&shape, &path).unwrap(), &path);
        let default = if default == "''" { "(empty)".into() } else { format!("`{default}`") };
        match path.rsplit_once('.') {
            Some((section, key)) => {
                let (_, rows) = sections.iter_mut().find(|(name, _)| name == section).unwrap();
                let doc = doc.replace('|', "\\|");
                writeln!(rows, "| `{key}` | {takes} | {default} | {doc} |").unwrap();
            }
            None => {
                let head = format!("\n## `{path}`\n{doc} Takes {takes}; default {default}.\n");
                sections.push((path, head));
            }
        }
    }
    text.extend(sections.into_iter().map(|(_, section)| section));
    text
}

fn check(path: &str, expect: &str) {
    let path = here(path);
    if std::env::var_os("SIMDINO_WRITE_REFERENCE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, expect).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == expect,
        "{} differs from the code: run \
         SIMDINO_WRITE_REFERENCE=1 cargo test -p trainer --bin simdino reference",
        path.display()
    );
}

#[test]
fn default_yaml_is_up_to_date() {
    let text = default_yaml();
    let config = super::parse(&text, "default.yaml", &[]).unwrap();
    assert_eq!(config, RunConfig::default());
    check("../../configs/default.yaml", &text);
}

#[test]
fn config_md_is_up_to_date() {
    check("../../docs/CONFIG.md", &config_md());
}
