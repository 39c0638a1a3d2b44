//! Tests autocast, generators, memory, and names on the CPU, and on CUDA if there is a device.

#[path = "support/processes.rs"]
mod processes;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use processes::command_of;
use tch::{Cuda, Device, Kind, Tensor};
use torch_ext::{
    autocast, device_memory, manual_seed, profile, reset_peak_memory, rng_state,
    set_current_device, set_rng_state,
};

const CPU: Device = Device::Cpu;

/// Serializes tests, because all threads share the generator.
static GENERATOR: Mutex<()> = Mutex::new(());

fn product_kind() -> Kind {
    let x = Tensor::ones([4, 4], (Kind::Float, CPU));
    x.matmul(&x).kind()
}

#[test]
fn autocast_computes_in_the_given_type_and_is_off_afterwards() {
    assert_eq!(product_kind(), Kind::Float);
    for kind in [Kind::BFloat16, Kind::Half] {
        assert_eq!(autocast(CPU, Some(kind), product_kind).unwrap(), kind);
        assert_eq!(product_kind(), Kind::Float);
    }
}

#[test]
fn autocast_nests_and_none_switches_it_off() {
    let kinds = autocast(CPU, Some(Kind::BFloat16), || {
        let off = autocast(CPU, None, product_kind).unwrap();
        let half = autocast(CPU, Some(Kind::Half), product_kind).unwrap();
        (off, half, product_kind())
    });
    assert_eq!(kinds.unwrap(), (Kind::Float, Kind::Half, Kind::BFloat16));
    assert_eq!(product_kind(), Kind::Float);
}

#[test]
fn autocast_is_off_again_after_a_panic() {
    let region = || autocast(CPU, Some(Kind::BFloat16), || panic!("on purpose"));
    assert!(catch_unwind(AssertUnwindSafe(region)).is_err());
    assert_eq!(product_kind(), Kind::Float);
}

#[test]
fn autocast_forgets_casts_of_parameters_when_the_outermost_region_ends() {
    let weight = Tensor::ones([4, 4], (Kind::Float, CPU)).set_requires_grad(true);
    let x = Tensor::ones([4, 4], (Kind::Float, CPU));
    let sum = || {
        let product = autocast(CPU, Some(Kind::BFloat16), || x.matmul(&weight)).unwrap();
        f64::try_from(product.sum(Kind::Float)).unwrap()
    };
    assert_eq!(sum(), 64.0);
    let _ = tch::no_grad(|| weight.shallow_clone().fill_(2.0));
    assert_eq!(sum(), 128.0);
}

#[test]
fn autocast_refuses_types_and_devices_it_has_no_kernels_for() {
    let error = autocast(CPU, Some(Kind::Float), || ()).unwrap_err().to_string();
    assert!(error.contains("half and bfloat16"), "{error}");
    assert!(autocast(Device::Mps, None, || ()).is_err());
}

#[test]
fn a_restored_generator_repeats_itself() {
    let _one_at_a_time = GENERATOR.lock().unwrap();
    let draw = || Vec::<f32>::try_from(Tensor::randn([8], (Kind::Float, CPU))).unwrap();
    manual_seed(7);
    let first = draw();
    let state = rng_state(CPU).unwrap();
    let second = draw();
    assert_ne!(first, second);
    set_rng_state(CPU, &state).unwrap();
    assert_eq!(draw(), second);
    manual_seed(7);
    assert_eq!(draw(), first);
    assert!(set_rng_state(CPU, &Tensor::from_slice(&[1.0f32])).is_err());
    assert_ne!(draw(), first, "a refused state leaves the generator where it was");
}

#[test]
fn process_memory_is_plausible() {
    let memory = device_memory(CPU).unwrap();
    assert!(memory.allocated_bytes > 1 << 20);
    assert!(memory.peak_allocated_bytes > 1 << 20);
    assert!(memory.total_bytes > memory.allocated_bytes);
    assert!(memory.free_bytes > 0 && memory.free_bytes <= memory.total_bytes);
    let ballast = vec![1u8; 256 << 20];
    let more = device_memory(CPU).unwrap();
    assert_eq!(ballast[ballast.len() / 2], 1);
    drop(ballast);
    assert!(more.allocated_bytes > memory.allocated_bytes + (200 << 20));
    assert!(more.peak_allocated_bytes >= more.allocated_bytes);
    if std::fs::write("/proc/self/clear_refs", "5").is_err() {
        eprintln!("skipped: this system cannot reset the peak");
        return;
    }
    reset_peak_memory(CPU);
    assert!(device_memory(CPU).unwrap().peak_allocated_bytes < more.peak_allocated_bytes);
}

