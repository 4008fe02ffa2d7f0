//! The request of a device for its topics, and the token of the subject on which it gets the reply.
//!
//! Requests are untrusted: parsing never panics, is bounded by [`MAX_REQUEST_BYTES`], and lets nothing but a
//! [`ReplyToken`] into a subject.

use std::fmt::{self, Write};

use serde::Deserialize;

use crate::name::{DeviceCode, InvalidName};

/// The longest accepted request, in bytes. A code and a token have at most 64 each; further fields are
/// allowed.
pub const MAX_REQUEST_BYTES: usize = 1024;
/// In bytes, as for a device code.
const MAX_CODE_BYTES: usize = 64;
/// In bytes. Only tokens that a request names; an encoded code may have three times as many.
const MAX_TOKEN_BYTES: usize = 64;

/// The last token of the subject, and level of the MQTT topic, on which a device gets its reply.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyToken(String);

impl ReplyToken {
    /// Encodes a device code, or any text that should have been one: letters, digits, `-`, `_` and `:` stay,
    /// every other byte becomes `=` and two upper-case hexadecimal digits (`a.b/c` becomes `a=2Eb=2Fc`). No
    /// two codes share a token, as no code contains `=`. `None` if `text` is empty or longer than a code.
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

    /// Parses a token that a request names. `None` if it is not valid.
    #[must_use]
    pub fn parse(token: &str) -> Option<Self> {
        let is_one = (1..=MAX_TOKEN_BYTES).contains(&token.len()) && token.bytes().all(is_plain);
        is_one.then(|| Self(token.to_owned()))
    }

    /// Returns the token as it stands in a subject.
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

/// A request of a device for its topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrollmentRequest {
    /// The code of the device, or why the request is invalid.
    pub code: Result<DeviceCode, InvalidRequest>,
    /// The token that the request names, else that of the code; used if the request has no reply subject.
    /// `None` if the request holds neither.
    pub token: Option<ReplyToken>,
}

/// Why a request is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// The request is longer than [`MAX_REQUEST_BYTES`].
    #[error("the request has more than {MAX_REQUEST_BYTES} bytes; send {EXAMPLE}")]
    TooLong,
    /// The request is not UTF-8.
    #[error("the request is neither JSON nor a bare device code in UTF-8; send {EXAMPLE}")]
    NotText,
    /// The request starts with `{` and is not the expected JSON object.
    #[error("the request is not the JSON that is expected ({0}); send {EXAMPLE}")]
    NotJson(String),
    /// The request holds no device code.
    #[error("the request names no deviceCode; send {EXAMPLE}")]
    NoCode,
    /// The request holds an invalid device code.
    #[error(transparent)]
    Code(#[from] InvalidName),
    /// The request names an invalid reply token.
    #[error("replyToken needs 1 to 64 letters, digits, '-', '_' and ':'")]
    ReplyToken,
}

const EXAMPLE: &str = r#"{"deviceCode":"CORR-01"}"#;

/// A request as JSON. Other fields are ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestBody {
    device_code: Option<String>,
    reply_token: Option<String>,
}

impl EnrollmentRequest {
    /// Parses a request: a JSON object, or the bare code.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Self {
        let invalid = |error| Self { code: Err(error), token: None };
        if payload.len() > MAX_REQUEST_BYTES {
            return invalid(InvalidRequest::TooLong);
        }
        let Ok(text) = std::str::from_utf8(payload) else { return invalid(InvalidRequest::NotText) };
        // Firmware in C also sends the NUL at the end of its strings.
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        if !text.starts_with('{') {
            return Self::new(text, None);
        }
        match serde_json::from_str(text) {
            Ok(RequestBody { device_code, reply_token }) => {
                Self::new(device_code.as_deref().unwrap_or_default(), reply_token.as_deref())
            }
            Err(error) => invalid(InvalidRequest::NotJson(error.to_string())),
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
    fn a_code_is_sent_bare_or_in_json() {
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
    fn an_invalid_request_has_an_error_and_a_token_where_possible() {
        for (request, message, expected_token) in [
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
            assert!(error.contains(message), "{request}: {error}");
            assert_eq!(token(request).as_deref(), expected_token, "{request}");
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
        fn tokens_of_arbitrary_requests_are_safe_in_subjects(
            payload in prop::collection::vec(any::<u8>(), 0..1100),
        ) {
            let request = EnrollmentRequest::parse(&payload);
            if let Some(token) = request.token {
                prop_assert!(!token.as_str().is_empty() && token.as_str().len() <= 3 * MAX_CODE_BYTES);
                prop_assert!(token.as_str().bytes().all(|b| is_plain(b) || b == b'='), "{}", token);
            }
        }

        #[test]
        fn each_code_is_parsed_and_has_its_token(code in any_code()) {
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
