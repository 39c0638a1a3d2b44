//! Keeps `configs/default.yaml`, `docs/CONFIG.md`, and `docs/config.schema.json` in sync with the
//! code: all three are generated from the schema of the config types and their defaults.
//!
//! `SIMDINO_WRITE_REFERENCE=1 cargo test --workspace -- reference` regenerates them.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use simdino::RunConfig;
use simdino::config::problems::expectation;
use simdino::config::schema::{self, Key, Kind};

/// Returns the lines of the default config with their dotted paths, in the order of the code.
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

fn key<'a>(root: &'a Kind, path: &str) -> &'a Key {
    let key = schema::key_at(root, path).unwrap();
    assert!(!key.doc.is_empty(), "{path} has no doc comment");
    key
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
    let root = schema::of::<RunConfig>().unwrap();
    let mut text = "\
# Every key with its default, which is that of SimDINO. Generated from the code: do not edit. A config
# of your own holds only what differs.
"
    .to_owned();
    for (path, line) in lines() {
        if !path.contains('.') {
            text.push('\n');
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        text += &wrapped(&key(&root, &path).doc, indent);
        text += &line;
        text.push('\n');
    }
    text
}

const INTRODUCTION: &str = "\
# Config reference

Generated from the code: do not edit. A config is one YAML file that holds what differs from these
defaults; `key.path=value` on the command line wins over the file. `simdino config show FILE` prints
the result, and `simdino config check FILE` everything that is wrong with it.

`simdino config schema > config.schema.json` writes the JSON schema of a config, which is also
[here](config.schema.json). Editors with the YAML language server explain, complete, and check the
keys of a file that names the schema in its first line:

```yaml
# yaml-language-server: $schema=config.schema.json
```

When a run is resumed, a key must have the value of the checkpoint, unless its row says \"may change\".
";

const TABLE: &str = "| key | type | default | on resume | meaning |\n|---|---|---|---|---|\n";

fn config_md() -> String {
    let root = schema::of::<RunConfig>().unwrap();
    // Rows are collected per section, since a section may appear in the middle of another.
    let mut sections: Vec<(String, String)> = Vec::new();
    for (path, line) in lines() {
        let key = key(&root, &path);
        let Some((_, default)) = line.split_once(": ") else {
            sections.push((path.clone(), format!("\n## `{path}`\n{}\n\n{TABLE}", key.doc)));
            continue;
        };
        match path.rsplit_once('.') {
            Some((section, name)) => {
                let (_, rows) = sections.iter_mut().find(|(name, _)| name == section).unwrap();
                rows.push_str(&row(name, key, default));
            }
            None => {
                let mut text = format!("\n## `{path}`\n{} Default: `{default}`.\n\n", key.doc);
                schema::words(&key.kind).iter().for_each(|word| {
                    writeln!(text, "- `{}`: {}", word.word, word.doc).unwrap();
                });
                sections.push((path.clone(), text));
            }
        }
        sections.extend(elements(&path, key));
    }
    let sections = sections.into_iter().map(|(_, section)| section);
    INTRODUCTION.to_owned() + &sections.collect::<String>()
}

/// Returns a table of the keys of the elements of a list, if the elements are sections.
fn elements(path: &str, key: &Key) -> Option<(String, String)> {
    let Kind::List(inner, None) = &key.kind else { return None };
    let Kind::Section(keys) = &**inner else { return None };
    let rows = keys.iter().map(|(name, inner)| row(name, inner, &inner.default.to_string()));
    let head = format!("\n## Elements of `{path}`\n{TABLE}");
    Some((format!("{path}[]"), head + &rows.collect::<String>()))
}

fn row(name: &str, key: &Key, default: &str) -> String {
    let mut meaning = key.doc.replace('|', "\\|");
    for word in schema::words(&key.kind).iter().filter(|word| !word.doc.is_empty()) {
        write!(meaning, "<br>`{}`: {}", word.word, word.doc.replace('|', "\\|")).unwrap();
    }
    let default = if default == "''" { "(empty)".into() } else { format!("`{default}`") };
    let resume = if key.may_change_on_resume { "may change" } else { "" };
    let kind = expectation(&key.kind);
    let kind = kind.strip_prefix("an ").or(kind.strip_prefix("a ")).unwrap_or(&kind);
    format!("| `{name}` | {kind} | {default} | {resume} | {meaning} |\n")
}

fn check(path: &str, expect: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    if std::env::var_os("SIMDINO_WRITE_REFERENCE").is_some() {
        base::write_atomic(&path, expect.as_bytes()).unwrap(); // other tests read it concurrently
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == expect,
        "{} differs from the code: run \
         SIMDINO_WRITE_REFERENCE=1 cargo test --workspace -- reference",
        path.display()
    );
}

#[test]
fn default_yaml_is_up_to_date() {
    let text = default_yaml();
    let config = super::parse(&text, "default.yaml", &[]).unwrap();
    assert_eq!(config, RunConfig::default());
    check("configs/default.yaml", &text);
}

#[test]
fn config_md_is_up_to_date() {
    check("docs/CONFIG.md", &config_md());
}

#[test]
fn json_schema_is_up_to_date() {
    check("docs/config.schema.json", &super::json_schema());
}
