//! Compiles the C++ shim against the libtorch that torch-sys found.

use std::env;
use std::path::{Path, PathBuf};

const SOURCES: [&str; 5] = ["common.cpp", "optim.cpp", "autocast.cpp", "device.cpp", "dist.cpp"];

fn main() -> Result<(), String> {
    println!("cargo:rerun-if-changed=cpp");
    for name in ["LIBTORCH", "LIBTORCH_INCLUDE", "LIBTORCH_CXX11_ABI"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let lib_dir = lib_dir()?;
    let cuda = lib_dir.join("libtorch_cuda.so").exists();
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .pic(true)
        .warnings(true)
        .opt_level(1) // only glue: libtorch does the work
        .flag("-std=c++17")
        .flag(format!("-D_GLIBCXX_USE_CXX11_ABI={}", cxx11_abi()))
        .files(SOURCES.iter().map(|name| Path::new("cpp").join(name)));
    // libtorch comes without Gloo's headers; cpp/gloo declares the little that its own need.
    build.define("USE_C10D_GLOO", "1").include("cpp");
    let include = include_dir(&lib_dir)?;
    for dir in [include.clone(), include.join("torch/csrc/api/include")] {
        // As system headers: their warnings are not ours to mend.
        build.flag("-isystem").flag(dir);
    }
    if cuda {
        build.define("SIMDINO_CUDA", None);
    }
    build.compile("simdino_torch_ext");
    link(&lib_dir, cuda);
    Ok(())
}

/// Folder of libtorch's libraries, as torch-sys hands it on.
fn lib_dir() -> Result<PathBuf, String> {
    let of_torch_sys = env::var_os("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from);
    let of_user = || env::var_os("LIBTORCH").map(|root| Path::new(&root).join("lib"));
    of_torch_sys.or_else(of_user).ok_or_else(|| {
        "libtorch not found: run `cargo xtask setup`, or set LIBTORCH to its folder".to_owned()
    })
}

/// Folder of libtorch's headers, which torch-sys does not hand on.
fn include_dir(lib_dir: &Path) -> Result<PathBuf, String> {
    let of_user = env::var_os("LIBTORCH_INCLUDE").map(|root| Path::new(&root).join("include"));
    let beside_libraries = lib_dir.parent().map(|root| root.join("include"));
    let candidates = [of_user, beside_libraries];
    candidates.into_iter().flatten().find(|dir| dir.join("ATen").is_dir()).ok_or_else(|| {
        format!("no libtorch headers beside {}: set LIBTORCH_INCLUDE", lib_dir.display())
    })
}

fn cxx11_abi() -> String {
    env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned())
}

/// After the shim's archive, so that the linker sees which of its symbols are wanted.
fn link(lib_dir: &Path, cuda: bool) {
    println!("cargo:rustc-link-search=native={}", lib_dir.display());
    let cuda_library = cuda.then_some("torch_cuda");
    for library in cuda_library.into_iter().chain(["torch_cpu", "c10"]) {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
}
