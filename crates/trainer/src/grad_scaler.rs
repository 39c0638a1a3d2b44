//! Loss scaling for training in half precision.
//!
//! Gradients below the smallest half-precision number would vanish, so the loss is multiplied by a
//! factor before the backward pass, and the gradients are divided by it afterward. If they
//! overflow, the step is skipped and the factor is halved; after a long time without overflow, it
//! is doubled.

use tch::Tensor;

use crate::error::Result;

/// Name of this state in a checkpoint.
const STATE: &str = "loss_scale";
const INITIAL: f64 = 65_536.0;
const GROWTH_INTERVAL: f64 = 2000.0;
/// Smallest factor, at which an overflow is not caused by scaling.
const LEAST: f64 = 1.0;

/// The scale factor, and how long it has been unchanged.
///
/// # Source
/// `torch.amp.GradScaler` with its defaults, as SimDINO and DINO use it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GradScaler {
    factor: f64,
    good_steps: f64,
}

impl Default for GradScaler {
    fn default() -> Self {
        Self { factor: INITIAL, good_steps: 0.0 }
    }
}

impl GradScaler {
    /// Returns the factor for the loss.
    pub(crate) fn factor(&self) -> f64 {
        self.factor
    }

    /// Divides the gradients by the factor.
    ///
    /// # Errors
    /// Returns an error if a libtorch operation fails.
    pub(crate) fn unscale(&self, grads: &[Tensor]) -> Result<()> {
        Ok(torch_ext::foreach_mul_(grads, &vec![1.0 / self.factor; grads.len()])?)
    }

    /// Counts a step with finite gradients, and doubles the factor after many of them.
    pub(crate) fn count_step(&mut self) {
        self.good_steps += 1.0;
        if self.good_steps >= GROWTH_INTERVAL {
            *self = Self { factor: self.factor * 2.0, good_steps: 0.0 };
        }
    }

    /// Halves the factor after gradients that were not finite. Returns whether it may have been the
    /// cause, which it is not at its minimum.
    pub(crate) fn back_off(&mut self) -> bool {
        let at_fault = self.factor > LEAST;
        *self = Self { factor: (self.factor / 2.0).max(LEAST), good_steps: 0.0 };
        at_fault
    }

    /// Returns the complete state for a checkpoint.
    pub(crate) fn state(&self) -> (String, Tensor) {
        (STATE.to_owned(), Tensor::from_slice(&[self.factor, self.good_steps]))
    }

    /// Restores the result of [`Self::state`] if it is present, and returns the other tensors.
    pub(crate) fn load(&mut self, state: &[(String, Tensor)]) -> Vec<(String, Tensor)> {
        let mut others = Vec::new();
        for (name, tensor) in state {
            if name == STATE {
                let [factor, good_steps] = [0, 1].map(|i| tensor.double_value(&[i]));
                *self = Self { factor, good_steps };
            } else {
                others.push((name.clone(), tensor.shallow_clone()));
            }
        }
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_at_an_overflow_and_doubles_after_a_while() {
        let mut scale = GradScaler::default();
        assert!(scale.back_off());
        assert_eq!(scale.factor(), INITIAL / 2.0);
        for _ in 0..1999 {
            scale.count_step();
        }
        assert_eq!(scale.factor(), INITIAL / 2.0);
        scale.count_step();
        assert_eq!(scale.factor(), INITIAL);
        for _ in 0..16 {
            assert!(scale.back_off());
        }
        assert_eq!(scale.factor(), 1.0);
        assert!(!scale.back_off(), "not the factor's fault any more");
    }

    #[test]
    fn is_resumed() {
        let mut scale = GradScaler::default();
        scale.back_off();
        scale.count_step();
        let other = ("center".to_owned(), Tensor::from(1.0));
        let mut resumed = GradScaler::default();
        let others = resumed.load(&[scale.state(), other]);
        assert_eq!(resumed, scale);
        assert_eq!(others.len(), 1);
    }
}
