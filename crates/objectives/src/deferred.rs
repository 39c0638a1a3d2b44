//! Values that must be finite but are checked later.
//!
//! Reading a value waits until the device has computed it, and meanwhile the device receives no
//! more work. A training step therefore computes everything optimistically and checks once, at the
//! end, before anything has changed.

use std::cell::RefCell;

use tch::Tensor;

/// Values that an objective would otherwise check before it continues.
#[derive(Debug, Default)]
pub struct Deferred(RefCell<Vec<Tensor>>);

impl Deferred {
    /// Records a tensor of any shape whose values must all be finite.
    pub fn note(&self, numbers: &Tensor) {
        self.0.borrow_mut().push(numbers.detach().reshape([-1]));
    }

    /// Returns all recorded values, one-dimensional and still on the device.
    pub fn into_numbers(self) -> Vec<Tensor> {
        self.0.into_inner()
    }
}
