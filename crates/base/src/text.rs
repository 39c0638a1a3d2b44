//! Formats text for people: counts with their nouns, and untrusted text for a terminal.

use std::borrow::Cow;
use std::fmt::Display;

/// Formats a count with the singular or the plural of its noun.
///
/// ```
/// assert_eq!(base::counted(1, "image", "images"), "1 image");
/// assert_eq!(base::counted(0, "class", "classes"), "0 classes");
/// ```
pub fn counted<N: Display + PartialEq + From<u8>>(count: N, one: &str, more: &str) -> String {
    let noun = if count == N::from(1) { one } else { more };
    format!("{count} {noun}")
}

/// Escapes the characters that a terminal would act on: control characters, line separators, and
/// bidirectional marks. The result is a single line, so text such as a file name can be printed.
///
/// ```
/// assert_eq!(base::printable("a photo.jpg"), "a photo.jpg");
/// assert_eq!(base::printable("a\u{1b}[2J\n.jpg"), "a\\u{1b}[2J\\n.jpg");
/// ```
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_obeyed(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// Returns whether `c` is a control character, a line separator, or a bidirectional mark.
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
