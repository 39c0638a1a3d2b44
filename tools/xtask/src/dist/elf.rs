//! The requirements of a program on the machine that it runs on, according to `readelf`.

use std::collections::BTreeMap;
use std::path::Path;

use crate::fail::{Result, failed};
use crate::process;
use crate::workspace::Workspace;

/// Required libraries, and versions of their symbols.
#[derive(Debug, PartialEq)]
pub struct Needs {
    /// Shared libraries, by name.
    pub libraries: Vec<String>,
    /// The latest version of each family of symbols, such as `GLIBC_2.34`, sorted.
    pub symbols: Vec<String>,
}

/// Returns the requirements of `program`.
///
/// # Errors
/// Returns an error if there is no `readelf`, or if it finds no library or symbol in the file.
pub fn needs(workspace: &Workspace, program: &Path) -> Result<Needs> {
    let Some(text) =
        process::probe(workspace.command("readelf").args(["-dVW"]).arg(program).env("LC_ALL", "C"))
    else {
        return failed(format!(
            "cannot read {} with readelf: install binutils, which includes it",
            program.display()
        ));
    };
    let needs = read(&text);
    if needs.libraries.is_empty() || needs.symbols.is_empty() {
        return failed(format!("readelf finds no shared library in {}", program.display()));
    }
    Ok(needs)
}

fn read(text: &str) -> Needs {
    let mut libraries = Vec::new();
    let mut latest: BTreeMap<&str, (Vec<u32>, &str)> = BTreeMap::new();
    for line in text.lines() {
        if line.contains("(NEEDED)") {
            let name = line.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
            libraries.extend(name.map(|(name, _)| name.to_owned()));
        }
        // Required versions look like "0x0010:   Name: GLIBC_2.34  Flags: none  Version: 12".
        let Some((_, rest)) = line.split_once("Name: ") else { continue };
        let Some(symbol) = rest.split_whitespace().next().filter(|_| rest.contains("Flags:"))
        else {
            continue;
        };
        let (family, version) = family(symbol);
        let newest = latest.entry(family).or_default();
        if version >= newest.0 {
            *newest = (version, symbol);
        }
    }
    let symbols = latest.into_values().map(|(_, symbol)| symbol.to_owned()).collect();
    Needs { libraries, symbols }
}

/// Splits a symbol version into its family and number: `GLIBC_2.34` is version 2.34 of `GLIBC`. A
/// name without a number is its own family.
fn family(symbol: &str) -> (&str, Vec<u32>) {
    let split = symbol.rsplit_once('_').and_then(|(family, version)| {
        let numbers: std::result::Result<Vec<u32>, _> =
            version.split('.').map(str::parse).collect();
        Some((family, numbers.ok()?))
    });
    split.unwrap_or((symbol, Vec::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_version_of_each_family_is_needed() {
        let text = "\
 0x0000000000000001 (NEEDED)             Shared library: [libstdc++.so.6]
 0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]
 0x000000000000001d (RUNPATH)            Library runpath: [$ORIGIN/lib]
Version symbols section '.gnu.version' contains 3 entries:
  000:   0 (*local*)       2 (GLIBC_2.99)    3 (GLIBC_2.2.5)
Version needs section '.gnu.version_r' contains 2 entries:
  000000: Version: 1  File: libc.so.6  Cnt: 4
  0x0010:   Name: GLIBC_2.4  Flags: none  Version: 9
  0x0020:   Name: GLIBC_2.34  Flags: none  Version: 12
  0x0030:   Name: GLIBC_2.9  Flags: WEAK  Version: 7
  0x0030:   Name: GLIBC_ABI_DT_RELR  Flags: none  Version: 8
  0x0040: Version: 1  File: libstdc++.so.6  Cnt: 1
  0x0050:   Name: GLIBCXX_3.4.9  Flags: none  Version: 3
  0x0060:   Name: GLIBCXX_3.4.30  Flags: none  Version: 4
  0x0070:   Name: GLIBCXX_3.4  Flags: none  Version: 5
";
        let needs = read(text);
        assert_eq!(needs.libraries, ["libstdc++.so.6", "libc.so.6"]);
        assert_eq!(needs.symbols, ["GLIBC_2.34", "GLIBCXX_3.4.30", "GLIBC_ABI_DT_RELR"]);
    }
}
