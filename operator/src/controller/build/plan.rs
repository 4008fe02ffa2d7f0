//! The streams, sources and consumers of a tenant.

use std::time::Duration;

use flutecast_contract::name::TenantName;
use flutecast_contract::subject;
use flutecast_crds as crds;
use flutecast_crds::Retention;
use flutecast_format::program::MAX_FIELDS;

use crate::controller::validate::tenant::{SourceIdPlace, ValidSource, ValidTenant};
use crate::jetstream::streams::{
    OnDelete, Owner, Reading, SPLIT_CONSUMER, SourceStream, Storage, StreamConfig, TenantStreams,
};

/// The default time for which NATS remembers message ids. It is shorter where messages are kept shorter.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// The size of a source's stream. Its messages are in the tenant's stream a moment later, so this has to last
/// only for as long as a reader may be away.
const SOURCE_MAX_BYTES: u64 = 64 << 20;
/// The most messages that are kept of one channel. One makes a value, and as many as a format may have fields
/// make a record.
const KEPT_MESSAGES: u64 = MAX_FIELDS as u64;
/// The most bytes of kept last values where the Tenant limits the bytes of its messages: NATS reserves them.
const KEPT_MAX_BYTES: u64 = 64 << 20;

pub(super) fn tenant_streams(tenant: &ValidTenant) -> TenantStreams {
    let ValidTenant {
        meta,
        name,
        display_name: _,
        retention,
        sources,
        access: _,
        enrollment: _,
        max_devices: _,
        max_clients: _,
    } = tenant;
    let base = base(retention);
    let stored = subject::stored_all(name);
    let mut sources: Vec<SourceStream> =
        sources.iter().map(|source| source_stream(tenant, &base, source)).collect();
    sources.sort_by(|one, other| one.source.cmp(&other.source));
    TenantStreams {
        tenant: name.clone(),
        owner: Owner {
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            installation: None,
        },
        on_delete: match retention.on_delete {
            crds::OnDelete::Delete => OnDelete::Delete,
            crds::OnDelete::Keep => OnDelete::Keep,
        },
        stream: StreamConfig {
            name: subject::stream(name),
            description: format!("Flutecast: the messages of tenant {name}"),
            subjects: vec![stored.clone()],
            allow_direct: true,
            republish: Some((stored, subject::live_all(name))),
            ..base.clone()
        },
        kept: kept(name, base),
        sources,
    }
}

/// Returns the settings that all streams of a tenant have in common.
fn base(retention: &Retention) -> StreamConfig {
    let Retention { max_age, max_messages_per_subject, max_bytes, storage, replicas, on_delete: _ } =
        retention;
    let max_age = Duration::from(*max_age);
    StreamConfig {
        name: String::new(),
        description: String::new(),
        subjects: Vec::new(),
        max_age: Some(max_age),
        max_messages_per_subject: Some(u64::from(*max_messages_per_subject)),
        max_bytes: max_bytes.map(crds::Quantity::bytes),
        storage: match storage {
            crds::Storage::File => Storage::File,
            crds::Storage::Memory => Storage::Memory,
        },
        replicas: *replicas,
        duplicate_window: max_age.min(DUPLICATE_WINDOW),
        allow_direct: false,
        allow_rollup: false,
        republish: None,
    }
}

/// Returns the stream of the last values. It has them until newer ones replace them, or their channel goes.
fn kept(tenant: &TenantName, base: StreamConfig) -> StreamConfig {
    StreamConfig {
        name: subject::kept_stream(tenant),
        description: format!("Flutecast: last values of tenant {tenant}"),
        subjects: vec![subject::kept_all(tenant)],
        max_age: None,
        max_messages_per_subject: Some(KEPT_MESSAGES),
        max_bytes: base.max_bytes.map(|bytes| bytes.min(KEPT_MAX_BYTES)),
        duplicate_window: DUPLICATE_WINDOW,
        allow_direct: true,
        allow_rollup: true,
        ..base
    }
}

fn source_stream(tenant: &ValidTenant, base: &StreamConfig, source: &ValidSource) -> SourceStream {
    let reading = match &source.id {
        SourceIdPlace::Subject { wildcard } => Reading::Transform {
            from: source.subject.to_string(),
            to: format!(
                "{}.{}.{{{{wildcard({wildcard})}}}}.{}",
                subject::STORED,
                tenant.name,
                source.channel
            ),
        },
        SourceIdPlace::Payload { .. } => Reading::Split { consumer: SPLIT_CONSUMER.to_owned() },
    };
    SourceStream {
        source: source.name.clone(),
        stream: StreamConfig {
            name: subject::source_stream(&tenant.name, &source.name),
            description: format!("Flutecast: source {} of tenant {}", source.name, tenant.name),
            subjects: vec![source.subject.to_string()],
            // Many devices may share one subject here, so a bound per subject would lose messages.
            max_messages_per_subject: None,
            max_bytes: Some(base.max_bytes.map_or(SOURCE_MAX_BYTES, |bytes| bytes.min(SOURCE_MAX_BYTES))),
            ..base.clone()
        },
        reading,
    }
}
