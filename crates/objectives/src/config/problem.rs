//! Problems with an option.

/// A wrong value: the key relative to the section it stands in, and what to do about it.
pub type Problem = (&'static str, String);

/// Keys whose values are not finite, or below 0.
pub(crate) fn negative(values: &[(&'static str, Option<f64>)]) -> Vec<Problem> {
    let bad = |x: f64| !(x >= 0.0 && x.is_finite());
    wrong(values, bad, "must not be negative")
}

/// Keys whose values are not finite, or not above 0.
pub(crate) fn not_positive(values: &[(&'static str, Option<f64>)]) -> Vec<Problem> {
    let bad = |x: f64| !(x > 0.0 && x.is_finite());
    wrong(values, bad, "must be greater than 0")
}

fn wrong(
    values: &[(&'static str, Option<f64>)],
    bad: impl Fn(f64) -> bool,
    what: &str,
) -> Vec<Problem> {
    let present = values.iter().filter_map(|&(key, value)| Some((key, value?)));
    let bad = present.filter(|&(_, value)| bad(value));
    bad.map(|(key, value)| (key, format!("{what} (got {value})"))).collect()
}
