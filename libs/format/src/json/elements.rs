//! Iterates over the elements of an array.

use super::scan::Scanner;

/// An iterator over the elements of an array, each as it is written. Returned by [`elements`].
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    text: &'a str,
    scanner: Scanner<'a>,
    done: bool,
}

/// Returns the elements of `array`, the text of a [`super::RawValue::Container`]. Text that is not an array
/// has no elements; malformed text ends the iterator early. Neither allocates nor recurses.
#[must_use]
pub fn elements(array: &str) -> Elements<'_> {
    let mut scanner = Scanner::new(array);
    let opened = scanner.expect(b'[').is_ok();
    let done = !opened || scanner.peek() == Some(b']');
    Elements { text: array, scanner, done }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.done {
            return None;
        }
        self.scanner.peek();
        let start = self.scanner.position();
        let mut depth = 0_usize;
        // The element ends at the comma or bracket that is in no inner array, object or string.
        loop {
            match self.scanner.peek()? {
                b'"' => {
                    self.scanner.string().ok()?;
                    continue;
                }
                b'[' | b'{' => depth += 1,
                b',' if depth == 0 => break,
                b']' | b'}' if depth == 0 => {
                    self.done = true;
                    break;
                }
                b']' | b'}' => depth -= 1,
                _ => {}
            }
            self.scanner.advance();
        }
        let element = self.text.get(start..self.scanner.position())?;
        self.scanner.advance();
        Some(element.trim_end_matches([' ', '\n', '\r', '\t']))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_returned_in_order() {
        for (array, expected) in [
            ("[]", &[][..]),
            (" [ ] ", &[]),
            ("[1]", &["1"]),
            (
                "[ 1 ,\n\"a,]\\\"\" , {\"b\":[2,{}]} ,[[],[3]], null ]",
                &["1", "\"a,]\\\"\"", "{\"b\":[2,{}]}", "[[],[3]]", "null"],
            ),
            ("{\"a\":1}", &[]),
            ("\"[1]\"", &[]),
            ("7", &[]),
            ("", &[]),
        ] {
            assert_eq!(elements(array).collect::<Vec<_>>(), expected, "{array}");
        }
    }

    #[test]
    fn malformed_text_ends_the_elements() {
        for array in ["[1,", "[1", "[\"a", "[[1]", "[1,,2]", "[1}2]", "[,"] {
            assert!(elements(array).count() <= 3, "{array}");
        }
    }
}
