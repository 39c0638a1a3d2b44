//! Determines which members of a shard belong together, and the label of each image.
//!
//! The members of a sample share their key, which is the name up to the first dot of its last part.
//! If a key occurs once, its members may be anywhere in the shard. If it occurs repeatedly, only
//! adjacent members form a sample, and an image gets a label from its own sample or none at all,
//! never from another one.

use std::collections::{HashMap, HashSet};

use super::super::notices::{Named, Notices};
use super::members::{Member, Members};
use super::sparse::Sparse;

/// Maximum length of a chain of links.
const MAX_LINKS: usize = 8;

/// The content of a member, or the link by which it is found.
#[derive(Debug, Clone)]
pub(super) enum Content<T> {
    Own(T),
    /// A hard link: the content of the earlier member with this name.
    Before(String),
    /// A symbolic link: the content of the member with this name, at any position.
    Anywhere(String),
}

/// The label in a `.cls` or `.json` member, `None` if it states none, or the reason why it cannot
/// be read.
pub(super) type LabelText = Result<Option<String>, String>;

/// Where the bytes of an image are.
pub(super) type Place = (Member, Option<Sparse>);

struct Found<T> {
    name: String,
    /// Number of the member's run, which consists of adjacent members with the same key.
    run: u32,
    content: Content<T>,
}

/// The images and labels of a shard, in the order in which they are read.
#[derive(Default)]
pub(super) struct Samples {
    images: Vec<Found<Place>>,
    labels: Vec<Found<LabelText>>,
    run: u32,
    /// Key of the current run, and the `extensions` that have occurred in it.
    key: String,
    extensions: HashSet<String>,
    pub(super) notices: Notices,
}

impl Samples {
    /// Registers the next member. It belongs to the current run if it has the same key and an
    /// extension that has not occurred in the run; otherwise it starts a new run.
    pub(super) fn meet(&mut self, name: &str) {
        let (key, extension) = split(name);
        let same = self.key == key && !self.extensions.is_empty();
        if !(same && self.extensions.insert(extension.to_owned())) {
            self.run += 1;
            self.key = key.to_owned();
            self.extensions = HashSet::from([extension.to_owned()]);
        }
    }

    /// Adds the current member as an image.
    pub(super) fn image(&mut self, name: String, content: Content<Place>) {
        self.images.push(Found { name, run: self.run, content });
    }

    /// Adds the current member as a label.
    pub(super) fn label(&mut self, name: String, content: Content<LabelText>) {
        self.labels.push(Found { name, run: self.run, content });
    }

    /// Returns the images with their labels.
    pub(super) fn finish(self) -> Members {
        let Self { images, labels, mut notices, .. } = self;
        let (images, lost) = followed(images);
        let (labels, unread) = followed(labels);
        let unread = unread.into_iter().map(|(name, run, why)| (name, run, Err(why)));
        let labels: Vec<(String, u32, LabelText)> = labels.into_iter().chain(unread).collect();
        lost.into_iter().for_each(|(name, _, why)| notices.lost.push(name, why));
        let plain: HashSet<&str> = images
            .iter()
            .map(|(name, ..)| split(name))
            .filter(|(_, extension)| !extension.contains('.'))
            .map(|(key, _)| key)
            .collect();
        let (mut shown, mut masks) = (Vec::with_capacity(images.len()), Vec::new());
        for image in &images {
            let (key, extension) = split(&image.0);
            // `0001.seg.png` next to `0001.jpg` is not an image of its own, but `IMG.2020.01.jpg`
            // without an `IMG.jpg` is.
            let is_shown = !extension.contains('.') || !plain.contains(key);
            if is_shown { shown.push(image) } else { masks.push(extension) }
        }
        masks.iter().for_each(|extension| notices.leave_out_as(extension));
        let table = LabelTable::new(&shown, &labels);
        let mut members = Members::default();
        for (name, run, (member, sparse)) in shown {
            let label = table.of(name, *run, &mut notices.unread_labels);
            members.push(name, *member, label, sparse.clone());
        }
        members.notices = notices;
        members.shrink();
        members
    }
}

/// Name, run, and content of each member; and of members with broken links, name, run, and reason.
type Followed<T> = (Vec<(String, u32, T)>, Vec<(String, u32, String)>);

