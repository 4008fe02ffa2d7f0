//! The mapping documents of one tenant.

use std::sync::Arc;

use flutecast_contract::document::{IdKind, PayloadSourceDocument, ShardDocument, TenantSettings};
use flutecast_contract::{shard, subject};

use super::claims::ClaimedDevice;
use super::devices::DeviceDocuments;
use crate::controller::validate::tenant::{SourceIdPlace, ValidSource, ValidTenant};
use crate::finding::{Finding, Outcomes, Reason};
use crate::jetstream::streams::SPLIT_CONSUMER;

/// Returns the shards of a tenant. A device that fits into none is refused.
pub(super) fn documents(
    tenant: &ValidTenant,
    built: &DeviceDocuments,
    devices: &[ClaimedDevice],
    outcomes: &mut Outcomes,
) -> Vec<Arc<ShardDocument>> {
    let DeviceDocuments { devices: documents, formats } = built;
    let split = shard::split(&tenant.name, &settings(tenant), formats, documents);
    for refused in split.oversized {
        let message = format!("{refused}; use fewer channels, or smaller formats");
        if let Some(claimed) = devices.iter().find(|claimed| claimed.iot_id == refused.iot_id) {
            outcomes.refuse(
                &claimed.object_ref(),
                Finding::new(Reason::DeviceTooLarge, "spec.channels", message),
            );
        }
    }
    split.shards.into_iter().map(Arc::new).collect()
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
