//! The regular expressions of names and addresses, as the API server checks them (RE2).
//!
//! They say the same as the validated names of the mapping contract; a test compares the two.

/// A DNS label: the name of a tenant or of a source.
pub const DNS_LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// The name of a PushFormat: DNS labels with dots between them.
pub const FORMAT: &str = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$";
/// A DNS subdomain as Kubernetes takes it, whose parts may be longer than a DNS label: the name of a Secret.
pub const DNS_SUBDOMAIN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// A device code.
pub const DEVICE_CODE: &str = "^[A-Za-z0-9][A-Za-z0-9._:/-]*$";
/// A pinned iotId; empty means none.
pub const IOT_ID: &str = "^[A-Za-z0-9_-]*$";
/// A channel's name.
pub const CHANNEL: &str = "^[a-z][a-z0-9-]*$";
/// A field's name: what may stand behind `values.` in CEL.
pub const FIELD: &str = "^[A-Za-z_][A-Za-z0-9_]*$";
/// The value of a label; it may be empty.
pub const LABEL_VALUE: &str = "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$";
/// The key of a Secret: the name of a token.
pub const SECRET_KEY: &str = "^[A-Za-z0-9._-]+$";
/// A JSON pointer (RFC 6901); empty means the whole document.
pub const JSON_POINTER: &str = "^(/([^~/]|~[01])*)*$";
/// A NATS subject: tokens divided by dots, `*` for one token, `>` for the rest and only at the end.
pub const SUBJECT: &str = "^(\\*|[^\\s.*>]+)(\\.(\\*|[^\\s.*>]+))*(\\.>)?$";
/// A web origin, or `*`.
pub const ORIGIN: &str = "^(\\*|https?://[^\\s/?#@*]+)$";
