//! Computations in single precision or better, regardless of autocast.

use tch::{Device, Kind, Tensor};

/// Returns the type to compute in: double for a double tensor, single for every other type.
pub(crate) fn working_kind(x: &Tensor) -> Kind {
    if x.kind() == Kind::Double { Kind::Double } else { Kind::Float }
}

/// Runs `f` with autocast off, and then restores it.
pub(crate) fn without_autocast<T>(device: Device, f: impl Fn() -> T) -> T {
    // This fails only for devices without autocast, where there is nothing to disable.
    torch_ext::autocast(device, None, &f).unwrap_or_else(|_| f())
}
