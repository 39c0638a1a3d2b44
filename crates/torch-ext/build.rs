//! Compiles the C++ shim against the libtorch that torch-sys found.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

const SOURCES: [&str; 14] = [
    "common.cpp",
    "optim.cpp",
    "autocast.cpp",
    "checkpoint.cpp",
    "device.cpp",
    "numerics.cpp",
    "parallel.cpp",
    "profiler.cpp",
    "transfer.cpp",
    "dist.cpp",
    "reducer.cpp",
    "fused/fused.cpp",
    "fused/attention_function.cpp",
    "fused/linear_function.cpp",
];

/// Sources of all kernels except attention, in the order in which they are concatenated.
const KERNELS: [&str; 6] =
    ["common.cu", "norm_sizes.h", "rows.cu", "norm.cu", "norm_backward.cu", "columns.cu"];

/// Sources of the attention kernels, in the order in which they are concatenated.
const ATTENTION: [&str; 5] = [
    "common.cu",
    "attention_sizes.h",
    "attention_tiles.cu",
    "attention.cu",
    "attention_backward.cu",
];

fn main() -> Result<(), String> {
    println!("cargo:rerun-if-changed=cpp");
    for name in ["LIBTORCH", "LIBTORCH_INCLUDE", "LIBTORCH_CXX11_ABI", "CUDA_HOME"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let lib_dir = lib_dir()?;
    let include = include_dir(&lib_dir)?;
    let cuda = lib_dir.join("libtorch_cuda.so").exists();
    compiler(&include, cuda)
        .files(SOURCES.iter().map(|name| Path::new("cpp").join(name)))
        .compile("simdino_torch_ext");
    // Unlike the rest, it computes. GCC sees uninitialized variables in its own intrinsics.
    compiler(&include, cuda)
        .opt_level(2)
        .flag("-Wno-uninitialized")
        .flag("-Wno-maybe-uninitialized")
        .file("cpp/cpu_attention.cpp")
        .compile("simdino_torch_ext_cpu");
    let headers = if cuda { cuda_headers(&lib_dir) } else { None };
    compile_kernels(&include, headers.as_deref())?;
    compile_nccl(&include, cuda, headers.as_deref());
    link(&lib_dir, cuda);
    Ok(())
}

fn compiler(include: &Path, cuda: bool) -> cc::Build {
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .pic(true)
        .warnings(true)
        .opt_level(1) // only glue: libtorch does the work
        .debug(false) // of libtorch's headers: 60 MB in each program and test that is linked
        .flag("-std=c++17")
        .flag(format!("-D_GLIBCXX_USE_CXX11_ABI={}", cxx11_abi()));
    // libtorch comes without Gloo's headers; cpp/gloo declares the little that its own need.
    build.define("USE_C10D_GLOO", "1").include("cpp");
    for dir in [include.to_owned(), include.join("torch/csrc/api/include")] {
        // As system headers, because we cannot fix their warnings.
        build.flag("-isystem").flag(dir);
    }
    if cuda {
        build.define("SIMDINO_CUDA", None);
    }
    build
}

/// Compiles CUDA graphs and the launcher of the fused kernels into a separate archive, because they
/// need CUDA's headers and the source of the kernels, which is compiled at run time. Without the
/// headers, the archive holds stubs that report that.
fn compile_kernels(include: &Path, headers: Option<&[PathBuf]>) -> Result<(), String> {
    let mut build = compiler(include, headers.is_some());
    let fused = ["kernels", "attention", "linear"].map(|name| format!("cpp/fused/{name}.cpp"));
    build.files(fused).file("cpp/graph.cpp");
    if let Some(headers) = headers {
        let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
        embed(&out, "kernels", &KERNELS)?;
        embed(&out, "attention", &ATTENTION)?;
        build.define("SIMDINO_KERNELS", None).include(out);
        for dir in headers {
            build.flag("-isystem").flag(dir);
        }
    }
    build.compile("simdino_torch_ext_kernels");
    Ok(())
}

/// Writes `NAME_source.h`, which defines `NAME_SOURCE` as the concatenated contents of `files`.
fn embed(out: &Path, name: &str, files: &[&str]) -> Result<(), String> {
    let read = |file: &&str| fs::read_to_string(Path::new("cpp/fused").join(file));
    let text: String =
        files.iter().map(read).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    // The C++ standard only guarantees string literals of up to 65,536 characters.
    let source =
        format!("static const char {}_SOURCE[] = R\"cuda({text})cuda\";\n", name.to_uppercase());
    fs::write(out.join(format!("{name}_source.h")), source).map_err(|e| e.to_string())
}

/// Compiles the NCCL part into a separate archive. If its headers are missing, or are not the ones
/// that libtorch was built with, the build continues without NCCL, and `inspect env` reports that.
fn compile_nccl(include: &Path, cuda: bool, headers: Option<&[PathBuf]>) {
    const ARCHIVE: &str = "simdino_torch_ext_nccl";
    if let Some(headers) = headers {
        let mut build = compiler(include, cuda);
        build.file("cpp/nccl.cpp").define("USE_C10D_NCCL", "1");
        for dir in headers {
            build.flag("-isystem").flag(dir);
        }
        match build.try_compile(ARCHIVE) {
            Ok(()) => return,
            Err(error) => println!("cargo:warning=building without NCCL: {error}"),
        }
    }
    compiler(include, cuda).file("cpp/nccl.cpp").compile(ARCHIVE);
}

/// Returns the folders of CUDA's and NCCL's headers: those of pip packages installed beside torch,
/// then those of a CUDA toolkit. `None` if a header is missing.
fn cuda_headers(lib_dir: &Path) -> Option<Vec<PathBuf>> {
    let torch = lib_dir.canonicalize().ok()?.parent()?.to_owned();
    let packages = torch.parent().map(|site| site.join("nvidia"));
    let of_packages = packages.into_iter().flat_map(|nvidia| {
        ["cu13/include", "cu13/include/cccl", "nccl/include"].map(|dir| nvidia.join(dir))
    });
    let toolkit = env::var_os("CUDA_HOME").map_or("/usr/local/cuda".into(), PathBuf::from);
    let of_toolkit = ["include", "include/cccl"].map(|dir| toolkit.join(dir));
    let system = PathBuf::from("/usr/include");
    let dirs: Vec<PathBuf> = of_packages.chain(of_toolkit).filter(|dir| dir.is_dir()).collect();
    // One header of each package that ProcessGroupNCCL.hpp includes, directly or indirectly.
    let needed = ["cuda_runtime_api.h", "crt/host_defines.h", "cublas_v2.h", "nccl.h"];
    let there = |name: &str| dirs.iter().chain([&system]).any(|dir| dir.join(name).exists());
    needed.iter().all(|name| there(name)).then_some(dirs)
}

/// Returns the folder of libtorch's libraries, which torch-sys passes on.
fn lib_dir() -> Result<PathBuf, String> {
    let of_torch_sys = env::var_os("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from);
    let of_user = || env::var_os("LIBTORCH").map(|root| Path::new(&root).join("lib"));
    of_torch_sys.or_else(of_user).ok_or_else(|| {
        "libtorch not found: run `cargo xtask setup`, or set LIBTORCH to its folder".to_owned()
    })
}

/// Returns the folder of libtorch's headers, which torch-sys does not pass on.
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

/// Links libtorch. Call it after the shim is compiled: a linker resolves the symbols of an archive
/// from the libraries that follow it.
fn link(lib_dir: &Path, cuda: bool) {
    println!("cargo:rustc-link-search=native={}", lib_dir.display());
    let cuda_libraries = cuda.then_some(["torch_cuda", "c10_cuda"]);
    for library in cuda_libraries.into_iter().flatten().chain(["torch_cpu", "c10"]) {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
}
