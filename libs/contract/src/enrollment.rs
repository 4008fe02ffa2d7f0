//! What a device sends when it asks for its topics, and where it hears the answer.
//!
//! A request comes from somebody who may not be known at all: whatever it holds, reading it neither panics
//! nor works longer than [`MAX_REQUEST_BYTES`] justifies, and nothing of it becomes part of a subject but a
//! [`ReplyToken`].

use std::fmt::{self, Write};

use serde::Deserialize;

use crate::name::{DeviceCode, InvalidName};

/// The longest request, in bytes. A code has at most 64, a token 192; the rest is for fields of the device's
/// own.
pub const MAX_REQUEST_BYTES: usize = 1024;
/// The longest text that a token is made of, in bytes: as long as a device code may be.
const MAX_CODE_BYTES: usize = 64;
/// The longest token that a request may name, in bytes.
const MAX_TOKEN_BYTES: usize = 64;

/// One token of a subject and one level of an MQTT topic, on which one device hears its answers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyToken(String);

impl ReplyToken {
    /// The token of a device code, or of any text that should have been one: letters, digits, `-`, `_` and
    /// `:` are themselves, every other byte is `=` and two upper-case hexadecimal digits (`a.b/c` is
    /// `a=2Eb=2Fc`). Two codes never share one, as no code contains `=`. None for an empty text and for one
    /// that is longer than a code may be.
    #[must_use]
    pub fn encode(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > MAX_CODE_BYTES {
            return None;
        }
        let mut token = String::with_capacity(text.len());
        for byte in text.bytes() {
            if is_plain(byte) {
                token.push(byte.into());
            } else {
                // Writing into a String can't fail.
                let _ = write!(token, "={byte:02X}");
            }
        }
        Some(Self(token))
    }

    /// A token that a request names.
    #[must_use]
    pub fn parse(token: &str) -> Option<Self> {
        let is_one = (1..=MAX_TOKEN_BYTES).contains(&token.len()) && token.bytes().all(is_plain);
        is_one.then(|| Self(token.to_owned()))
    }

    /// The token as it stands in a subject.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReplyToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_:".contains(&byte)
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrollmentRequest {
    /// Whose topics, or why that isn't clear.
    pub code: Result<DeviceCode, InvalidRequest>,
    /// Where somebody without a reply subject hears the answer: the token that the request names, else that
    /// of the code. None: nobody can be answered.
    pub token: Option<ReplyToken>,
}

/// Why a request can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// It is too long.
    #[error("the request has more than {MAX_REQUEST_BYTES} bytes; send {EXAMPLE}")]
    TooLong,
    /// It is neither text nor JSON.
    #[error("the request is neither JSON nor a bare device code in UTF-8; send {EXAMPLE}")]
    NotText,
    /// It begins like JSON, and isn't.
    #[error("the request is not the JSON that is expected ({0}); send {EXAMPLE}")]
    NotJson(String),
    /// It names no device.
    #[error("the request names no deviceCode; send {EXAMPLE}")]
    NoCode,
    /// The code can't be one.
    #[error(transparent)]
    Code(#[from] InvalidName),
    /// The token can't be one.
    #[error("replyToken needs 1 to 64 letters, digits, '-', '_' and ':'")]
    ReplyToken,
}

/// What a request looks like.
const EXAMPLE: &str = r#"{"deviceCode":"CORR-01"}"#;

/// A request as JSON. Fields that aren't here are the device's own business.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestBody {
    device_code: Option<String>,
    reply_token: Option<String>,
}

