//! The regular expressions (RE2) of names and addresses in the schemas.
//!
//! They accept the same strings as the name types of `flutecast_contract`; a test compares the two.

/// A DNS label: the name of a tenant or of a source.
pub const DNS_LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// The name of a PushFormat: DNS labels with dots between them.
pub const FORMAT: &str = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$";
/// A DNS subdomain as Kubernetes accepts it, with parts that may be longer than a DNS label: the name of a
/// Secret.
pub const DNS_SUBDOMAIN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// A device code.
pub const DEVICE_CODE: &str = "^[A-Za-z0-9][A-Za-z0-9._:/-]*$";
/// A pinned iotId; empty for the generated one.
pub const IOT_ID: &str = "^[A-Za-z0-9_-]*$";
/// The name of a channel.
pub const CHANNEL: &str = "^[a-z][a-z0-9-]*$";
/// The name of a field, which follows `values.` in CEL.
pub const FIELD: &str = "^[A-Za-z_][A-Za-z0-9_]*$";
/// The value of a label; may be empty.
pub const LABEL_VALUE: &str = "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$";
/// A key of a Secret: the name of a token.
pub const SECRET_KEY: &str = "^[A-Za-z0-9._-]+$";
/// A JSON pointer (RFC 6901); empty for the whole document.
pub const JSON_POINTER: &str = "^(/([^~/]|~[01])*)*$";
/// A NATS subject: tokens with dots between them, `*` for one token, `>` at the end for all further ones.
pub const SUBJECT: &str = "^(\\*|[^\\s.*>]+)(\\.(\\*|[^\\s.*>]+))*(\\.>)?$";
/// A web origin, or `*`.
pub const ORIGIN: &str = "^(\\*|https?://[^\\s/?#@*]+)$";
