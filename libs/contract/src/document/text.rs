//! Reads and writes the documents as YAML.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{API_VERSION, AccessDocument, ShardDocument};

/// The longest text that is parsed, in bytes: four times what a Secret or a ConfigMap holds.
pub const MAX_TEXT: usize = 4 << 20;

/// Why a text is not a document of this version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDocument {
    /// The text is longer than [`MAX_TEXT`]; the length in bytes.
    #[error("it is {0} bytes long; a document has at most {MAX_TEXT}")]
    TooLong(usize),
    /// `apiVersion` is not [`API_VERSION`]; its value, cut to 80 characters.
    #[error("apiVersion {0:?} is not known; this version reads {API_VERSION:?}")]
    ApiVersion(String),
    /// The text is not YAML, or a field is missing or of the wrong type.
    #[error("{0}")]
    Yaml(String),
    /// Fields contradict each other.
    #[error("{0}")]
    Contradiction(String),
}

impl ShardDocument {
    /// The document as YAML. The same document gives the same bytes.
    ///
    /// # Errors
    /// None that a document of this type can cause; the serializer's signature has one.
    pub fn to_yaml(&self) -> Result<String, InvalidDocument> {
        write(self)
    }

    /// Parses a document. Unknown fields are ignored.
    ///
    /// The revision is not verified; to do so, compare it with [`crate::shard::revision`].
    ///
    /// # Errors
    /// [`InvalidDocument`], with line and column for [`InvalidDocument::Yaml`].
    pub fn from_yaml(text: &str) -> Result<Self, InvalidDocument> {
        let document: Self = read(text, |error| error.to_string())?;
        let Self { shard, shards, settings, .. } = &document;
        if shard >= shards {
            return Err(InvalidDocument::Contradiction(format!("there is no shard {shard} of {shards}")));
        }
        if settings.is_some() != (*shard == 0) {
            let problem = if *shard == 0 { "shard 0 has no settings" } else { "only shard 0 has settings" };
            return Err(InvalidDocument::Contradiction(problem.into()));
        }
        Ok(document)
    }
}

impl AccessDocument {
    /// The document as YAML. The same document gives the same bytes.
    ///
    /// # Errors
    /// None that a document of this type can cause; the serializer's signature has one.
    pub fn to_yaml(&self) -> Result<String, InvalidDocument> {
        write(self)
    }

    /// Parses a document. Unknown fields are ignored.
    ///
    /// # Errors
    /// [`InvalidDocument`] with line and column only. The message holds no part of the text, since a token
    /// may have been pasted into the wrong place.
    pub fn from_yaml(text: &str) -> Result<Self, InvalidDocument> {
        read(text, |error| match error.location() {
            Some(at) => format!("line {} column {}: this is no access document", at.line(), at.column()),
            None => "this is no access document".into(),
        })
    }
}

/// Returns the SHA-256 of a token in the form of [`super::TokenAccess::sha256`].
#[must_use]
pub fn token_sha256(token: &str) -> String {
    use sha2::{Digest, Sha256};
    data_encoding::HEXLOWER.encode(&Sha256::digest(token))
}

fn write(document: &impl Serialize) -> Result<String, InvalidDocument> {
    serde_yaml::to_string(document).map_err(|error| InvalidDocument::Yaml(error.to_string()))
}

/// Parsed before the other fields, whose form depends on it.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Versioned {
    api_version: String,
}

fn read<D: DeserializeOwned>(
    text: &str,
    tell: fn(&serde_yaml::Error) -> String,
) -> Result<D, InvalidDocument> {
    if text.len() > MAX_TEXT {
        return Err(InvalidDocument::TooLong(text.len()));
    }
    let options = serde_yaml::options! { with_snippet: false };
    let failed = |error| InvalidDocument::Yaml(tell(&error));
    let Versioned { api_version } =
        serde_yaml::from_str_with_options(text, options.clone()).map_err(failed)?;
    if api_version != API_VERSION {
        return Err(InvalidDocument::ApiVersion(api_version.chars().take(80).collect()));
    }
    serde_yaml::from_str_with_options(text, options).map_err(failed)
}
