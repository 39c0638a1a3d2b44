//! Building blocks of HTML. All text that comes from a run must pass through [`escape`].

use std::fmt::{Display, Write};

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Escapes text for HTML, inside an element or a quoted attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Control characters are not allowed in HTML, not even escaped.
            c if c.is_control() && c != '\n' && c != '\t' => escaped.push('\u{FFFD}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Returns a section with a heading; `body` is HTML.
pub(crate) fn section(id: &str, heading: &str, body: &str) -> String {
    format!("<section id=\"{id}\">\n<h2>{}</h2>\n{body}</section>\n", escape(heading))
}

/// Returns a note that a part of the page is missing, with the reason.
pub(crate) fn absent(heading: &str, why: &str) -> String {
    format!("<p class=\"absent\"><b>{}</b>: {}</p>\n", escape(heading), escape(why))
}

/// Returns a table of numbers: the first column is left-aligned, and the others are right-aligned.
/// An empty `head` means no heading row.
pub(crate) fn table<C: Display>(head: &[&str], rows: &[Vec<C>]) -> String {
    table_of("<table>", head, rows)
}

/// Returns a table of text, with all columns left-aligned. An empty `head` means no heading row.
pub(crate) fn text_table<C: Display>(head: &[&str], rows: &[Vec<C>]) -> String {
    table_of("<table class=\"text\">", head, rows)
}

fn table_of<C: Display>(open: &str, head: &[&str], rows: &[Vec<C>]) -> String {
    let mut html = format!("<div class=\"scroll\">{open}\n");
    let mut row = |tag: &str, cells: &mut dyn Iterator<Item = String>| {
        html.push_str("<tr>");
        for cell in cells {
            let _ = write!(html, "<{tag}>{}</{tag}>", escape(&cell));
        }
        html.push_str("</tr>\n");
    };
    if !head.is_empty() {
        row("th", &mut head.iter().map(ToString::to_string));
    }
    for cells in rows {
        row("td", &mut cells.iter().map(ToString::to_string));
    }
    html.push_str("</table></div>\n");
    html
}

/// Returns a figure with the PNG embedded as a data URL.
pub(crate) fn picture(png: &[u8], caption: &str) -> String {
    let caption = escape(caption);
    format!(
        "<figure class=\"picture\"><img alt=\"{caption}\" src=\"data:image/png;base64,{}\">\
         <figcaption>{caption}</figcaption></figure>\n",
        base64(png)
    )
}

fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0, |word, &byte| word << 8 | u32::from(byte));
        let word = word << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let sextet = (word >> (18 - 6 * i)) as usize & 63;
            text.push(if i <= chunk.len() { BASE64[sextet].into() } else { '=' });
        }
    }
    text
}

/// Returns a tile: a key number with its name above and a remark below.
pub(crate) fn tile(name: &str, value: &str, remark: &str) -> String {
    format!(
        "<div class=\"tile\"><span>{}</span><b>{}</b><small>{}</small></div>\n",
        escape(name),
        escape(value),
        escape(remark)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_breaks_out_of_an_element_or_attribute() {
        for (text, expect) in [
            ("a < b & c", "a &lt; b &amp; c"),
            (
                "</script><b x='1' y=\"2\">",
                "&lt;/script&gt;&lt;b x=&#39;1&#39; y=&quot;2&quot;&gt;",
            ),
            ("&lt;", "&amp;lt;"),
            ("tab\tline\nbell\u{7}", "tab\tline\nbell\u{FFFD}"),
            ("\u{e9}\u{4e2d}", "\u{e9}\u{4e2d}"),
        ] {
            assert_eq!(escape(text), expect);
        }
    }

    #[test]
    fn cells_are_escaped() {
        let html = table(&["<h>"], &[vec!["<td>"]]);
        assert!(
            html.contains("<th>&lt;h&gt;</th>") && html.contains("<td>&lt;td&gt;</td>"),
            "{html}"
        );
    }

    /// The test vectors of RFC 4648, section 10.
    #[test]
    fn base64_of_the_standard() {
        for (text, expect) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), expect);
        }
        assert_eq!(base64(&[0xFB, 0xFF]), "+/8=");
    }
}
