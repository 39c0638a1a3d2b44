//! Packs the images of a source into tar shards with indexes.
//!
//! Shard `i` contains images `i * n .. (i + 1) * n` of the source, so packing can stop anywhere and
//! resume. A shard is written under a temporary name, read back and compared, renamed, and only
//! then gets its index. A shard with a valid index is therefore complete.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tar::{Builder, Header};

use super::super::{Payload, Source, digest, extension, is_image};
use super::index;
use crate::error::{Error, Result};
use crate::storage::LocalFile;

/// Name of the file that describes from what a folder of shards was packed. Packing resumes only if
/// this is unchanged.
const PLAN: &str = "pack.json";

/// How [`pack`] divides images into shards, and which problems it tolerates.
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// Number of images per shard; the last shard may contain fewer.
    pub shard_images: usize,
    /// Whether to skip images that cannot be read instead of stopping at the first one.
    pub skip_unreadable: bool,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self { shard_images: 10_000, skip_unreadable: false }
    }
}

/// The result of [`pack`].
#[derive(Debug, Default, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PackReport {
    /// Total number of shards.
    pub shards: usize,
    /// Number of shards that an earlier run had already written.
    pub earlier: usize,
    /// Number of images in all shards.
    pub images: usize,
    /// Total size of the newly written shards, in bytes.
    pub bytes: u64,
    /// Names of the images skipped by this run, each with the reason.
    pub skipped: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Plan {
    simdino_pack: u32,
    images: usize,
    shard_images: usize,
    skip_unreadable: bool,
    /// Digest of all names and labels, in order.
    names: String,
}

/// Copies the image files of `source`, byte for byte, into shards `000000.tar`, `000001.tar`, ...
/// in the folder `out`, each with its index. Each image keeps its path as its name, with dots
/// replaced by `_`, and gets its class as `.cls` (a number) and `.json` (its name).
///
/// `progress` is called with the number of images of each completed shard.
///
/// # Errors
/// Returns an error if `out` contains anything but shards of the same images with the same options;
/// if an image cannot be read (unless such images are skipped) or does not come from a file; or if
/// a shard cannot be written or reads back differently. Completed shards are kept.
pub fn pack(
    source: &dyn Source,
    out: &Path,
    options: &PackOptions,
    progress: impl Fn(usize) + Sync,
) -> Result<PackReport> {
    let shard_images = options.shard_images.max(1);
    prepare(out, &plan(source, options, shard_images))?;
    let starts: Vec<usize> = (0..source.len()).step_by(shard_images).collect();
    let done = starts.into_par_iter().enumerate().map(|(number, start)| {
        let range = start..(start + shard_images).min(source.len());
        let images = range.len();
        let shard = Packer { source, options, path: out.join(format!("{number:06}.tar")) };
        let report = shard.run(range)?;
        progress(images);
        Ok(report)
    });
    let done: Vec<Result<PackReport>> = done.collect();
    let mut total = PackReport::default();
    for report in done {
        let report = report?;
        total.shards += report.shards;
        total.earlier += report.earlier;
        total.images += report.images;
        total.bytes += report.bytes;
        total.skipped.extend(report.skipped);
    }
    Ok(total)
}

fn plan(source: &dyn Source, options: &PackOptions, shard_images: usize) -> Plan {
    let names = (0..source.len()).map(|index| (source.name(index), source.label(index), 0));
    Plan {
        simdino_pack: 1,
        images: source.len(),
        shard_images,
        skip_unreadable: options.skip_unreadable,
        names: digest(names),
    }
}

/// Creates `out`, or checks that its contents were written according to the same plan.
fn prepare(out: &Path, plan: &Plan) -> Result<()> {
    let problem = |problem: &str| Error::Path { path: out.into(), problem: problem.into() };
    let io = |action, path: &Path, source| Error::Io { action, path: path.into(), source };
    fs::create_dir_all(out).map_err(|error| io("create", out, error))?;
    let place = out.join(PLAN);
    match fs::read(&place) {
        Ok(text) => match serde_json::from_slice::<Plan>(&text) {
            Ok(found) if found == *plan => Ok(()),
            // The shards that are there have all of their images.
            Ok(found) if (Plan { skip_unreadable: true, ..found.clone() }) == *plan => {
                write_plan(&place, plan)
            }
            _ => Err(problem(
                "contains shards of different images or options (see its pack.json): use an empty \
                 folder or the same options",
            )),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut entries = fs::read_dir(out).map_err(|error| io("list", out, error))?;
            if entries.next().is_some() {
                return Err(problem("is not empty: use an empty or new folder"));
            }
            write_plan(&place, plan)
        }
        Err(error) => Err(io("read", &place, error)),
    }
}

fn write_plan(place: &Path, plan: &Plan) -> Result<()> {
    let failed = |source| Error::Io { action: "write", path: place.into(), source };
    let text = serde_json::to_vec_pretty(plan).map_err(|error| failed(error.into()))?;
    base::write_atomic(place, &[text.as_slice(), b"\n"].concat()).map_err(failed)
}

/// Writes one shard.
struct Packer<'a> {
    source: &'a dyn Source,
    options: &'a PackOptions,
    path: PathBuf,
}

