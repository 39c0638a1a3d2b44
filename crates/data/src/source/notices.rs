//! What a source found besides the images that it lists. All of it must be reported.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Maximum number of names kept per kind.
const MAX_NAMED: usize = 5;
/// Maximum number of suffixes in a sentence, the most frequent first.
const MAX_SUFFIXES: usize = 8;
/// Maximum number of suffixes that are counted separately. Names taken from URLs can have
/// arbitrarily many.
const MAX_KEPT: usize = 256;
/// Key under which suffixes beyond [`MAX_KEPT`] are counted.
const OTHER: &str = "*";
/// Files that operating systems create next to others. They are not reported.
const SYSTEM_FILES: [&str; 4] = ["thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store"];

/// Items of one kind: how many there are, and the first of them with reasons.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// How many there are.
    pub count: u64,
    /// Name and reason of the first few.
    pub first: Vec<(String, String)>,
}

impl Named {
    /// Adds an item.
    pub fn push(&mut self, name: impl Into<String>, reason: impl Into<String>) {
        self.count += 1;
        if self.first.len() < MAX_NAMED {
            self.first.push((name.into(), reason.into()));
        }
    }

    /// Adds `count` items with the same reason, under a common name.
    #[cfg(feature = "parquet")]
    pub(super) fn push_many(
        &mut self,
        name: impl Into<String>,
        reason: impl Into<String>,
        count: u64,
    ) {
        self.push(name, reason);
        self.count += count.saturating_sub(1);
    }

    /// Adds the items of a part of the dataset, with a prefix for their names.
    fn append(&mut self, prefix: &str, other: Self) {
        self.count += other.count;
        let room = MAX_NAMED - self.first.len();
        let named = other.first.into_iter().take(room);
        self.first.extend(named.map(|(name, reason)| (format!("{prefix}{name}"), reason)));
    }

    fn list(&self) -> String {
        let named = self.first.iter().map(|(name, reason)| format!("{name} ({reason})"));
        let mut parts: Vec<String> = named.collect();
        let more = self.count.saturating_sub(self.first.len() as u64);
        if more > 0 {
            parts.push(format!("and {more} more"));
        }
        parts.join(", ")
    }
}

/// The result of [`Source::notices`](super::Source::notices).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Notices {
    /// Number of files, or members of shards, that are not named like images, by suffix. A suffix
    /// is in lower case and includes the dot; it is empty for names without one, and `*` for all
    /// rare suffixes together.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<String, u64>,
    /// Number of files whose names begin with a dot, except those that operating systems create.
    #[serde(skip_serializing_if = "is_zero")]
    pub hidden_files: u64,
    /// Number of folders whose names begin with a dot; their contents are not read.
    #[serde(skip_serializing_if = "is_zero")]
    pub hidden_folders: u64,
    /// Entries that should be images but cannot be found or identified: lines of lists, links in
    /// shards, dangling links in folders.
    #[serde(skip_serializing_if = "is_none")]
    pub lost: Named,
    /// Labels that exist but cannot be read; their images count as unlabeled.
    #[serde(skip_serializing_if = "is_none")]
    pub unread_labels: Named,
    /// Other remarks, one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn is_none(named: &Named) -> bool {
    named.count == 0
}

impl Notices {
    /// Returns whether there is nothing to report.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the number of files that were ignored because of their suffix.
    pub fn left_out_count(&self) -> u64 {
        self.left_out.values().sum()
    }

    /// Counts a file that is not named like an image, unless the operating system created it.
    pub(super) fn leave_out(&mut self, name: &str) {
        if !is_system_file(name) {
            self.count_suffix(suffix(name), 1);
        }
    }

    /// Counts a member of a shard that belongs to an image, by its whole extension.
    pub(super) fn leave_out_as(&mut self, extension: &str) {
        self.count_suffix(format!(".{}", extension.to_lowercase()), 1);
    }

    /// Counts a file whose name begins with a dot, unless the operating system created it.
    pub(super) fn hide(&mut self, name: &str) {
        if !is_system_file(name) {
            self.hidden_files += 1;
        }
    }

    fn count_suffix(&mut self, suffix: String, count: u64) {
        let known = self.left_out.contains_key(&suffix) || self.left_out.len() < MAX_KEPT;
        *self.left_out.entry(if known { suffix } else { OTHER.into() }).or_default() += count;
    }

    /// Adds the notices of a part of the dataset, with `prefix` for their names.
    pub(super) fn append(&mut self, prefix: &str, other: Self) {
        for (suffix, count) in other.left_out {
            self.count_suffix(suffix, count);
        }
        self.hidden_files += other.hidden_files;
        self.hidden_folders += other.hidden_folders;
        self.lost.append(prefix, other.lost);
        self.unread_labels.append(prefix, other.unread_labels);
        let of = prefix.trim_end_matches('/');
        self.remarks.extend(other.remarks.into_iter().map(|text| format!("{of}: {text}")));
    }

    /// Returns all notices as sentences for users.
    pub fn sentences(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        if let Some(text) = self.left_out_sentence() {
            sentences.push(text);
        }
        if let Some(text) = self.hidden_sentence() {
            sentences.push(text);
        }
        if self.lost.count > 0 {
            let (count, what) = (self.lost.count, plural(self.lost.count, "entry", "entries"));
            sentences.push(format!("{count} {what} cannot be used: {}", self.lost.list()));
        }
        if let Some(text) = self.label_sentence() {
            sentences.push(text);
        }
        sentences.extend(self.remarks.iter().cloned());
        sentences
    }

