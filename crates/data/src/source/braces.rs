//! Expands brace patterns such as `train-{0000..0127}.tar` and `{a,b}.tar`, as in shells and
//! WebDataset.

/// Maximum number of names for one pattern.
const MAX_NAMES: usize = 1_000_000;

/// Returns all names that `text` stands for, in order; without braces, this is `text` itself.
/// Returns `None` if there are too many.
pub(super) fn expand(text: &str) -> Option<Vec<String>> {
    let Some((head, inside, tail)) = first_braces(text) else { return Some(vec![text.to_owned()]) };
    let tails = expand(tail)?;
    let choices = range(inside)?;
    if choices.len().saturating_mul(tails.len()) > MAX_NAMES {
        return None;
    }
    let names = choices
        .iter()
        .flat_map(|choice| tails.iter().map(move |tail| format!("{head}{choice}{tail}")));
    Some(names.collect())
}

/// Returns the text before, inside, and after the first pair of braces.
fn first_braces(text: &str) -> Option<(&str, &str, &str)> {
    let open = text.find('{')?;
    let close = open + text[open..].find('}')?;
    Some((&text[..open], &text[open + 1..close], &text[close + 1..]))
}

/// Expands `a,b,c` or `first..last`. A range includes both ends, and its numbers are padded with
/// zeros to the width of the first one.
fn range(inside: &str) -> Option<Vec<String>> {
    let numbers = inside.split_once("..").and_then(|(first, last)| {
        Some((first.len(), first.parse::<usize>().ok()?, last.parse::<usize>().ok()?))
    });
    match numbers {
        Some((width, first, last)) if last.saturating_sub(first) < MAX_NAMES => {
            Some((first..=last).map(|number| format!("{number:0width$}")).collect())
        }
        Some(_) => None,
        None => Some(inside.split(',').map(str::to_owned).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[test]
    fn ranges_and_choices() {
        let check = |text: &str, names: &[&str]| assert_eq!(expand(text).unwrap(), names, "{text}");
        check("a.tar", &["a.tar"]);
        check("a-{08..10}.tar", &["a-08.tar", "a-09.tar", "a-10.tar"]);
        check("{a,b}/{0..1}", &["a/0", "a/1", "b/0", "b/1"]);
        check("a{3..2}b", &[]);
        check("open{1..2", &["open{1..2"]);
        check("{x}", &["x"]);
        assert!(expand("{0..99999999999}").is_none());
        assert!(expand("{0..9999}{0..9999}").is_none());
    }
}
