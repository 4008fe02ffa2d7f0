//! Authorization: denied unless allowed.
//!
//! An [`Access`] is built from the access document and never changes; a new document makes a new one. It
//! decides for a tenant and a credential, and knows nothing of HTTP but origins. Tokens are not kept, only
//! their digests.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use flutecast_contract::document::{API_VERSION, AccessDocument, TenantAccess};
use flutecast_contract::name::{DeviceCode, TenantName};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

mod origin;
#[cfg(test)]
mod tests;

use origin::Origins;

/// The devices that a caller may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    All,
    Only(Arc<BTreeSet<DeviceCode>>),
}

impl Scope {
    pub(crate) fn allows(&self, code: &DeviceCode) -> bool {
        match self {
            Self::All => true,
            Self::Only(codes) => codes.contains(code),
        }
    }
}

/// The longest token accepted, in bytes; a JWT of a large organisation has about 4 KiB.
pub(crate) const MAX_TOKEN_BYTES: usize = 8 * 1024;

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    /// None, or one that can't be a token.
    None,
    /// The SHA-256 digest of a token.
    Token([u8; 32]),
}

impl Credential {
    pub(crate) fn token(token: &[u8]) -> Self {
        if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
            return Self::None;
        }
        Self::Token(Sha256::digest(token).into())
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Token(_) => "Token(…)",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) tenant: TenantName,
    pub(crate) scope: Scope,
}

/// The credential is not known to the tenant, or there is no such tenant; the error does not tell which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no token, or one that is not known here")]
pub(crate) struct Denied;

/// The rules of an access document. The default grants nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Access {
    tenants: HashMap<TenantName, TenantRules>,
}

#[derive(Debug, PartialEq, Eq)]
struct TenantRules {
    anonymous: bool,
    origins: Origins,
    tokens: Vec<TokenRule>,
}

#[derive(PartialEq, Eq)]
struct TokenRule {
    digest: [u8; 32],
    scope: Scope,
}

impl fmt::Debug for TokenRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRule").field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// An invalid part of an access document, which grants nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub(crate) struct BadAccess {
    /// The tenant and the token, in words.
    pub(crate) place: String,
    /// The problem, and what would be valid; never the digest.
    pub(crate) message: String,
}

impl Access {
    /// Reads a document. A token with an invalid digest grants nothing; the rest holds. It is an error if the
    /// version of the document isn't known.
    pub(crate) fn from_document(document: AccessDocument) -> Result<(Self, Vec<BadAccess>), BadAccess> {
        let AccessDocument { api_version, tenants: documents } = document;
        if api_version != API_VERSION {
            let message = format!("{api_version:?} is not known; this version reads {API_VERSION}");
            return Err(BadAccess { place: "apiVersion".to_owned(), message });
        }
        let mut problems = Vec::new();
        let mut tenants = HashMap::with_capacity(documents.len());
        for (name, document) in documents {
            let rules = TenantRules::from_document(&name, document, &mut problems);
            tenants.insert(name, rules);
        }
        Ok((Self { tenants }, problems))
    }

    /// Returns what the credential grants in the tenant. A missing tenant and an unknown token take the same
    /// work, except for the number of tokens.
    pub(crate) fn decide(&self, tenant: &str, credential: &Credential) -> Result<Grant, Denied> {
        let entry = self.tenants.get_key_value(tenant);
        let tokens = entry.map_or(&[][..], |(_, rules)| &rules.tokens);
        let found = match credential {
            Credential::None => None,
            Credential::Token(digest) => find(tokens, digest),
        };
        let (name, rules) = entry.ok_or(Denied)?;
        let scope = match found {
            _ if rules.anonymous => Scope::All,
            Some(token) => token.scope.clone(),
            None => return Err(Denied),
        };
        Ok(Grant { tenant: name.clone(), scope })
    }

    /// Returns whether a page of `origin` may read the tenant, through a server that the page calls `host`.
    pub(crate) fn allows_origin(&self, tenant: &TenantName, origin: &str, host: Option<&str>) -> bool {
        self.tenants.get(tenant).is_some_and(|rules| rules.origins.allow(origin, host))
    }

    pub(crate) fn has_tenant(&self, tenant: &TenantName) -> bool {
        self.tenants.contains_key(tenant)
    }

    pub(crate) fn tenants(&self) -> usize {
        self.tenants.len()
    }
}

impl TenantRules {
    fn from_document(tenant: &TenantName, document: TenantAccess, problems: &mut Vec<BadAccess>) -> Self {
        let TenantAccess { anonymous, allowed_origins, tokens: documents } = document;
        let mut tokens = Vec::with_capacity(documents.len());
        for (name, document) in documents {
            let Some(digest) = parse_digest(&document.sha256) else {
                problems.push(BadAccess {
                    place: format!("tenant {tenant}, token {name}"),
                    message: "its sha256 is not 64 lower-case hexadecimal digits; it opens nothing"
                        .to_owned(),
                });
                continue;
            };
            let scope = match document.devices {
                None => Scope::All,
                Some(codes) => Scope::Only(Arc::new(codes.into_iter().collect())),
            };
            tokens.push(TokenRule { digest, scope });
        }
        Self { anonymous, origins: Origins::new(&allowed_origins), tokens }
    }
}

fn parse_digest(text: &str) -> Option<[u8; 32]> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// Compares with every token, in a time that doesn't depend on which one matches.
fn find<'a>(tokens: &'a [TokenRule], digest: &[u8; 32]) -> Option<&'a TokenRule> {
    let mut position = 0_u32;
    let mut found = Choice::from(0);
    for (token, index) in tokens.iter().zip(0_u32..) {
        let equal = token.digest.ct_eq(digest);
        position.conditional_assign(&index, equal);
        found |= equal;
    }
    if bool::from(found) { tokens.get(position as usize) } else { None }
}
