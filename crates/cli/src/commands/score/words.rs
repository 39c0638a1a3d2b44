//! Formats numbers for the output of `simdino score`.

/// Formats a score in percent; `-` if there is none.
pub fn percent(score: Option<f64>) -> String {
    score.map_or_else(|| "-".to_owned(), |score| report::percent(score, 1))
}

/// Formats a count with the singular or plural noun, such as `1 image` or `2 images`.
pub fn counted(count: usize, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}
