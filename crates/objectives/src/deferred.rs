//! Numbers that must be finite, looked at later.
//!
//! To look at a number is to wait until the device has computed it, and meanwhile it is given nothing
//! more to do. A training step therefore computes everything as if all were well, and looks once, at
//! the end, before anything has changed.

use std::cell::RefCell;

use tch::Tensor;

/// What an objective would otherwise have looked at before it went on.
#[derive(Debug, Default)]
pub struct Deferred(RefCell<Vec<Tensor>>);

impl Deferred {
    /// Notes numbers of any shape, all of which must be finite.
    pub fn note(&self, numbers: &Tensor) {
        self.0.borrow_mut().push(numbers.detach().reshape([-1]));
    }

    /// All that was noted, one-dimensional and still on the device.
    pub fn into_numbers(self) -> Vec<Tensor> {
        self.0.into_inner()
    }
}