#[test]
fn names_and_versions_are_told() {
    assert!(torch_ext::libtorch_version().starts_with("2."));
    assert!(!torch_ext::device_name(CPU).is_empty());
    if let Some(version) = torch_ext::cuda_version() {
        // Linkers drop a library without references; libtorch would then find no device.
        let libraries = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(libraries.contains("libtorch_cuda.so"), "libtorch_cuda is not linked");
        let major: u32 = version.split('.').next().unwrap().parse().unwrap();
        assert!(major >= 11, "{version}");
    }
}

#[test]
fn a_missing_device_is_an_error_and_a_present_one_answers() {
    let missing = Device::Cuda(1000);
    assert!(device_memory(missing).is_err() && rng_state(missing).is_err());
    assert!(set_current_device(missing).is_err());
    set_current_device(CPU).unwrap();
    reset_peak_memory(missing);
    assert_eq!(torch_ext::device_name(missing), "cuda(1000)");
    if !Cuda::is_available() {
        eprintln!("skipped: no CUDA device");
        return;
    }
    let device = Device::Cuda(0);
    set_current_device(device).unwrap();
    let held = Tensor::zeros([1 << 20], (Kind::Float, device));
    let memory = device_memory(device).unwrap();
    assert!(memory.allocated_bytes >= 4 << 20 && memory.reserved_bytes >= memory.allocated_bytes);
    assert!(memory.total_bytes > memory.free_bytes);
    drop(held);
    reset_peak_memory(device);
    assert!(device_memory(device).unwrap().peak_allocated_bytes < memory.peak_allocated_bytes);
    assert!(rng_state(device).unwrap().numel() > 0);
    let x = Tensor::ones([4, 4], (Kind::Float, device));
    assert_eq!(
        autocast(device, Some(Kind::BFloat16), || x.matmul(&x).kind()).unwrap(),
        Kind::BFloat16
    );
}

const BACKTRACES: &str = "TORCH_SHOW_CPP_STACKTRACES";

/// Starts a process that prints an error of the shim, with an environment that requests a backtrace
/// or not.
#[test]
fn a_backtrace_is_kept_where_it_is_asked_for() {
    let words = |value: &str| {
        let output = command_of("says_an_error", 0, 1, 0).env(BACKTRACES, value).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("state is undefined"), "{text}");
        text
    };
    for unset in ["", "0"] {
        assert!(!words(unset).contains("frame #"), "{}", words(unset));
    }
    let traced = words("1");
    assert!(traced.contains("frame #1") && traced.contains("device.cpp"), "{traced}");
}

#[test]
#[ignore = "started by a_backtrace_is_kept_where_it_is_asked_for"]
fn says_an_error() {
    println!("{}", set_rng_state(CPU, &Tensor::new()).unwrap_err());
}

#[test]
fn a_trace_names_the_operators_that_ran_forward_and_backward() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.json");
    let product = || -> torch_ext::Result<()> {
        let x = Tensor::ones([4, 4], (Kind::Float, CPU)).set_requires_grad(true);
        x.matmul(&x).sum(None).backward();
        Ok(())
    };
    profile(&path, CPU, product).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    for name in ["aten::matmul", "MmBackward0"] {
        assert!(text.contains(name), "{name} is not in the trace");
    }
    // The profiler can be started again after a failure of the body or a missing folder.
    let failed = profile(&path, CPU, || Err::<(), _>(torch_ext::Error::AutocastKind(Kind::Int8)));
    assert!(failed.unwrap_err().to_string().contains("autocast"));
    let nowhere = profile(&dir.path().join("none/trace.json"), CPU, product);
    assert!(nowhere.unwrap_err().to_string().contains("cannot write"));
    profile(&path, CPU, product).unwrap();
}
