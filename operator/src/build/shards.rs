//! The mapping documents of one tenant.

use flutecast_mapping::document::{
    API_VERSION, IdKind, PayloadSourceDocument, ShardDocument, TenantSettings,
};
use flutecast_mapping::subject;

use super::claims::ClaimedDevice;
use super::devices::Mapped;
use super::plan::SPLIT_CONSUMER;
use crate::validate::tenant::{SourceIdPlace, ValidSource, ValidTenant};
use crate::verdict::Verdicts;

/// The shards of a tenant.
pub(super) fn documents(
    tenant: &ValidTenant,
    mapped: Mapped,
    _devices: &[ClaimedDevice],
    _verdicts: &mut Verdicts,
) -> Vec<ShardDocument> {
    let Mapped { devices, formats } = mapped;
    vec![ShardDocument {
        api_version: API_VERSION.to_owned(),
        tenant: tenant.name.clone(),
        shard: 0,
        shards: 1,
        revision: String::new(),
        settings: Some(settings(tenant)),
        formats,
        devices,
    }]
}

fn settings(tenant: &ValidTenant) -> TenantSettings {
    TenantSettings {
        display_name: tenant.display_name.clone(),
        stream: subject::stream(&tenant.name),
        max_clients: tenant.max_clients,
        sources: tenant.sources.iter().filter_map(|source| payload_source(tenant, source)).collect(),
    }
}

fn payload_source(tenant: &ValidTenant, source: &ValidSource) -> Option<PayloadSourceDocument> {
    let SourceIdPlace::Payload { pointer, kind, items } = &source.id else { return None };
    Some(PayloadSourceDocument {
        name: source.name.clone(),
        stream: subject::source_stream(&tenant.name, &source.name),
        consumer: SPLIT_CONSUMER.to_owned(),
        channel: source.channel.clone(),
        id_pointer: pointer.clone(),
        id_kind: match kind {
            flutecast_crds::IdKind::IotId => IdKind::IotId,
            flutecast_crds::IdKind::DeviceCode => IdKind::DeviceCode,
        },
        items: items.clone(),
    })
}
