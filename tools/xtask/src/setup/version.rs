//! Version numbers of libtorch, Python, and installed packages.

use std::fs;
use std::path::Path;

/// Returns the version of the libtorch in `dir` without the build tag ("2.11.0"), or `None` if its
/// files do not state it.
pub fn of_libtorch(dir: &Path) -> Option<String> {
    let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
    // An archive of libtorch has build-version, a wheel has version.py, and both have the header.
    read("build-version")
        .map(|text| without_tag(text.trim()).to_owned())
        .or_else(|| read("version.py").and_then(|text| from_version_py(&text)))
        .or_else(|| read("include/torch/headeronly/version.h").and_then(|t| from_header(&t)))
        .or_else(|| {
            read("include/torch/csrc/api/include/torch/version.h").and_then(|t| from_header(&t))
        })
}

/// Removes the build tag: "2.11.0+cu130" -> "2.11.0".
pub fn without_tag(version: &str) -> &str {
    version.split('+').next().unwrap_or(version)
}

fn from_version_py(text: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("__version__"))?;
    let value = line.split_once('=')?.1.trim().trim_matches(['\'', '"']);
    Some(without_tag(value).to_owned())
}

fn from_header(text: &str) -> Option<String> {
    let part = |name: &str| {
        text.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("#define") && words.next() == Some(name))
                .then(|| words.next())
                .flatten()
                .filter(|value| value.chars().all(|c| c.is_ascii_digit()))
        })
    };
    let (major, minor) = (part("TORCH_VERSION_MAJOR")?, part("TORCH_VERSION_MINOR")?);
    Some(format!("{major}.{minor}.{}", part("TORCH_VERSION_PATCH")?))
}

/// Parses a version of Python: "3.11" -> (3, 11).
pub fn parse_python(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.trim().split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Returns whether `version` matches a pin: "13.0.*" matches every 13.0, "2.11.0" only itself.
pub fn matches_pin(version: &str, pin: &str) -> bool {
    let version = without_tag(version);
    match pin.strip_suffix('*') {
        Some(prefix) => version.starts_with(prefix),
        None => version == pin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_py_of_a_wheel() {
        let text = "from typing import Optional\n\n__all__ = ['__version__', 'cuda']\n\
                    __version__ = '2.11.0+cu130'\ncuda: Optional[str] = '13.0'\n";
        assert_eq!(from_version_py(text).as_deref(), Some("2.11.0"));
        assert_eq!(from_version_py("cuda = '13.0'"), None);
    }

    #[test]
    fn header_of_an_archive() {
        let text = "/// Major\n#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 11\n\
                    #define TORCH_VERSION_PATCH 0\n#define TORCH_VERSION \"2.11.0\"\n";
        assert_eq!(from_header(text).as_deref(), Some("2.11.0"));
        assert_eq!(from_header("#define TORCH_VERSION_MAJOR @MAJOR@"), None);
    }

    #[test]
    fn python_versions() {
        assert_eq!(parse_python("3.11\n"), Some((3, 11)));
        assert_eq!(parse_python("Python"), None);
    }

    #[test]
    fn pins() {
        assert!(matches_pin("13.0.88", "13.0.*"));
        assert!(!matches_pin("13.1.0", "13.0.*"));
        assert!(matches_pin("2.11.0+cu130", "2.11.0"));
        assert!(!matches_pin("2.11.0.post1", "2.11.0"));
    }
}
