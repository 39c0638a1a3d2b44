//! Packs the wheel `simdino-cli`, a Python package that contains the program and starts it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::dist::{archive, elf, licenses};
use crate::fail::{Context, Result, failed};
use crate::files::{copy, make_executable, make_folder, strip, write};
use crate::setup::{self, TORCH};
use crate::workspace::Workspace;
use crate::{dist, process};

const PACKAGE: &str = "crates/cli/python";
const MODULES: [&str; 2] = ["__init__.py", "__main__.py"];
const PACK: &str = "tools/xtask/src/wheels/pack.py";
/// The rpath of a program that cargo has built; see `.cargo/config.toml`.
const BUILT: &[u8] = b"$ORIGIN/../../.libtorch/lib:$ORIGIN/../../../.libtorch/lib";
/// The rpath in the wheel: `site-packages/torch/lib`, seen from `site-packages/simdino_cli/_bin`.
const INSTALLED: &[u8] = b"$ORIGIN/../../torch/lib";

/// Packs a program that is already built.
///
/// # Errors
/// Returns an error if a tool is missing, the program was built elsewhere, or a file cannot be
/// written.
pub fn make(workspace: &Workspace, program: &Path, out: &Path) -> Result<PathBuf> {
    make_folder(out)?;
    let staging = out.join(format!(".packing-{}", std::process::id()));
    let made = make_in(workspace, program, &staging, out);
    let _ = fs::remove_dir_all(&staging); // an earlier error matters more
    made
}

fn make_in(workspace: &Workspace, program: &Path, staging: &Path, out: &Path) -> Result<PathBuf> {
    let package = staging.join("simdino_cli");
    make_folder(&package.join("_bin"))?;
    let binary = package.join("_bin/simdino");
    strip(workspace, program, &binary)?;
    let needs = elf::needs(workspace, &binary)?;
    let libraries = dist::archive::of_torch(workspace, &needs);
    if libraries.is_empty() {
        return failed(format!("{} is not linked with any library of torch", program.display()));
    }
    find_torch_beside(&binary)?;
    make_executable(&binary)?;
    for module in MODULES {
        copy(&workspace.path(PACKAGE).join("simdino_cli").join(module), &package.join(module))?;
    }
    let minor = TORCH.rsplit_once('.').map_or(TORCH, |(minor, _)| minor);
    let text = format!(
        "\"\"\"What the program was linked with.\"\"\"\n\nTORCH = {minor:?}\nLIBRARIES = {libraries:?}\n"
    );
    write(&package.join("_needs.py"), &text)?;
    let target = archive::target(workspace)?;
    let tag = tag(&target, &needs)?;
    let name = format!("simdino_cli-{}", archive::VERSION);
    write_info(workspace, &staging.join(format!("{name}.dist-info")), &tag, minor, &target)?;
    let wheel = out.join(format!("{name}-{tag}.whl"));
    let python = setup::find_python(workspace)?;
    let mut pack = workspace.command(python);
    process::run(pack.arg(PACK).arg(staging).arg(&wheel))?;
    Ok(wheel)
}

/// Replaces the rpath of the program in place with that of the wheel, which is shorter.
fn find_torch_beside(binary: &Path) -> Result<()> {
    let mut bytes = fs::read(binary).context(|| format!("cannot read {}", binary.display()))?;
    let places: Vec<usize> = memchr::memmem::find_iter(&bytes, BUILT).collect();
    let [place] = places[..] else {
        return failed(format!(
            "the program has {} search paths for libtorch that cargo sets, instead of one: build \
             it with the rustflags of .cargo/config.toml",
            places.len()
        ));
    };
    let field = &mut bytes[place..place + BUILT.len()];
    field.fill(0);
    field[..INSTALLED.len()].copy_from_slice(INSTALLED);
    fs::write(binary, bytes).context(|| format!("cannot write {}", binary.display()))
}

/// Returns the tag of the wheel, such as `py3-none-manylinux_2_34_x86_64`, for any Python and this
/// or a later glibc.
fn tag(target: &str, needs: &elf::Needs) -> Result<String> {
    let glibc = needs.symbols.iter().find_map(|symbol| symbol.strip_prefix("GLIBC_2."));
    let machine = target.split('-').next().unwrap_or_default();
    match glibc.and_then(|minor| minor.split('.').next()) {
        Some(minor) => Ok(format!("py3-none-manylinux_2_{minor}_{machine}")),
        None => failed("cannot tell which glibc the program needs"),
    }
}

/// Writes the metadata that pip reads.
fn write_info(
    workspace: &Workspace,
    info: &Path,
    tag: &str,
    torch: &str,
    target: &str,
) -> Result<()> {
    make_folder(&info.join("licenses"))?;
    let readme = workspace.path(PACKAGE).join("README.md");
    let readme =
        fs::read_to_string(&readme).context(|| format!("cannot read {}", readme.display()))?;
    let version = archive::VERSION;
    let metadata = format!(
        "Metadata-Version: 2.4\nName: simdino-cli\nVersion: {version}\n\
         Summary: Pre-trains vision transformers without labels: SimDINO, SimDINOv2, DINO, DINOv2\n\
         License-Expression: MIT OR Apache-2.0\nLicense-File: LICENSE-MIT\n\
         License-File: LICENSE-APACHE\nLicense-File: THIRD-PARTY.txt\n\
         Requires-Python: >=3.10\nRequires-Dist: torch=={torch}.*\n\
         Description-Content-Type: text/markdown\n\n{readme}"
    );
    write(&info.join("METADATA"), &metadata)?;
    let wheel =
        format!("Wheel-Version: 1.0\nGenerator: xtask\nRoot-Is-Purelib: false\nTag: {tag}\n");
    write(&info.join("WHEEL"), &wheel)?;
    write(&info.join("entry_points.txt"), "[console_scripts]\nsimdino = simdino_cli:main\n")?;
    for license in ["LICENSE-MIT", "LICENSE-APACHE"] {
        copy(&workspace.path(license), &info.join("licenses").join(license))?;
    }
    let third_party = licenses::third_party(workspace, target, "trainer")?;
    write(&info.join("licenses/THIRD-PARTY.txt"), &third_party)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_says_which_glibc_is_needed() {
        let symbols = ["GCC_3.0", "GLIBC_2.35", "GLIBCXX_3.4.30", "GLIBC_ABI_DT_RELR"];
        let mut needs =
            elf::Needs { libraries: Vec::new(), symbols: symbols.map(str::to_owned).into() };
        let tag_of = |needs: &elf::Needs| tag("aarch64-unknown-linux-gnu", needs);
        assert_eq!(tag_of(&needs).unwrap(), "py3-none-manylinux_2_35_aarch64");
        needs.symbols.remove(1);
        assert!(tag_of(&needs).is_err());
    }

    #[test]
    fn the_place_of_torch_is_replaced_once() {
        let path = std::env::temp_dir().join(format!("xtask-wheel-{}", std::process::id()));
        let built = [b"\x7fELF".as_slice(), BUILT, b"\0next\0"].concat();
        fs::write(&path, &built).unwrap();
        find_torch_beside(&path).unwrap();
        let patched = fs::read(&path).unwrap();
        assert_eq!(patched.len(), built.len());
        let text = patched.split(|&byte| byte == 0).next().unwrap();
        assert_eq!(text, [b"\x7fELF".as_slice(), INSTALLED].concat());
        assert!(patched.ends_with(b"\0next\0"));
        assert!(find_torch_beside(&path).is_err(), "there is no place of cargo's left");
        fs::remove_file(&path).unwrap();
    }
}
