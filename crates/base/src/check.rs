//! Validation of config values: a [`Check`] collects the keys whose values break a rule, each with
//! a message that states the rule.

use std::fmt::{Debug, Display};
use std::ops::RangeInclusive;

/// An invalid value: its key, relative to the checked section, and a message that says what the
/// value must be.
pub type Problem = (&'static str, String);

/// Collects invalid values. An absent value ([`None`]) breaks no rule.
///
/// ```
/// use base::check::Check;
///
/// let mut check = Check::default();
/// check.positive("lr", -1.0);
/// check.at_least("steps", Some(3_u64), 1);
/// check.positive("clip", None);
/// check.that("size", 7 % 2 == 0, || "must be even (got 7)".into());
/// assert_eq!(
///     check.problems(),
///     [
///         ("lr", "must be greater than 0 (got -1)".to_owned()),
///         ("size", "must be even (got 7)".to_owned()),
///     ]
/// );
/// ```
#[derive(Debug, Default)]
pub struct Check(Vec<Problem>);

/// An integer, or `None`.
pub trait Whole {
    /// Returns the integer, or `None` if it is absent.
    fn whole(self) -> Option<i128>;
}

/// Implements [`Whole`] for integer types and their `Option`s.
macro_rules! whole {
    ($($ty:ty),*) => {$(
        impl Whole for $ty {
            fn whole(self) -> Option<i128> {
                i128::try_from(self).ok()
            }
        }
        impl Whole for Option<$ty> {
            fn whole(self) -> Option<i128> {
                self.and_then(Whole::whole)
            }
        }
    )*};
}
whole!(i64, u32, u64, usize);

impl Check {
    /// Requires that `holds` is true. Otherwise, `what` returns the message, which says what the
    /// value must be and what it is.
    pub fn that(&mut self, key: &'static str, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.push((key, what()));
        }
    }

    /// Requires a finite number greater than 0.
    pub fn positive(&mut self, key: &'static str, value: impl Into<Option<f64>>) {
        self.number(key, value, |x| x > 0.0 && x.is_finite(), "must be greater than 0");
    }

    /// Requires a finite number of at least 0.
    pub fn not_negative(&mut self, key: &'static str, value: impl Into<Option<f64>>) {
        self.number(key, value, |x| x >= 0.0 && x.is_finite(), "must not be negative");
    }

    /// Requires a number from 0 to 1, both included.
    pub fn fraction(&mut self, key: &'static str, value: impl Into<Option<f64>>) {
        self.number(key, value, |x| (0.0..=1.0).contains(&x), "must be between 0 and 1");
    }

    /// Requires a number of at least 0 and below 1.
    pub fn below_one(&mut self, key: &'static str, value: impl Into<Option<f64>>) {
        self.number(key, value, |x| (0.0..1.0).contains(&x), "must be at least 0 and below 1");
    }

    fn number(
        &mut self,
        key: &'static str,
        value: impl Into<Option<f64>>,
        holds: impl Fn(f64) -> bool,
        rule: &str,
    ) {
        if let Some(got) = value.into() {
            self.that(key, holds(got), || format!("{rule} (got {got})"));
        }
    }

    /// Requires an integer of at least `least`.
    pub fn at_least(&mut self, key: &'static str, value: impl Whole, least: i128) {
        if let Some(got) = value.whole() {
            self.that(key, got >= least, || format!("must be at least {least} (got {got})"));
        }
    }

    /// Requires a value in a range.
    pub fn within<T: PartialOrd + Display>(
        &mut self,
        key: &'static str,
        value: T,
        range: RangeInclusive<T>,
    ) {
        self.that(key, range.contains(&value), || {
            format!("must be between {} and {} (got {value})", range.start(), range.end())
        });
    }

    /// Requires a finite range `[low, high]` with `low <= high`, within `least..=most`. If `open`,
    /// `least` itself is excluded; `most` may be infinite.
    pub fn ordered(
        &mut self,
        key: &'static str,
        [low, high]: [f64; 2],
        (least, open, most): (f64, bool, f64),
    ) {
        let from = if open { low > least } else { low >= least };
        let holds = from && low <= high && high <= most && high.is_finite();
        self.that(key, holds, || {
            let sign = if open { "<" } else { "<=" };
            let end = if most.is_finite() { format!(" <= {most}") } else { String::new() };
            format!("must satisfy {least} {sign} low <= high{end} (got [{low}, {high}])")
        });
    }

    /// Appends the problems of another check.
    pub fn extend(&mut self, problems: impl IntoIterator<Item = Problem>) {
        self.0.extend(problems);
    }

    /// Returns the collected problems, in the order in which they were found.
    pub fn problems(self) -> Vec<Problem> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the message of a rule about a value; empty if the rule holds.
    fn said(rule: impl FnOnce(&mut Check)) -> String {
        let mut check = Check::default();
        rule(&mut check);
        check.problems().into_iter().map(|(_, what)| what).collect()
    }

    #[test]
    fn bounds_are_those_of_the_rule() {
        for (x, ok) in [(0.0, false), (1e-9, true), (f64::NAN, false), (f64::INFINITY, false)] {
            assert_eq!(said(|check| check.positive("x", x)).is_empty(), ok, "{x}");
        }
        for (x, ok) in [(-1e-9, false), (0.0, true), (f64::NAN, false)] {
            assert_eq!(said(|check| check.not_negative("x", x)).is_empty(), ok, "{x}");
        }
        for (x, fraction, below) in [(0.0, true, true), (1.0, true, false), (1.1, false, false)] {
            assert_eq!(said(|check| check.fraction("x", x)).is_empty(), fraction, "{x}");
            assert_eq!(said(|check| check.below_one("x", x)).is_empty(), below, "{x}");
        }
        assert_eq!(said(|check| check.at_least("x", 0_usize, 1)), "must be at least 1 (got 0)");
        assert_eq!(
            said(|check| check.at_least("x", Some(-1_i64), 0)),
            "must be at least 0 (got -1)"
        );
        assert_eq!(said(|check| check.at_least("x", None::<u32>, 1)), "");
        assert_eq!(said(|check| check.within("x", 3, 4..=8)), "must be between 4 and 8 (got 3)");
        assert_eq!(said(|check| check.within("x", 8, 4..=8)), "");
    }

    #[test]
    fn ranges_are_ordered_and_within_their_bounds() {
        let shares = (0.0, true, 1.0);
        let of = |range| said(|check| check.ordered("x", range, shares));
        assert_eq!(of([0.5, 0.4]), "must satisfy 0 < low <= high <= 1 (got [0.5, 0.4])");
        assert!(
            of([0.4, 0.4]).is_empty() && !of([0.0, 1.0]).is_empty() && !of([0.5, 1.1]).is_empty()
        );
        let of = |range| said(|check| check.ordered("x", range, (0.0, false, f64::INFINITY)));
        assert!(of([0.0, 9.0]).is_empty() && !of([1.0, f64::INFINITY]).is_empty());
        assert_eq!(of([-1.0, f64::NAN]), "must satisfy 0 <= low <= high (got [-1, NaN])");
    }
}
