//! Rules for config values.

use super::Problem;

/// Collects every value that violates a rule.
#[derive(Default)]
pub struct Check(pub Vec<Problem>);

impl Check {
    pub fn positive(&mut self, key: &'static str, value: f64) {
        if !(value > 0.0 && value.is_finite()) {
            self.0.push((key, format!("must be greater than 0 (got {value})")));
        }
    }

    pub fn not_negative(&mut self, key: &'static str, value: f64) {
        if !(value >= 0.0 && value.is_finite()) {
            self.0.push((key, format!("must not be negative (got {value})")));
        }
    }

    pub fn share(&mut self, key: &'static str, value: f64) {
        if !(0.0..=1.0).contains(&value) {
            self.0.push((key, format!("must be between 0 and 1 (got {value})")));
        }
    }

    pub fn decay(&mut self, key: &'static str, value: f64) {
        if !(0.0..1.0).contains(&value) {
            self.0.push((key, format!("must be at least 0 and below 1 (got {value})")));
        }
    }

    pub fn at_least_one(&mut self, key: &'static str, value: u64) {
        if value == 0 {
            self.0.push((key, "must be at least 1 (got 0)".into()));
        }
    }
}
