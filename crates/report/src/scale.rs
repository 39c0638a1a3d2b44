//! The scale of an axis (its range and ticks), and number formatting.

/// The range of an axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scale {
    /// Lowest value.
    pub low: f64,
    /// Highest value.
    pub high: f64,
}

impl Scale {
    /// Returns a range that contains all finite values, padded at both ends by the fraction
    /// `margin` of its width. A range of zero width is widened around its value; without any
    /// finite value, the range is 0 to 1.
    pub(crate) fn around(values: impl Iterator<Item = f64>, margin: f64) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite()) {
            low = low.min(value);
            high = high.max(value);
        }
        if low > high {
            return Self { low: 0.0, high: 1.0 };
        }
        let mut free = margin * (high - low);
        if high - low <= 1e-9 * high.abs().max(low.abs()) {
            free = if high == 0.0 { 1.0 } else { 0.1 * high.abs() };
        }
        Self { low: low - free, high: high + free }
    }

    /// Returns the position of `value`: 0 at the low end and 1 at the high end.
    pub(crate) fn place(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    /// Returns about `count` round values inside the range, with their labels.
    pub(crate) fn ticks(&self, count: usize) -> Vec<(f64, String)> {
        let rough = (self.high - self.low) / count.max(1) as f64;
        let power = 10f64.powf(rough.log10().floor());
        let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * power >= rough * 0.999);
        let step = factor.unwrap_or(10.0) * power;
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last).map(|i| i as f64 * step).map(|v| (v, label(v, step))).collect()
    }
}

/// Formats a tick with as many digits as distinguish it from its neighbors.
fn label(value: f64, step: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    if step < 9e-4 || value.abs() >= 1e6 {
        // Enough digits to tell neighbors apart, at most three after the decimal point.
        let digits = (value.abs() / step).log10().ceil().clamp(0.0, 3.0) as usize;
        return trimmed(&format!("{value:.digits$e}"));
    }
    let decimals = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{value:.decimals$}")
}

/// Formats four significant digits, with an exponent for very small and very large numbers.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "not finite".into();
    }
    let size = value.abs();
    if size == 0.0 {
        return "0".into();
    }
    if !(1e-3..1e6).contains(&size) {
        return trimmed(&format!("{value:.2e}"));
    }
    let decimals = (3.0 - size.log10().floor()).clamp(0.0, 6.0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { trimmed(&text) } else { text }
}

/// Removes trailing zeros of the fractional part.
fn trimmed(text: &str) -> String {
    let (digits, exponent) = text.find('e').map_or((text, ""), |at| text.split_at(at));
    let digits = match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.'),
        false => digits,
    };
    format!("{digits}{exponent}")
}

/// Formats a fraction (0 to 1) as a percentage with `decimals` decimal places. A non-finite value
/// becomes `not finite`.
pub fn percent(share: f64, decimals: usize) -> String {
    if share.is_finite() {
        format!("{}%", fixed(100.0 * share, decimals))
    } else {
        "not finite".to_owned()
    }
}

/// Formats a number with `decimals` decimal places, without the sign of a zero.
pub(crate) fn fixed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    match text.strip_prefix('-') {
        Some(zero) if zero.chars().all(|c| matches!(c, '0' | '.')) => zero.to_owned(),
        _ => text,
    }
}

/// Formats the score of an evaluation: as a plain number if `name` ends with a unit in parentheses,
/// such as `rmse (m)`, and as a percentage otherwise.
pub fn score(name: &str, value: f64) -> String {
    match name.ends_with(')') && value.is_finite() {
        true => format!("{value:.3}"),
        false => percent(value, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        for (low, high, expect) in [
            (0.0, 1.0, "0 0.2 0.4 0.6 0.8 1.0"),
            (-0.97, -0.31, "-0.8 -0.6 -0.4"),
            (0.0, 12.0, "0 5 10"),
            (0.0, 5e-4, "0 1e-4 2e-4 3e-4 4e-4 5e-4"),
            (0.9960, 1.0, "0.996 0.997 0.998 0.999 1.000"),
            (0.0, 3e7, "0 1e7 2e7 3e7"),
        ] {
            let labels: Vec<String> =
                Scale { low, high }.ticks(5).into_iter().map(|(_, label)| label).collect();
            assert_eq!(labels.join(" "), expect, "{low} {high}");
        }
    }

    #[test]
    fn a_range_has_always_some_width() {
        for values in [vec![], vec![f64::NAN], vec![0.0], vec![3.0, 3.0], vec![-1e-12], vec![1e300]]
        {
            let scale = Scale::around(values.iter().copied(), 0.05);
            assert!(scale.high > scale.low, "{values:?}");
            assert!(scale.ticks(5).len() < 20, "{values:?}");
        }
        let scale = Scale::around([0.0, 1.0].into_iter(), 0.1);
        assert_eq!((scale.low, scale.high), (-0.1, 1.1));
        assert!((scale.place(0.5) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn zero_has_no_sign() {
        let shares = [(-0.0004, "0%"), (-0.0, "0%"), (-0.006, "-1%"), (0.004, "0%")];
        assert!(shares.iter().all(|&(share, expect)| percent(share, 0) == expect));
        assert_eq!((fixed(-0.004, 2), fixed(-0.006, 2)), ("0.00".into(), "-0.01".into()));
    }

    #[test]
    fn numbers_are_short() {
        for (value, expect) in [
            (0.0, "0"),
            (-0.93214, "-0.9321"),
            (310.4, "310.4"),
            (4.1e-4, "4.1e-4"),
            (512.0, "512"),
            (1000.0, "1000"),
            (123456.7, "123457"),
            (1.5e7, "1.5e7"),
            (f64::NAN, "not finite"),
        ] {
            assert_eq!(number(value), expect);
        }
    }
}
