//! Formats errors and panics.

use std::any::Any;
use std::error::Error;

/// Returns an error and its causes on one line, joined by `: `, the outermost first.
///
/// A cause that the line already ends with is not repeated, because many errors quote their cause.
/// Only the first non-empty line of each message is used: libtorch appends a stack trace.
pub fn error_chain(error: &dyn Error) -> String {
    let mut line = first_line(&error.to_string());
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = first_line(&error.to_string());
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

fn first_line(text: &str) -> String {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("unknown error").to_owned()
}

/// Returns the message of a panic caught by [`std::panic::catch_unwind`], or `None` if the payload
/// is not a string.
pub fn panic_message(payload: &(dyn Any + Send)) -> Option<&str> {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read {file}")]
    struct Outer {
        file: &'static str,
        source: Inner,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("\nno such file\nstack of calls")]
    struct Inner;

    #[derive(Debug, thiserror::Error)]
    #[error("the page is missing: {0}")]
    struct Quoting(#[source] Outer);

    #[test]
    fn causes_follow_on_one_line() {
        let error = Outer { file: "a.jpg", source: Inner };
        assert_eq!(error_chain(&error), "cannot read a.jpg: no such file");
        let error = Quoting(Outer { file: "a.jpg", source: Inner });
        let expected = "the page is missing: cannot read a.jpg: no such file";
        assert_eq!(error_chain(&error), expected, "the cause that is quoted stands once");
    }

    #[test]
    fn a_panic_is_told_in_its_words() {
        let said = |payload: Box<dyn Any + Send>| panic_message(&*payload).map(str::to_owned);
        let fixed = catch_unwind(|| panic!("fixed")).unwrap_err();
        assert_eq!(said(fixed).as_deref(), Some("fixed"));
        let number = std::hint::black_box(3);
        let made = catch_unwind(|| panic!("made of {number}")).unwrap_err();
        assert_eq!(said(made).as_deref(), Some("made of 3"));
        let other = catch_unwind(|| std::panic::panic_any(7)).unwrap_err();
        assert_eq!(said(other), None);
    }
}