impl EnrollmentRequest {
    /// Reads a request: a JSON object, or the bare code.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Self {
        let nobody = |error| Self { code: Err(error), token: None };
        if payload.len() > MAX_REQUEST_BYTES {
            return nobody(InvalidRequest::TooLong);
        }
        let Ok(text) = std::str::from_utf8(payload) else { return nobody(InvalidRequest::NotText) };
        // Firmware in C sends the end of its strings as well.
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        if !text.starts_with('{') {
            return Self::new(text, None);
        }
        match serde_json::from_str(text) {
            Ok(RequestBody { device_code, reply_token }) => {
                Self::new(device_code.as_deref().unwrap_or_default(), reply_token.as_deref())
            }
            Err(error) => nobody(InvalidRequest::NotJson(error.to_string())),
        }
    }

    fn new(code: &str, token: Option<&str>) -> Self {
        let named = token.map(ReplyToken::parse);
        let parsed = match (&named, code) {
            (Some(None), _) => Err(InvalidRequest::ReplyToken),
            (_, "") => Err(InvalidRequest::NoCode),
            (_, code) => DeviceCode::new(code).map_err(InvalidRequest::Code),
        };
        Self { code: parsed, token: named.flatten().or_else(|| ReplyToken::encode(code)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(request: &str) -> Result<String, String> {
        let code = EnrollmentRequest::parse(request.as_bytes()).code;
        code.map(|code| code.to_string()).map_err(|error| error.to_string())
    }

    fn token(request: &str) -> Option<String> {
        EnrollmentRequest::parse(request.as_bytes()).token.map(|token| token.to_string())
    }

    #[test]
    fn a_code_comes_bare_or_in_json() {
        for request in [
            "CORR-01",
            " CORR-01\r\n",
            "CORR-01\0",
            r#"{"deviceCode":"CORR-01"}"#,
            r#"{"deviceCode":"CORR-01","fw":[1]}"#,
        ] {
            assert_eq!(
                (code(request), token(request)),
                (Ok("CORR-01".into()), Some("CORR-01".into())),
                "{request}"
            );
        }
        assert_eq!(token(r#"{"deviceCode":"a.b/c_d:e","replyToken":"mine-1"}"#), Some("mine-1".into()));
        assert_eq!(token("a.b/c_d:e"), Some("a=2Eb=2Fc_d:e".into()));
    }

    #[test]
    fn what_is_wrong_is_said_and_told_where_it_can_be() {
        for (request, says, answered_on) in [
            ("", "names no deviceCode", None),
            ("{}", "names no deviceCode", None),
            (r#"{"deviceCode":"","replyToken":"t"}"#, "names no deviceCode", Some("t")),
            ("{", "not the JSON that is expected", None),
            (r#"{"deviceCode":7}"#, "not the JSON that is expected", None),
            (r#"{"deviceCode":"A","deviceCode":"B"}"#, "duplicate field", None),
            ("CORR 01", "1 to 64 letters", Some("CORR=2001")),
            ("*.>", "1 to 64 letters", Some("=2A=2E=3E")),
            (r#"{"deviceCode":"A","replyToken":"a.b"}"#, "replyToken needs", Some("A")),
            (r#"{"deviceCode":"A","replyToken":""}"#, "replyToken needs", Some("A")),
        ] {
            let error = code(request).unwrap_err();
            assert!(error.contains(says), "{request}: {error}");
            assert_eq!(token(request).as_deref(), answered_on, "{request}");
        }
        assert_eq!(EnrollmentRequest::parse(b"\xff\xfe").code, Err(InvalidRequest::NotText));
        assert_eq!(
            EnrollmentRequest::parse(&[b'a'; MAX_REQUEST_BYTES + 1]).code,
            Err(InvalidRequest::TooLong)
        );
    }

    fn any_code() -> impl Strategy<Value = String> {
        "[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}"
    }

    proptest! {
        #[test]
        fn whatever_comes_nothing_but_a_token_becomes_part_of_a_subject(payload in prop::collection::vec(any::<u8>(), 0..1100)) {
            let request = EnrollmentRequest::parse(&payload);
            if let Some(token) = request.token {
                prop_assert!(!token.as_str().is_empty() && token.as_str().len() <= 3 * MAX_CODE_BYTES);
                prop_assert!(token.as_str().bytes().all(|b| is_plain(b) || b == b'='), "{}", token);
            }
        }

        #[test]
        fn each_code_is_read_and_can_be_answered(code in any_code()) {
            let json = serde_json::json!({"deviceCode": code}).to_string();
            for request in [code.clone(), json] {
                let request = EnrollmentRequest::parse(request.as_bytes());
                prop_assert_eq!(request.code.map(|read| read.to_string()), Ok(code.clone()));
                prop_assert_eq!(request.token, ReplyToken::encode(&code));
            }
        }

        #[test]
        fn two_texts_never_share_a_token(one in "[A-Z.=/ é]{1,12}", other in "[A-Z.=/ é]{1,12}") {
            prop_assert_eq!(ReplyToken::encode(&one) == ReplyToken::encode(&other), one == other);
        }
    }
}