/// Replaces links with the content of their targets.
fn followed<T: Clone>(found: Vec<Found<T>>) -> Followed<T> {
    if found.iter().all(|member| matches!(member.content, Content::Own(_))) {
        let own = |Found { name, run, content }| match content {
            Content::Own(content) => Some((name, run, content)),
            _ => None,
        };
        return (found.into_iter().filter_map(own).collect(), Vec::new());
    }
    let mut known: HashMap<String, T> = HashMap::new();
    let mut contents: Vec<Option<T>> = vec![None; found.len()];
    for pass in 0..MAX_LINKS {
        for (member, content) in found.iter().zip(&mut contents) {
            if content.is_some() && pass > 0 {
                continue;
            }
            *content = match &member.content {
                Content::Own(content) => Some(content.clone()),
                Content::Before(target) => known.get(normal(target)).cloned(),
                Content::Anywhere(target) if pass > 0 => known.get(target).cloned(),
                Content::Anywhere(_) => None,
            };
            if let Some(content) = content {
                known.insert(normal(&member.name).to_owned(), content.clone());
            }
        }
    }
    let (mut good, mut lost) = (Vec::new(), Vec::new());
    for (Found { name, run, content: link }, content) in found.into_iter().zip(contents) {
        match (content, link) {
            (Some(content), _) => good.push((name, run, content)),
            (None, Content::Before(to) | Content::Anywhere(to)) => {
                lost.push((name, run, format!("a link to {to}, which is not in this shard")));
            }
            (None, Content::Own(_)) => {}
        }
    }
    (good, lost)
}

/// The labels of a shard: by run for keys that several samples share, and by key for all others.
struct LabelTable<'a> {
    by_key: HashMap<&'a str, Label<'a>>,
    by_run: HashMap<u32, Label<'a>>,
    /// The keys that several samples share, and whether each of these samples has its own label.
    several: HashMap<&'a str, bool>,
}

/// A label, or the name of a member whose label cannot be read and the reason.
type Label<'a> = Result<Option<&'a str>, (&'a str, &'a str)>;

impl<'a> LabelTable<'a> {
    fn new(images: &[&'a (String, u32, Place)], labels: &'a [(String, u32, LabelText)]) -> Self {
        let several = several(images, labels);
        let (mut by_key, mut by_run) = (HashMap::new(), HashMap::new());
        for (name, run, text) in labels {
            let (key, _) = split(name);
            let label = match text {
                Ok(label) => Ok(label.as_deref()),
                Err(why) => Err((name.as_str(), why.as_str())),
            };
            let of: &mut Label<'_> = match several.contains_key(key) {
                true => by_run.entry(*run).or_insert(Ok(None)),
                false => by_key.entry(key).or_insert(Ok(None)),
            };
            // A later label takes precedence, unless it states none.
            if label != Ok(None) {
                *of = label;
            }
        }
        Self { by_key, by_run, several }
    }

    /// Returns the label of an image. If it cannot be read, records the reason in `unread`.
    fn of(&self, name: &str, run: u32, unread: &mut Named) -> Option<String> {
        let (key, _) = split(name);
        let label = match self.several.get(key) {
            None => self.by_key.get(key),
            Some(true) => self.by_run.get(&run),
            Some(false) => {
                let why =
                    format!("several samples have the key {key}, and not all of them have a label");
                unread.push(name, why);
                return None;
            }
        };
        match label.copied().unwrap_or(Ok(None)) {
            Ok(label) => label.map(str::to_owned),
            Err((member, why)) => {
                unread.push(member, why);
                None
            }
        }
    }
}

/// Returns the keys with labels that several samples share, and whether each of these samples has
/// its own label.
fn several<'a>(
    images: &[&'a (String, u32, Place)],
    labels: &'a [(String, u32, LabelText)],
) -> HashMap<&'a str, bool> {
    // The first run of each key with an image, a `.cls`, or a `.json` member. A second run of one
    // of these means that several samples share the key.
    let mut runs: HashMap<(&str, &str), u32> = HashMap::new();
    let mut several: HashMap<&str, bool> = HashMap::new();
    let images = images.iter().map(|(name, run, _)| (split(name).0, "", *run));
    let labels = labels.iter().map(|(name, run, _)| (split(name).0, split(name).1, *run));
    for (key, what, run) in images.clone().chain(labels.clone()) {
        if *runs.entry((key, what)).or_insert(run) != run {
            several.insert(key, true);
        }
    }
    let with_images: HashSet<(&str, u32)> = images
        .map(|(key, _, run)| (key, run))
        .filter(|(key, _)| several.contains_key(key))
        .collect();
    let with_labels: HashSet<(&str, u32)> = labels
        .map(|(key, _, run)| (key, run))
        .filter(|(key, _)| several.contains_key(key))
        .collect();
    let labeled: HashSet<&str> = with_labels.iter().map(|&(key, _)| key).collect();
    several.retain(|key, _| labeled.contains(key));
    for &(key, _) in with_images.symmetric_difference(&with_labels) {
        if let Some(own) = several.get_mut(key) {
            *own = false;
        }
    }
    several
}

/// Splits the name of a member into its key and its extension.
pub(super) fn split(name: &str) -> (&str, &str) {
    let name = normal(name);
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[base..].find('.') {
        Some(dot) => (&name[..base + dot], &name[base + dot + 1..]),
        None => (name, ""),
    }
}

