//! Reads an event stream with as little work as possible: a thousand of these share a machine with what they
//! measure.

use std::str;

/// A fault of a response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadAnswer {
    /// Not the status that was hoped for.
    #[error("status line {0:?}")]
    Status(String),
    /// The chunked encoding is broken.
    #[error("a chunk of size {0:?}")]
    Chunk(String),
}

/// One block of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block<'a> {
    /// The `event:` line; `None` in data events.
    pub(crate) event: Option<&'a str>,
    /// The `data:` line. Flutecast writes one for each event.
    pub(crate) data: &'a [u8],
}

/// Bytes of an HTTP/1.1 answer in, blocks out.
#[derive(Debug, Default)]
pub(crate) struct SseReader {
    head: Head,
    /// A line that isn't complete.
    line: Vec<u8>,
    event: Option<String>,
    data: Vec<u8>,
}

/// The reader's position in the response.
#[derive(Debug)]
enum Head {
    /// In the headers; what came of them.
    Headers(Vec<u8>),
    /// In a body that ends with the connection.
    Plain,
    /// In a body that comes in chunks.
    Chunked(Chunk),
}

impl Default for Head {
    fn default() -> Self {
        Self::Headers(Vec::new())
    }
}

/// The reader's position in a chunk.
#[derive(Debug)]
enum Chunk {
    /// In the line with its size.
    Size(Vec<u8>),
    /// In its data; so many bytes are left, the line end included.
    Data(usize),
}

/// The line end after a chunk's data.
const CHUNK_END: usize = 2;

impl SseReader {
    /// Takes bytes; `on_block` gets each block that they complete.
    pub(crate) fn push(
        &mut self,
        mut bytes: &[u8],
        on_block: &mut impl FnMut(Block<'_>),
    ) -> Result<(), BadAnswer> {
        while !bytes.is_empty() {
            match &mut self.head {
                Head::Headers(seen) => {
                    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
                        seen.extend_from_slice(bytes);
                        return Ok(());
                    };
                    seen.extend_from_slice(&bytes[..=end]);
                    bytes = &bytes[end + 1..];
                    if seen.ends_with(b"\r\n\r\n") {
                        self.head = body(seen)?;
                    }
                }
                Head::Plain => {
                    self.text(bytes, on_block);
                    return Ok(());
                }
                Head::Chunked(Chunk::Size(digits)) => {
                    let byte = bytes[0];
                    bytes = &bytes[1..];
                    if byte == b'\n' {
                        let size = chunk_size(digits)?;
                        self.head = Head::Chunked(Chunk::Data(size + CHUNK_END));
                    } else {
                        digits.push(byte);
                    }
                }
                Head::Chunked(Chunk::Data(left)) => {
                    let taken = bytes.len().min(*left);
                    let text = taken.min(left.saturating_sub(CHUNK_END));
                    *left -= taken;
                    if *left == 0 {
                        self.head = Head::Chunked(Chunk::Size(Vec::new()));
                    }
                    self.text(&bytes[..text], on_block);
                    bytes = &bytes[taken..];
                }
            }
        }
        Ok(())
    }

    fn text(&mut self, mut bytes: &[u8], on_block: &mut impl FnMut(Block<'_>)) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if self.line.is_empty() {
                self.whole_line(line, on_block);
            } else {
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                self.whole_line(&whole, on_block);
                whole.clear();
                self.line = whole;
            }
        }
        self.line.extend_from_slice(bytes);
    }

    fn whole_line(&mut self, line: &[u8], on_block: &mut impl FnMut(Block<'_>)) {
        if line.is_empty() {
            if !self.data.is_empty() {
                on_block(Block { event: self.event.as_deref(), data: &self.data });
            }
            self.event = None;
            self.data.clear();
        } else if let Some(data) = line.strip_prefix(b"data: ") {
            self.data.extend_from_slice(data);
        } else if let Some(event) = line.strip_prefix(b"event: ") {
            self.event = str::from_utf8(event).ok().map(str::to_owned);
        }
    }
}

