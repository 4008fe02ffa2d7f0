//! The Kubernetes API of Flutecast: [`Tenant`], [`Device`] and [`PushFormat`] in group `flutecast.io`,
//! version `v1alpha1`.
//!
//! The types define what users write and what the API server stores. The schema (patterns, bounds, CEL rules)
//! validates everything that depends on one object alone; the operator validates the rest. This crate does no
//! I/O and knows nothing of NATS or of the mapping documents.

pub mod condition;
pub mod definition;
pub mod device;
pub mod duration;
pub mod enrollment;
pub mod pattern;
pub mod push_format;
pub mod quantity;
pub mod reference;
pub mod tenant;

pub use device::{Device, DeviceChannel, DeviceSpec, DeviceStatus, Presence};
pub use duration::Duration;
pub use enrollment::{DeviceTemplate, EnrollmentPolicy, EnrollmentSpec};
pub use push_format::{
    Codec, DeliveryPolicy, DeliverySpec, FieldSpec, FieldType, FormatVersion, PushFormat, PushFormatSpec,
    PushFormatStatus, RecordSpec, TimestampSpec, TimestampUnit,
};
pub use quantity::Quantity;
pub use tenant::{
    AccessSpec, IdKind, OnDelete, Quota, RestrictedToken, Retention, SourceId, SourceSpec, Storage, Tenant,
    TenantSpec, TenantStatus, TokensSpec,
};

/// The API group of all kinds.
pub const GROUP: &str = "flutecast.io";
/// The version of all kinds.
pub const VERSION: &str = "v1alpha1";
/// The `apiVersion` of manifests.
pub const API_VERSION: &str = "flutecast.io/v1alpha1";