/// Removes the leading `./` that some programs write.
fn normal(mut name: &str) -> &str {
    while let Some(rest) = name.strip_prefix("./") {
        name = rest;
    }
    name
}

/// Returns the name of the target `to` of a symbolic link at `from`, or `None` if it is outside the
/// archive.
pub(super) fn target(from: &str, to: &str) -> Option<String> {
    let folder = normal(from).rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> = Vec::new();
    if to.starts_with('/') {
        return None;
    }
    for part in folder.split('/').chain(to.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_ends_at_the_first_dot_of_the_last_part() {
        assert_eq!(split("a.b/0001.seg.png"), ("a.b/0001", "seg.png"));
        assert_eq!(split("0001.jpg"), ("0001", "jpg"));
        assert_eq!(split("./dir/0001.jpg"), ("dir/0001", "jpg"));
        assert_eq!(split("dir/none"), ("dir/none", ""));
        assert_eq!(split("../x.jpg"), ("../x", "jpg"));
    }

    #[test]
    fn a_link_leads_nowhere_outside() {
        let lead = |from, to| target(from, to);
        assert_eq!(lead("a/b.jpg", "../c/./d.jpg").as_deref(), Some("c/d.jpg"));
        assert_eq!(lead("./b.jpg", "d.jpg").as_deref(), Some("d.jpg"));
        for to in ["../d.jpg", "/d.jpg", "x/../../d.jpg"] {
            assert_eq!(lead("b.jpg", to), None, "{to}");
        }
    }

    /// Returns the labels of the images among the named members, and the number of unread labels.
    /// The label of a member follows `=`.
    fn labels(names: &str) -> (Vec<Option<String>>, u64) {
        let mut samples = Samples::default();
        for name in names.split(' ') {
            let (name, class) = name.split_once('=').unwrap_or((name, ""));
            samples.meet(name);
            let member = Member { offset: 512, size: 1, header: None, content: None };
            match split(name).1 {
                "cls" | "json" if class == "!" => {
                    samples.label(name.into(), Content::Own(Err("empty".into())));
                }
                "cls" | "json" => {
                    let class = Some(class.to_owned()).filter(|class| !class.is_empty());
                    samples.label(name.into(), Content::Own(Ok(class)));
                }
                "jpg" | "png" => samples.image(name.into(), Content::Own((member, None))),
                _ => {}
            }
        }
        let members = samples.finish();
        (members.labels.clone(), members.notices.unread_labels.count)
    }

    #[test]
    fn every_image_has_its_own_label_or_none() {
        for (names, expected, unread) in [
            ("a.jpg a.cls=1 b.jpg b.cls=2", "1 2", 0),
            ("a.cls=1 a.jpg b.cls=2 b.jpg", "1 2", 0),
            ("a.jpg b.jpg a.cls=1 b.cls=2", "1 2", 0),
            ("a.jpg b.jpg a.cls=1 b.cls=2 a.json=x b.json=y", "x y", 0),
            ("a.jpg a.cls=1 a.json=x", "x", 0),
            ("a.jpg a.cls=1 a.json", "1", 0),
            ("a.jpg a.cls=1 a.json=!", "-", 1),
            ("a.jpg a.cls=! a.json=x", "x", 0),
            ("a.jpg a.txt", "-", 0),
            // The same key occurs twice.
            ("a.jpg a.cls=1 a.jpg a.cls=2", "1 2", 0),
            ("a.cls=1 a.jpg a.cls=2 a.jpg", "1 2", 0),
            ("a.jpg a.cls=1 b.jpg b.cls=3 a.jpg a.cls=2", "1 3 2", 0),
            ("a.jpg a.cls=1 a.cls=2 a.jpg", "1 2", 0),
            ("a.jpg a.cls=1 b.jpg a.png a.cls=2", "1 - 2", 0),
            ("a.jpg a.cls=1 a.jpg", "- -", 2),
            ("a.jpg a.jpg a.cls=1", "- -", 2),
            ("a.jpg a.jpg a.cls=1 a.cls=2", "- -", 2),
            ("a.jpg a.cls=1 b.jpg b.cls=3 a.cls=2", "- 3", 1),
            ("a.jpg a.cls=! a.jpg a.cls=2", "- 2", 1),
            ("a.jpg a.jpg", "- -", 0),
            // Two images of one sample.
            ("a.jpg a.png a.cls=1", "1 1", 0),
        ] {
            let expected: Vec<Option<String>> =
                expected.split(' ').map(|l| Some(l.to_owned()).filter(|l| l != "-")).collect();
            assert_eq!(labels(names), (expected, unread), "{names}");
        }
    }
}
