//! Records and what their tenant's stream keeps: pods that were there must forget a field when the stream
//! does, or a screen that comes later shows less than the others.

use flutecast_contract::document::FormatDocument;
use flutecast_contract::tail;
use flutecast_crds::Duration;

use super::formats::FormatInForce;
use crate::controller::validate::device::ValidChannel;
use crate::controller::validate::tenant::ValidTenant;
use crate::finding::{Finding, Reason};
use crate::object::Kind;

/// Returns the format as the tenant's pods use it: a record forgets a field after `retention.maxAge` at the
/// latest.
pub(super) fn within_retention(tenant: &ValidTenant, mut format: FormatDocument) -> FormatDocument {
    if let Some(record) = &mut format.record {
        let most = tenant.retention.max_age.as_millis();
        record.expire_fields_ms = Some(record.expire_fields_ms.map_or(most, |wanted| wanted.min(most)));
    }
    format
}

/// Returns what a channel's record needs and the tenant's stream does not keep.
///
/// Of a version that is not what its PushFormat says now, nobody can tell which `expireFields` was wanted:
/// what is read back from the mapping is shortened.
pub(super) fn findings(tenant: &ValidTenant, channel: &ValidChannel, format: &FormatInForce) -> Vec<Finding> {
    let Some(record) = &format.document.record else { return Vec::new() };
    let retention = &tenant.retention;
    let object = tenant.meta.object_ref(Kind::Tenant);
    let max_age = retention.max_age;
    let kept = retention.max_messages_per_subject;
    let needed = tail::MESSAGES;
    let wanted = record.expire_fields_ms.filter(|wanted| format.is_current && *wanted > max_age.as_millis());
    let shorter = wanted.map(|wanted| {
        let wanted = Duration::from_millis(wanted);
        format!(
            "the record of PushFormat/{} keeps fields for {wanted} (record.expireFields), but {object} keeps \
             messages for {max_age} only, after which fields are left out; raise retention.maxAge to \
             {wanted}, or lower expireFields",
            channel.format.as_str()
        )
    });
    let fewer = (usize::try_from(kept).is_ok_and(|kept| kept < needed)).then(|| {
        format!(
            "the record of PushFormat/{} is merged from the newest {needed} messages of the channel, but \
             {object} keeps {kept} only: a screen that is opened later may lack fields that others show; \
             raise retention.maxMessagesPerSubject to {needed}",
            channel.format.as_str()
        )
    });
    let field = format!("{}.format", channel.path);
    let messages = shorter.into_iter().chain(fewer);
    messages.map(|message| Finding::new(Reason::RecordOutlivesRetention, field.clone(), message)).collect()
}
