//! Arguments that the subcommands of `analyze` share.

/// The paper's eps for the published runs: the square root of the 0.05 that the code takes.
pub(super) const EPS: f64 = 0.223_606_797_749_979;

/// Parses `--eps`, which must be a finite number greater than 0.
pub(super) fn parse_eps(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(eps) if eps > 0.0 && eps.is_finite() => Ok(eps),
        _ => Err("must be a number greater than 0".into()),
    }
}

/// Parses a number of rows or a width, which must be an integer from 1 to 65536.
pub(super) fn parse_size(text: &str) -> std::result::Result<usize, String> {
    match text.parse::<usize>() {
        Ok(size) if (1..=1 << 16).contains(&size) => Ok(size),
        _ => Err("must be an integer from 1 to 65536".into()),
    }
}
