//! Validates a Secret with tokens.

use std::collections::BTreeMap;
use std::sync::Arc;

use flutecast_contract::document::token_sha256;

use super::{Checked, Validated};
use crate::finding::{Finding, Reason};
use crate::object::{Meta, Object, SecretData};

/// The shortest token. Sixteen random characters of base64 are 96 bits, too many to guess.
pub(crate) const SHORTEST_TOKEN: usize = 16;
/// The longest token, which has to fit into a header.
const LONGEST_TOKEN: usize = 4096;

/// The tokens of a Secret as digests. The tokens themselves are not kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ValidTokens {
    pub(crate) meta: Arc<Meta>,
    /// SHA-256 of each token in lower-case hexadecimal, by the token's name.
    pub(crate) digests: BTreeMap<String, String>,
}

/// Leaves out tokens that can't be used. No message shows any part of one.
pub(crate) fn validate(secret: &Object<SecretData>) -> Validated<ValidTokens> {
    let mut digests = BTreeMap::new();
    let mut findings = Vec::new();
    for (key, token) in &secret.spec.0 {
        match check_token(token) {
            Ok(token) => {
                digests.insert(key.clone(), token_sha256(token));
            }
            Err((reason, message)) => findings.push(Finding::new(reason, format!("data.{key}"), message)),
        }
    }
    Ok(Checked { value: ValidTokens { meta: secret.meta.clone(), digests }, findings })
}

fn check_token(token: &[u8]) -> Result<&str, (Reason, String)> {
    // `echo token | base64` adds a line break, which no client sends.
    let token = token.strip_suffix(b"\n").unwrap_or(token);
    let token = token.strip_suffix(b"\r").unwrap_or(token);
    let length = token.len();
    if length < SHORTEST_TOKEN {
        let message = format!(
            "the token has {length} characters; it needs {SHORTEST_TOKEN} at least, such as from openssl \
             rand -hex 24"
        );
        return Err((Reason::TokenTooShort, message));
    }
    match std::str::from_utf8(token) {
        Ok(text) if length <= LONGEST_TOKEN && token.iter().all(u8::is_ascii_graphic) => Ok(text),
        Ok(_) | Err(_) => {
            let message = format!(
                "the token needs to be {SHORTEST_TOKEN} to {LONGEST_TOKEN} visible ASCII characters without \
                 spaces"
            );
            Err((Reason::SecretInvalid, message))
        }
    }
}
