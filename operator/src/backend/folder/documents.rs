//! Splits a file into its YAML documents, so that a broken one does not affect the others.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    /// Its number in the file, from 1.
    pub(crate) number: usize,
    /// The line of the file that is its first, from 1.
    pub(crate) first_line: u64,
    pub(crate) text: &'a str,
}

/// Returns the documents of a file that have more than comments. As with kubectl, a line that begins with
/// `---` ends a document, also within a block of text.
pub(crate) fn split(text: &str) -> Vec<Part<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parts = Vec::new();
    let (mut start, mut first_line, mut number) = (0, 1, 1);
    let mut at = 0;
    for (line_number, line) in (1_u64..).zip(text.split_inclusive('\n')) {
        if is_separator(line) {
            push(&mut parts, &mut number, first_line, &text[start..at]);
            start = at + line.len();
            first_line = line_number + 1;
        }
        at += line.len();
    }
    push(&mut parts, &mut number, first_line, &text[start..]);
    parts
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| {
        rest.trim_start().is_empty() || rest.trim_start().starts_with('#') && rest.starts_with([' ', '\t'])
    })
}

fn push<'a>(parts: &mut Vec<Part<'a>>, number: &mut usize, first_line: u64, text: &'a str) {
    let says_something = |line: &str| {
        let line = line.trim();
        !(line.is_empty() || line.starts_with('#') || line == "..." || line.starts_with("%YAML"))
    };
    if text.lines().any(says_something) {
        parts.push(Part { number: *number, first_line, text });
        *number += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_keep_their_lines() {
        let parts = split("# head\n---\na: 1\n--- # next\n\nb: |\n  text\n  ---\n---\n# nothing\n---\nc: 3");
        let seen: Vec<_> =
            parts.iter().map(|part| (part.number, part.first_line, part.text.trim())).collect();
        assert_eq!(seen, [(1, 3, "a: 1"), (2, 5, "b: |\n  text\n  ---"), (3, 12, "c: 3")]);
        assert!(split("").is_empty() && split("---\n---\n").is_empty());
    }

    #[test]
    fn windows_line_ends_and_a_byte_order_mark_are_read() {
        let parts = split("\u{feff}a: 1\r\n---\r\nb: 2\r\n");
        assert_eq!(parts.len(), 2);
        assert_eq!((parts[1].first_line, parts[1].text), (3, "b: 2\r\n"));
    }
}
