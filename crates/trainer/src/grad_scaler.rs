//! Scaling of the loss for training in half precision.
//!
//! Gradients below the smallest half would vanish, so the loss is multiplied before the backward
//! pass and the gradients divided after it. Where they overflow the step is skipped and the factor
//! halved; after a long time without overflow it is doubled.

use tch::Tensor;

use crate::error::Result;

/// Name of the state among that of a checkpoint.
const STATE: &str = "loss_scale";
const INITIAL: f64 = 65_536.0;
const GROWTH_INTERVAL: f64 = 2000.0;
/// An overflow at this factor is no fault of the factor's.
const LEAST: f64 = 1.0;

/// The factor, and how long it has held.
///
/// # Source
/// `torch.amp.GradScaler` with its defaults, as SimDINO and DINO use it.
#[derive(Debug, Clone, PartialEq)]
pub struct GradScaler {
    factor: f64,
    good_steps: f64,
}

impl Default for GradScaler {
    fn default() -> Self {
        Self { factor: INITIAL, good_steps: 0.0 }
    }
}

impl GradScaler {
    /// What the loss is multiplied by.
    pub fn factor(&self) -> f64 {
        self.factor
    }

    /// Divides the gradients by the factor.
    ///
    /// # Errors
    /// A libtorch operation fails.
    pub fn unscale(&self, grads: &[Tensor]) -> Result<()> {
        Ok(torch_ext::foreach_mul_(grads, &vec![1.0 / self.factor; grads.len()])?)
    }

    /// Takes in whether the gradients were finite; tells whether, if not, the factor was at fault.
    pub fn update(&mut self, finite: bool) -> bool {
        if !finite {
            let at_fault = self.factor > LEAST;
            *self = Self { factor: (self.factor / 2.0).max(LEAST), good_steps: 0.0 };
            return at_fault;
        }
        self.good_steps += 1.0;
        if self.good_steps >= GROWTH_INTERVAL {
            *self = Self { factor: self.factor * 2.0, good_steps: 0.0 };
        }
        true
    }

    /// All of it, for a checkpoint.
    pub fn state(&self) -> (String, Tensor) {
        (STATE.to_owned(), Tensor::from_slice(&[self.factor, self.good_steps]))
    }

    /// Takes over what [`Self::state`] gave, if it is among these; returns the others.
    pub fn load(&mut self, state: &[(String, Tensor)]) -> Vec<(String, Tensor)> {
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
        assert!(scale.update(false));
        assert_eq!(scale.factor(), INITIAL / 2.0);
        for _ in 0..1999 {
            assert!(scale.update(true));
        }
        assert_eq!(scale.factor(), INITIAL / 2.0);
        scale.update(true);
        assert_eq!(scale.factor(), INITIAL);
        for _ in 0..16 {
            assert!(scale.update(false));
        }
        assert_eq!(scale.factor(), 1.0);
        assert!(!scale.update(false), "not the factor's fault any more");
    }

    #[test]
    fn is_resumed() {
        let mut scale = GradScaler::default();
        scale.update(false);
        scale.update(true);
        let other = ("center".to_owned(), Tensor::from(1.0));
        let mut resumed = GradScaler::default();
        let others = resumed.load(&[scale.state(), other]);
        assert_eq!(resumed, scale);
        assert_eq!(others.len(), 1);
    }
}
