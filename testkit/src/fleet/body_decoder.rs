//! Decodes the body of an HTTP/1.1 response. Uses little CPU and memory, since thousands of clients run on
//! the same machine as the programs under test.

use std::str;

/// Why a response is not a readable event stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BadAnswer {
    /// The response is not an event stream with status 200; holds its status, 0 if it is unreadable.
    Status(u16),
    /// The head is too long or the chunked encoding is invalid.
    Encoding,
}

/// A decoder for one response; the variants are its states.
#[derive(Debug)]
pub(super) enum BodyDecoder {
    /// In the head, with its bytes so far.
    Head(Vec<u8>),
    /// In a body without chunks, which ends with the connection.
    Plain,
    /// In the line with the size of a chunk.
    Size(usize, Digits),
    /// In a chunk, with the number of bytes left of its data and of its line ending.
    Data(usize, usize),
    /// After the last chunk.
    Ended,
}

/// The part of a chunk's first line that is being read: its size, or the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Digits {
    Reading,
    Over,
}

/// The largest accepted head, in bytes.
const LARGEST_HEAD: usize = 64 * 1024;
/// The length of the line ending after a chunk, in bytes.
const CHUNK_END: usize = 2;

impl Default for BodyDecoder {
    fn default() -> Self {
        Self::Head(Vec::new())
    }
}

impl BodyDecoder {
    /// Decodes more bytes and passes those of the body to `on_body`.
    pub(super) fn push(
        &mut self,
        mut bytes: &[u8],
        on_body: &mut impl FnMut(&[u8]),
    ) -> Result<(), BadAnswer> {
        while let Some((&first, rest)) = bytes.split_first() {
            match self {
                Self::Head(head) => {
                    head.push(first);
                    bytes = rest;
                    if head.ends_with(b"\r\n\r\n") {
                        *self = after_head(head)?;
                    } else if head.len() > LARGEST_HEAD {
                        return Err(BadAnswer::Encoding);
                    }
                }
                Self::Plain => {
                    on_body(bytes);
                    return Ok(());
                }
                Self::Size(size, digits) => {
                    bytes = rest;
                    match (first, &digits) {
                        (b'\n', _) if *size == 0 => *self = Self::Ended,
                        (b'\n', _) => *self = Self::Data(*size, CHUNK_END),
                        (b'\r' | b';', _) => *digits = Digits::Over,
                        (_, Digits::Over) => {}
                        (digit, Digits::Reading) => {
                            let digit = char::from(digit).to_digit(16).ok_or(BadAnswer::Encoding)?;
                            let larger =
                                size.checked_mul(16).and_then(|size| size.checked_add(digit as usize));
                            *size = larger.ok_or(BadAnswer::Encoding)?;
                        }
                    }
                }
                Self::Data(0, 0) => *self = Self::Size(0, Digits::Reading),
                Self::Data(0, end) => {
                    *end -= 1;
                    bytes = rest;
                }
                Self::Data(left, _) => {
                    let (data, rest) = bytes.split_at(bytes.len().min(*left));
                    *left -= data.len();
                    bytes = rest;
                    on_body(data);
                }
                // The empty line after the last chunk.
                Self::Ended => return Ok(()),
            }
        }
        Ok(())
    }

    /// Returns whether the head is complete and describes an event stream.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self, Self::Head(_))
    }

    /// Returns whether the last chunk has arrived.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }
}

fn after_head(head: &[u8]) -> Result<BodyDecoder, BadAnswer> {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let has = |name: &str, word: &str| {
        head.lines().any(|line| line.strip_prefix(name).is_some_and(|value| value.contains(word)))
    };
    if status != 200 || !has("content-type:", "text/event-stream") {
        return Err(BadAnswer::Status(status));
    }
    Ok(if has("transfer-encoding:", "chunked") {
        BodyDecoder::Size(0, Digits::Reading)
    } else {
        BodyDecoder::Plain
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n";

    /// Returns the body and whether it has ended, with the response cut into pieces of this size.
    fn read(answer: &str, piece: usize) -> Result<(String, bool), BadAnswer> {
        let (mut reader, mut body) = (BodyDecoder::default(), Vec::new());
        for bytes in answer.as_bytes().chunks(piece) {
            reader.push(bytes, &mut |bytes| body.extend_from_slice(bytes))?;
        }
        Ok((String::from_utf8(body).unwrap(), reader.has_ended()))
    }

    #[test]
    fn the_body_comes_out_however_the_bytes_are_cut() {
        let plain = format!("{HEAD}\r\ndata: 1\n\ndata: 2\n\n");
        let chunked = format!(
            "{HEAD}Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n00A;x=1\r\ndata: 22\n\n\r\n0\r\n\r\n"
        );
        for piece in [1, 2, 3, 7, 1_000] {
            assert_eq!(read(&plain, piece).unwrap(), ("data: 1\n\ndata: 2\n\n".into(), false), "{piece}");
            assert_eq!(read(&chunked, piece).unwrap(), ("data: 1\n\ndata: 22\n\n".into(), true), "{piece}");
        }
    }

    #[test]
    fn other_responses_are_refused() {
        for (head, error) in [
            ("HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\n\r\n", BadAnswer::Status(502)),
            ("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n", BadAnswer::Status(200)),
            ("nonsense\r\n\r\n", BadAnswer::Status(0)),
        ] {
            assert_eq!(read(head, 5).unwrap_err(), error);
        }
        let broken = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\nxyz\r\n");
        assert_eq!(read(&broken, 5).unwrap_err(), BadAnswer::Encoding);
    }
}