/// Returns how the body is framed, by the headers.
fn body(headers: &[u8]) -> Result<Head, BadAnswer> {
    let headers = String::from_utf8_lossy(headers).to_ascii_lowercase();
    let status = headers.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(BadAnswer::Status(status.to_owned()));
    }
    let chunked =
        headers.lines().any(|line| line.starts_with("transfer-encoding:") && line.contains("chunked"));
    Ok(if chunked { Head::Chunked(Chunk::Size(Vec::new())) } else { Head::Plain })
}

fn chunk_size(digits: &[u8]) -> Result<usize, BadAnswer> {
    let bad = || BadAnswer::Chunk(String::from_utf8_lossy(digits).into_owned());
    let digits = str::from_utf8(digits).map_err(|_| bad())?;
    usize::from_str_radix(digits.trim_end_matches('\r'), 16).map_err(|_| bad())
}

/// The number after `"name":` in a data event, in which the field is known to be a whole number.
pub(crate) fn number_after(data: &[u8], key: &[u8]) -> Option<u64> {
    let at = data.windows(key.len()).position(|window| window == key)? + key.len();
    let digits = data[at..].iter().take_while(|byte| byte.is_ascii_digit());
    let mut number: Option<u64> = None;
    for digit in digits {
        number = number.unwrap_or_default().checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

    fn chunked(parts: &[&str]) -> String {
        let chunks: String = parts.iter().map(|part| format!("{:x}\r\n{part}\r\n", part.len())).collect();
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}")
    }

    /// Returns the events of a response that arrives in pieces of this size.
    fn read(answer: &str, piece: usize) -> Result<Vec<(Option<String>, String)>, BadAnswer> {
        let mut reader = SseReader::default();
        let mut blocks = Vec::new();
        for bytes in answer.as_bytes().chunks(piece) {
            reader.push(bytes, &mut |block: Block<'_>| {
                let data = String::from_utf8_lossy(block.data).into_owned();
                blocks.push((block.event.map(str::to_owned), data));
            })?;
        }
        Ok(blocks)
    }

    #[test]
    fn blocks_come_out_however_the_bytes_are_cut() {
        let text = "retry: 2000\n\nevent: hello\ndata: {\"a\":1}\n\nid: 5\n\nid: 6\ndata: {\"b\":2}\n\n";
        let expected = vec![(Some("hello".into()), "{\"a\":1}".into()), (None, "{\"b\":2}".into())];
        let plain = format!("{HEADERS}{text}");
        let in_chunks = chunked(&[&text[..7], &text[7..40], &text[40..41], &text[41..]]);
        for piece in [1, 2, 3, 7, 1000] {
            assert_eq!(read(&plain, piece).unwrap(), expected, "plain, {piece}");
            assert_eq!(read(&in_chunks, piece).unwrap(), expected, "chunked, {piece}");
        }
    }

    #[test]
    fn other_answers_are_refused() {
        let error = read("HTTP/1.1 401 Unauthorized\r\n\r\n{}", 5).unwrap_err();
        assert!(matches!(&error, BadAnswer::Status(line) if line.contains("401")), "{error}");
        let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n";
        assert_eq!(read(answer, 5).unwrap_err(), BadAnswer::Chunk("xyz\r".into()));
    }

    #[test]
    fn the_number_of_a_field_is_found() {
        let data = br#"{"device":"bench-0001","values":{"sent":1795341600123456,"seq":17,"speed":182.4}}"#;
        assert_eq!(number_after(data, b"\"sent\":"), Some(1_795_341_600_123_456));
        assert_eq!(number_after(data, b"\"seq\":"), Some(17));
        assert_eq!(number_after(data, b"\"none\":"), None);
        assert_eq!(number_after(b"{\"sent\":null}", b"\"sent\":"), None);
    }
}
