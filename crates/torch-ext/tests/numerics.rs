//! Tests process-wide settings by how libtorch reports and applies them on a CPU.

#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

#[path = "support/processes.rs"]
mod processes;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Mutex;

use processes::command_of;
use tch::{Device, Kind, Tensor};
use torch_ext::{is_deterministic, set_deterministic, tf32_allowed, with_tf32};

const WORKSPACE: &str = "CUBLAS_WORKSPACE_CONFIG";

/// Serializes tests, because all threads share the settings.
static SETTINGS: Mutex<()> = Mutex::new(());

/// An operation for which libtorch has no deterministic form on any device.
fn put() -> Result<Tensor, tch::TchError> {
    let (places, values) = (Tensor::from_slice(&[1i64]), Tensor::from_slice(&[2.0f32]));
    Tensor::zeros([3], (Kind::Float, Device::Cpu)).f_put_(&places, &values, false)
}

fn said(mut command: Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    text
}

#[test]
fn cublas_gets_the_memory_with_which_products_repeat_or_the_error_says_what_to_set() {
    let process = || {
        let mut command = command_of("becomes_deterministic", 0, 1, 0);
        command.env_remove(WORKSPACE);
        command
    };
    assert!(said(process()).contains("deterministic with :4096:8"));
    let of = |value: &str| {
        let mut command = process();
        command.env(WORKSPACE, value);
        said(command)
    };
    for value in [":4096:8", ":16:8"] {
        assert!(of(value).contains(&format!("deterministic with {value}")));
    }
    for value in [":0:0", ":4096:2:16:8", ""] {
        let text = of(value);
        assert!(text.contains(&format!("refused: {WORKSPACE} is {value:?}")), "{text}");
        assert!(text.contains("unset it, or set it to :4096:8 or :16:8"), "{text}");
    }
}

#[test]
#[ignore = "started by cublas_gets_the_memory_with_which_products_repeat_or_the_error_says_what_to_set"]
fn becomes_deterministic() {
    assert!(!is_deterministic() && put().is_ok());
    match set_deterministic(true) {
        Ok(()) => {
            assert!(is_deterministic());
            let error = put().unwrap_err().to_string();
            assert!(error.contains("deterministic"), "{error}");
            println!("deterministic with {}", std::env::var(WORKSPACE).unwrap());
        }
        Err(error) => {
            assert!(!is_deterministic() && put().is_ok());
            println!("refused: {error}");
        }
    }
    set_deterministic(false).unwrap();
    assert!(!is_deterministic() && put().is_ok());
}

#[test]
fn memory_that_nothing_has_written_is_not_filled() {
    let _alone = SETTINGS.lock().unwrap();
    let made = || {
        let memory = Tensor::ones([1 << 20], (Kind::Float, Device::Cpu));
        drop(memory);
        // Probably reuses the memory that was just freed; if libtorch filled it, all would be NaN.
        Tensor::empty([1 << 20], (Kind::Float, Device::Cpu)).isnan().all().int64_value(&[]) != 0
    };
    set_deterministic(true).unwrap();
    let filled = made();
    set_deterministic(false).unwrap();
    assert!(!filled);
}

#[test]
fn tf32_is_allowed_within_regions_and_as_before_behind_them() {
    let _alone = SETTINGS.lock().unwrap();
    let allowed = || tf32_allowed().unwrap();
    assert!(!allowed());
    let inner = with_tf32(true, || {
        assert!(allowed());
        let off = with_tf32(false, allowed).unwrap();
        (off, with_tf32(true, allowed).unwrap(), allowed())
    });
    assert_eq!(inner.unwrap(), (false, true, true));
    assert!(!allowed());
    assert!(
        std::thread::scope(|threads| with_tf32(true, || threads.spawn(allowed).join()))
            .unwrap()
            .unwrap()
    );
    let region = || with_tf32(true, || panic!("on purpose"));
    assert!(catch_unwind(AssertUnwindSafe(region)).is_err());
    assert!(!allowed());
}

#[test]
fn tf32_changes_nothing_on_a_cpu() {
    let _alone = SETTINGS.lock().unwrap();
    tch::manual_seed(7);
    let [x, y] = [0, 1].map(|_| Tensor::randn([130, 257], (Kind::Float, Device::Cpu)));
    let product = || x.matmul(&y.tr());
    assert_eq!(with_tf32(true, product).unwrap(), product());
}
