//! The lexer: strings, numbers, literals and white space of RFC 8259.

/// The deepest nesting of arrays and objects. Devices need a handful of levels; the limit bounds the memory.
pub const MAX_DEPTH: usize = 128;

/// The error for a payload that is not a JSON text in UTF-8, or is nested deeper than [`MAX_DEPTH`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not JSON, at byte {offset}")]
pub struct InvalidJson {
    /// The byte at which the error is detected.
    pub offset: usize,
}

/// A cursor in a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { bytes: text.as_bytes(), position: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    pub(super) fn malformed<T>(&self) -> Result<T, InvalidJson> {
        Err(InvalidJson { offset: self.position })
    }

    /// Skips white space and returns the next byte without consuming it.
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes.get(self.position)?;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.position += 1;
        }
    }

    /// Consumes the byte that [`Self::peek`] returned.
    pub(super) fn advance(&mut self) {
        self.position += 1;
    }

    /// Skips white space and consumes `byte`.
    pub(super) fn expect(&mut self, byte: u8) -> Result<(), InvalidJson> {
        if self.peek() == Some(byte) {
            self.position += 1;
            Ok(())
        } else {
            self.malformed()
        }
    }

    /// Consumes a string with its quotes. Returns whether it has escapes.
    pub(super) fn string(&mut self) -> Result<bool, InvalidJson> {
        self.expect(b'"')?;
        let mut escaped = false;
        loop {
            self.plain_characters();
            match self.bytes.get(self.position) {
                Some(b'"') => {
                    self.position += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.position += 1;
                    self.escape()?;
                }
                // A control character, or the end.
                _ => return self.malformed(),
            }
        }
    }

    /// Consumes the characters up to a quote, a backslash or a control character, eight bytes at a time.
    fn plain_characters(&mut self) {
        const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
        const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
        // The lowest high bit that is set belongs to the first zero byte of `word`; higher bits may be wrong.
        let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
        while let Some(Ok(chunk)) = self.bytes.get(self.position..self.position + 8).map(<[u8; 8]>::try_from)
        {
            // The first byte of the chunk is the lowest of the word.
            let word = u64::from_le_bytes(chunk);
            let quote = zeros(word ^ u64::from_ne_bytes([b'"'; 8]));
            let backslash = zeros(word ^ u64::from_ne_bytes([b'\\'; 8]));
            // A control character has none of its upper three bits set.
            let control = zeros(word & u64::from_ne_bytes([0xe0; 8]));
            let special = quote | backslash | control;
            if special != 0 {
                self.position += special.trailing_zeros() as usize / 8;
                return;
            }
            self.position += 8;
        }
        while let Some(&byte) = self.bytes.get(self.position) {
            if byte == b'"' || byte == b'\\' || byte < 0x20 {
                break;
            }
            self.position += 1;
        }
    }

    fn escape(&mut self) -> Result<(), InvalidJson> {
        match self.bytes.get(self.position) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.position += 1,
            Some(b'u') => {
                let digits = self.bytes.get(self.position + 1..self.position + 5);
                if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                    return self.malformed();
                }
                self.position += 5;
            }
            _ => return self.malformed(),
        }
        Ok(())
    }

    /// Consumes a number.
    pub(super) fn number(&mut self) -> Result<(), InvalidJson> {
        if self.bytes.get(self.position) == Some(&b'-') {
            self.position += 1;
        }
        if self.bytes.get(self.position) == Some(&b'0') {
            self.position += 1;
        } else {
            self.digits()?;
        }
        if self.bytes.get(self.position) == Some(&b'.') {
            self.position += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.position) {
            self.position += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.position) {
                self.position += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), InvalidJson> {
        let start = self.position;
        while self.bytes.get(self.position).is_some_and(u8::is_ascii_digit) {
            self.position += 1;
        }
        if self.position == start { self.malformed() } else { Ok(()) }
    }

    /// Consumes one of the words that programs write for numbers which JSON can't express, at `start`, where
    /// there is no number.
    #[cold]
    pub(super) fn not_finite(&mut self, start: usize) -> Result<(), InvalidJson> {
        const WORDS: [&str; 7] = ["NaN", "nan", "-nan", "Infinity", "-Infinity", "inf", "-inf"];
        let stopped = std::mem::replace(&mut self.position, start);
        if WORDS.iter().any(|word| self.literal(word).is_ok()) {
            return Ok(());
        }
        self.position = stopped;
        self.malformed()
    }

    /// Consumes `literal`.
    pub(super) fn literal(&mut self, literal: &str) -> Result<(), InvalidJson> {
        if self.bytes[self.position..].starts_with(literal.as_bytes()) {
            self.position += literal.len();
            Ok(())
        } else {
            self.malformed()
        }
    }
}

/// Returns whether all of `text` is a JSON number.
pub(super) fn is_number(text: &str) -> bool {
    let mut scanner = Scanner::new(text);
    scanner.number().is_ok() && scanner.position == text.len()
}