    /// Returns the same sentences, each prefixed with the name of the dataset.
    pub fn sentences_about(&self, name: &str) -> Vec<String> {
        self.sentences().iter().map(|text| format!("{name}: {text}")).collect()
    }

    /// Returns the sentence about suffixes, if files were ignored.
    pub fn left_out_sentence(&self) -> Option<String> {
        let count = self.left_out_count();
        let were = plural(count, "file was", "files were");
        (count > 0).then(|| format!("{count} {were} left out: {}", self.by_suffix()))
    }

    /// Returns the sentence about labels, if some cannot be read.
    pub fn label_sentence(&self) -> Option<String> {
        let count = self.unread_labels.count;
        let what =
            plural(count, "label cannot be read and counts", "labels cannot be read and count");
        let list = self.unread_labels.list();
        (count > 0).then(|| format!("{count} {what} as missing: {list}"))
    }

    fn hidden_sentence(&self) -> Option<String> {
        let (files, folders) = (self.hidden_files, self.hidden_folders);
        let mut parts = Vec::new();
        if files > 0 {
            parts.push(format!("{files} hidden {}", plural(files, "file", "files")));
        }
        if folders > 0 {
            parts.push(format!("{folders} hidden {}", plural(folders, "folder", "folders")));
        }
        let were = plural(files + folders, "was", "were");
        (files + folders > 0).then(|| {
            format!("{} {were} ignored (names that start with a dot)", parts.join(" and "))
        })
    }

    /// Lists the counts by suffix, the most frequent first: `5 .heic, 2 without an extension`.
    pub(super) fn by_suffix(&self) -> String {
        let mut counts: Vec<(&str, u64)> =
            self.left_out.iter().map(|(suffix, &count)| (suffix.as_str(), count)).collect();
        counts.sort_by_key(|&(suffix, count)| (suffix == OTHER, std::cmp::Reverse(count)));
        let words = |&(suffix, count): &(&str, u64)| match suffix {
            "" => format!("{count} without an extension"),
            OTHER => format!("{count} with other extensions"),
            _ => format!("{count} {suffix}"),
        };
        let mut parts: Vec<String> = counts.iter().take(MAX_SUFFIXES).map(words).collect();
        let rest: u64 = counts.iter().skip(MAX_SUFFIXES).map(|(_, count)| count).sum();
        if rest > 0 {
            parts.push(format!("{rest} with other extensions"));
        }
        parts.join(", ")
    }
}

fn plural<'a>(count: u64, one: &'a str, more: &'a str) -> &'a str {
    if count == 1 { one } else { more }
}

/// Returns the suffix by which a name is counted, or an empty string. The text after the last dot
/// is a suffix only if it looks like one: `IMG.2020.01.12` and `photo.jpg?width=200` have none.
fn suffix(name: &str) -> String {
    let end = Path::new(name).extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let looks = end.len() <= 10
        && end.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        && end.bytes().any(|byte| byte.is_ascii_alphabetic());
    if looks { format!(".{end}") } else { String::new() }
}

/// Returns whether the name is that of a file that an operating system creates: `Thumbs.db`,
/// `.DS_Store`, or one of the `._` files that macOS creates on foreign file systems.
pub(super) fn is_system_file(name: &str) -> bool {
    let base = name.rsplit('/').next().unwrap_or(name);
    base.starts_with("._") || SYSTEM_FILES.contains(&base.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Notices {
        let mut notices = Notices::default();
        names.iter().for_each(|name| notices.leave_out(name));
        notices
    }

    #[test]
    fn files_are_counted_by_suffix() {
        let notices = of(&[
            "a.HEIC",
            "b.heic",
            "c",
            "d/e.2020",
            "x.jpg?w=2",
            "Thumbs.db",
            ".DS_Store",
            "d/._a.jpg",
            "x.json",
        ]);
        let sentence = notices.left_out_sentence().unwrap();
        assert_eq!(sentence, "6 files were left out: 3 without an extension, 2 .heic, 1 .json");
        assert_eq!(of(&["a.gif"]).sentences(), ["1 file was left out: 1 .gif"]);
        assert!(of(&["Desktop.ini"]).is_empty());
    }

    #[test]
    fn many_suffixes_take_little_room() {
        let names: Vec<String> = (0..1000).map(|i| format!("x.a{i}")).collect();
        let mut notices = of(&names.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!((notices.left_out.len(), notices.left_out_count()), (257, 1000));
        assert!(notices.left_out_sentence().unwrap().ends_with("992 with other extensions"));
        notices.append("b/", of(&["y.zzz", "y.a0"]));
        assert_eq!((notices.left_out.len(), notices.left_out_count()), (257, 1002));
    }

    #[test]
    fn the_first_are_named_and_the_rest_counted() {
        let mut notices = Notices::default();
        (0..7).for_each(|i| notices.unread_labels.push(format!("{i}.json"), "empty"));
        notices.lost.push("line 3", "no path");
        notices.remarks.push("so it is".into());
        let mut all = Notices::default();
        all.append("a.tar/", notices.clone());
        all.append("b.tar/", notices);
        let [lost, labels, first, second] = &all.sentences()[..] else { panic!("{all:?}") };
        assert_eq!([first, second], ["a.tar: so it is", "b.tar: so it is"]);
        assert_eq!(
            lost,
            "2 entries cannot be used: a.tar/line 3 (no path), b.tar/line 3 (no path)"
        );
        assert!(labels.starts_with("14 labels cannot be read and count as missing: a.tar/0.json"));
        assert!(labels.ends_with("a.tar/4.json (empty), and 9 more"), "{labels}");
    }
}
