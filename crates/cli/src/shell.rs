//! Formats command lines for the shell.

/// Returns the shell command line that runs `simdino` with the arguments `words`, quoted as needed.
pub fn typed(words: &[String]) -> String {
    let quoted = words.iter().map(|word| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:,+".contains(c);
        match !word.is_empty() && word.chars().all(plain) {
            true => word.clone(),
            false => format!("'{}'", word.replace('\'', r"'\''")),
        }
    });
    let words: Vec<String> = std::iter::once("simdino".to_owned()).chain(quoted).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_a_shell_would_change_are_quoted() {
        let words = ["train", "my photos", "data.path=a*", "train.epochs=3", "it's", ""];
        let words = words.map(str::to_owned);
        let expected = r"simdino train 'my photos' 'data.path=a*' train.epochs=3 'it'\''s' ''";
        assert_eq!(typed(&words), expected);
    }
}
