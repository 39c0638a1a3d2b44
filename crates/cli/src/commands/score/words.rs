//! Formats numbers for the output of `simdino score`.

/// Formats a score in percent; `-` if there is none.
pub fn percent(score: Option<f64>) -> String {
    score.map_or_else(|| "-".to_owned(), |score| report::percent(score, 1))
}
