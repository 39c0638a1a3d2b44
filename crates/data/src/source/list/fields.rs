//! Splits a table into lines and fields.
//!
//! Each line is a row, even if it has an unclosed quote, which must not swallow the following
//! lines.

use std::io::{self, BufRead};

/// Reads the next line into `line`, without its line break (`\n`, `\r\n`, or `\r`), and returns
/// whether there was one. If the line is longer than `limit` bytes, stops after one byte more than
/// that.
pub(super) fn read_line(
    reader: &mut impl BufRead,
    line: &mut Vec<u8>,
    limit: usize,
) -> io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(any);
        }
        any = true;
        let room = bytes.len().min(limit + 1 - line.len());
        let end = bytes[..room].iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        line.extend_from_slice(&bytes[..end.unwrap_or(room)]);
        let is_return = end.is_some_and(|end| bytes[end] == b'\r');
        reader.consume(end.map_or(room, |end| end + 1));
        if is_return && reader.fill_buf()?.first() == Some(&b'\n') {
            reader.consume(1);
        }
        if end.is_some() || line.len() > limit {
            return Ok(true);
        }
    }
}

/// The fields of one line. The memory is reused for the next line.
#[derive(Default)]
pub(super) struct Fields {
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Fields {
    /// Splits a line into fields. With `quoting`, a field that begins with a quote ends with one
    /// and may contain the delimiter, and quotes inside it are doubled. Returns `false` if such a
    /// field is not closed.
    pub(super) fn split(&mut self, line: &[u8], delimiter: u8, quoting: bool) -> bool {
        self.text.clear();
        self.ends.clear();
        let (mut quoted, mut at_start) = (false, true);
        let mut bytes = line.iter().copied().peekable();
        while let Some(byte) = bytes.next() {
            let starts = std::mem::take(&mut at_start);
            if quoted && byte == b'"' {
                quoted = bytes.next_if_eq(&b'"').is_some();
                if quoted {
                    self.text.push(b'"');
                }
            } else if quoting && starts && byte == b'"' {
                quoted = true;
            } else if !quoted && byte == delimiter {
                self.ends.push(self.text.len());
                at_start = true;
            } else {
                self.text.push(byte);
            }
        }
        self.ends.push(self.text.len());
        !quoted
    }

    /// Returns the number of fields, at least 1.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns field `at`, if there is one.
    pub(super) fn get(&self, at: usize) -> Option<&[u8]> {
        let start = if at == 0 { 0 } else { *self.ends.get(at - 1)? };
        self.text.get(start..*self.ends.get(at)?)
    }

    /// Iterates over all fields.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).filter_map(|at| self.get(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_quotes() {
        for (line, quoting, expected) in [
            ("a,b", true, Some(&["a", "b"][..])),
            ("", true, Some(&[""])),
            (",", true, Some(&["", ""])),
            ("\"a,b\",c", true, Some(&["a,b", "c"])),
            ("\"a \"\"b\"\"\",\"\"", true, Some(&["a \"b\"", ""])),
            ("\"a\" b,c", true, Some(&["a b", "c"])),
            ("5\" pipe,c\"", true, Some(&["5\" pipe", "c\""])),
            ("a,\"5 inch", true, None),
            ("a,\"5 inch\"\"", true, None),
            ("a,\"", true, None),
            ("\"a,\"5 inch", false, Some(&["\"a", "\"5 inch"])),
        ] {
            let mut fields = Fields::default();
            // The contents of the previous line must not remain visible.
            fields.split(b"x,\"y", b',', true);
            let closed = fields.split(line.as_bytes(), b',', quoting);
            let found: Vec<&[u8]> = fields.iter().collect();
            let expected = expected.map(|fields| fields.iter().map(|f| f.as_bytes()).collect());
            assert_eq!(closed.then_some(found), expected, "{line}");
        }
    }

    #[test]
    fn lines_end_in_three_ways_wherever_the_buffer_ends() {
        let text = b"a\r\n\nbc\rd\r\r\ne";
        for capacity in 1..=text.len() {
            let mut reader = io::BufReader::with_capacity(capacity, &text[..]);
            let (mut line, mut lines) = (Vec::new(), Vec::new());
            while read_line(&mut reader, &mut line, 2).unwrap() {
                lines.push(String::from_utf8(line.clone()).unwrap());
            }
            assert_eq!(lines, ["a", "", "bc", "d", "", "e"], "{capacity}");
        }
        let mut line = Vec::new();
        assert!(read_line(&mut &b"abcdef"[..], &mut line, 3).unwrap());
        assert_eq!(line, b"abcd");
    }
}