impl Packer<'_> {
    fn run(&self, range: Range<usize>) -> Result<PackReport> {
        let blob = LocalFile::open(&self.path);
        if let Ok(Some(members)) = blob.and_then(|blob| index::load(&blob)) {
            let images = members.len();
            return Ok(PackReport { shards: 1, earlier: 1, images, ..PackReport::default() });
        }
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let partial = self.path.with_file_name(format!(".{name}.partial"));
        let written = self.write(&partial, range).and_then(|done| self.seal(&partial, done));
        if written.is_err() {
            let _ = fs::remove_file(&partial);
        }
        written
    }

    /// Writes the shard, and returns the checksums of its images, in order, and the skipped images.
    fn write(&self, partial: &Path, range: Range<usize>) -> Result<Written> {
        let io = |source| Error::Io { action: "write", path: self.path.clone(), source };
        let file = BufWriter::with_capacity(1 << 20, File::create(partial).map_err(io)?);
        let mut tar = Builder::new(file);
        let (mut written, mut keys) = (Written::default(), HashSet::new());
        for index in range {
            let (bytes, extension) = match self.read(index) {
                Ok(image) => image,
                Err(error) if self.options.skip_unreadable => {
                    written.skipped.push((self.source.name(index), error.reason()));
                    continue;
                }
                Err(error) => {
                    let name = self.source.name(index);
                    return Err(Error::Image { name, source: Box::new(error) });
                }
            };
            let key = key(&self.source.name(index), &mut keys);
            append(&mut tar, &format!("{key}.{extension}"), &bytes).map_err(io)?;
            if let Some(label) = self.source.label(index) {
                let number = label.to_string();
                append(&mut tar, &format!("{key}.cls"), number.as_bytes()).map_err(io)?;
                // The name comes after the number because the reader uses the last label of an
                // image.
                if let Some(name) = self.source.class_names().get(label as usize) {
                    let json = serde_json::json!({ "label": name }).to_string();
                    append(&mut tar, &format!("{key}.json"), json.as_bytes()).map_err(io)?;
                }
            }
            written.checksums.push(crc32fast::hash(&bytes));
        }
        let mut file = tar.into_inner().map_err(io)?;
        file.flush().map_err(io)?;
        file.get_ref().sync_all().map_err(io)?;
        Ok(written)
    }

    /// Returns the bytes of an image and its extension.
    fn read(&self, index: usize) -> Result<(Vec<u8>, String)> {
        let Payload::Encoded(bytes) = self.source.load(index)? else {
            let problem =
                "synthetic images have no files: write them with `simdino data synth`".into();
            return Err(Error::Path { path: self.source.kind().into(), problem });
        };
        let name = self.source.name(index);
        let name = Path::new(&name);
        if is_image(name) {
            return Ok((bytes, usual(&extension(name)).to_owned()));
        }
        let extension = image::guess_format(&bytes).ok().and_then(|f| f.extensions_str().first());
        match extension {
            Some(extension) => Ok((bytes, (*extension).to_owned())),
            None => Err(Error::Decode(decode::Error::UnknownFormat)),
        }
    }

    /// Reads the shard back, compares it with what was written, renames it, and writes its index.
    fn seal(&self, partial: &Path, written: Written) -> Result<PackReport> {
        let io = |source| Error::Io { action: "write", path: self.path.clone(), source };
        let (members, bytes) = index::measure(partial)?;
        let found: Vec<Option<u32>> = members.iter().map(|(_, member)| member.content).collect();
        let expected: Vec<Option<u32>> = written.checksums.iter().copied().map(Some).collect();
        if found != expected {
            let problem = "reads back differently from what was written: check this disk".into();
            return Err(Error::Path { path: self.path.clone(), problem });
        }
        fs::rename(partial, &self.path).map_err(io)?;
        index::store(&self.path, &members, bytes)?;
        let (images, skipped) = (members.len(), written.skipped);
        Ok(PackReport { shards: 1, earlier: 0, images, bytes, skipped })
    }
}

/// Returns the equivalent extension that other readers of shards know.
fn usual(extension: &str) -> &str {
    match extension {
        "jpe" | "jfif" | "jif" | "jfi" | "pjpeg" | "pjp" => "jpg",
        "apng" => "png",
        "dib" => "bmp",
        other => other,
    }
}

#[derive(Default)]
struct Written {
    checksums: Vec<u32>,
    skipped: Vec<(String, String)>,
}

fn append(tar: &mut Builder<impl Write>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, bytes)
}

/// Returns the key of a sample: its path without extension, made valid as the name of a member and
/// unique among the keys in `taken`, to which it is added.
fn key(name: &str, taken: &mut HashSet<String>) -> String {
    let path = Path::new(name);
    let stem = if is_image(path) { path.with_extension("") } else { path.into() };
    let stem = stem.to_string_lossy();
    let parts = stem.split('/').filter(|part| !matches!(*part, "" | "." | ".."));
    let mut parts: Vec<String> = parts.map(str::to_owned).collect();
    match parts.last_mut() {
        Some(last) => *last = last.replace(['.', '\0'], "_"),
        None => parts.push("image".into()),
    }
    let base = parts.join("/");
    let mut key = base.clone();
    for number in 2.. {
        if taken.insert(key.clone()) {
            break;
        }
        key = format!("{base}-{number}");
    }
    key
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::key;

    #[test]
    fn keys_have_no_dots_and_are_all_different() {
        let mut taken = HashSet::new();
        let keys =
            ["cat/a.b.jpg", "cat/a_b.png", "/etc/../x.JPG", ".hid.png", "no extension", ".."]
                .map(|name| key(name, &mut taken));
        assert_eq!(keys, ["cat/a_b", "cat/a_b-2", "etc/x", "_hid", "no extension", "image"]);
    }
}
