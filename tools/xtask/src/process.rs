//! Runs other programs, with their output shown, captured, or parsed as JSON.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::fail::{Context, Result, failed};

/// Runs `command` with its output shown.
///
/// # Errors
/// Returns an error that names the command if it cannot be started or does not exit with status 0.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().context(|| format!("cannot start `{}`", shown(command)))?;
    if status.success() {
        Ok(())
    } else {
        failed(format!("`{}` failed ({status})", shown(command)))
    }
}

/// Returns the trimmed stdout of `command`, or `None` if it cannot be started or fails. Nothing is
/// shown.
pub fn probe(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs `command`, passes each line of its stdout to `line`, and shows its stderr.
///
/// # Errors
/// Same as [`run`].
pub fn each_line(command: &mut Command, mut line: impl FnMut(&str)) -> Result<()> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context(|| format!("cannot start `{}`", shown(command)))?;
    if let Some(stdout) = child.stdout.take() {
        for bytes in BufReader::new(stdout).split(b'\n').map_while(std::io::Result::ok) {
            line(&String::from_utf8_lossy(&bytes));
        }
    }
    let status = child.wait().context(|| format!("cannot wait for `{}`", shown(command)))?;
    if status.success() {
        Ok(())
    } else {
        failed(format!("`{}` failed ({status})", shown(command)))
    }
}

/// Runs `command` and parses the last line of its stdout as JSON; the lines before it are shown.
///
/// # Errors
/// Same as [`run`]. Also returns an error if the last line is not JSON.
pub fn json(command: &mut Command) -> Result<Value> {
    let mut last: Option<String> = None;
    each_line(command, |line| {
        if line.trim().is_empty() {
            return;
        }
        if let Some(earlier) = last.replace(line.to_owned()) {
            println!("{earlier}");
        }
    })?;
    let last = last.unwrap_or_default();
    serde_json::from_str(&last)
        .context(|| format!("`{}` should end with a line of JSON, not {last:?}", shown(command)))
}

/// Formats a command as it would be typed.
pub fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(quoted)
        .collect::<Vec<_>>()
        .join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_quotes_what_a_shell_would_split() {
        let mut command = Command::new("cargo");
        command.args(["run", "a b", "it's", "", "key=value"]);
        assert_eq!(shown(&command), r"cargo run 'a b' 'it'\''s' '' key=value");
    }

    #[test]
    fn json_is_the_last_line() {
        let value = json(Command::new("printf").arg("progress\n{\"a\": 1}\n\n")).unwrap();
        assert_eq!(value["a"], 1);
    }

    #[test]
    fn json_says_what_stood_there_instead() {
        let error = json(Command::new("printf").arg("no number\n")).unwrap_err().to_string();
        assert!(error.contains("\"no number\""), "{error}");
    }

    #[test]
    fn a_failing_command_is_named() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err().to_string();
        assert!(error.contains("sh -c 'exit 3'") && error.contains('3'), "{error}");
    }

    #[test]
    fn probe_of_a_missing_program_is_none() {
        assert_eq!(probe(&mut Command::new("no-such-program-anywhere")), None);
        assert_eq!(probe(Command::new("printf").arg("here\n")).as_deref(), Some("here"));
    }
}
