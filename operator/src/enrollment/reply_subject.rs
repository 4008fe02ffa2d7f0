//! The subject of a reply. The operator may publish almost anywhere, and devices may not: so replies go only
//! to subjects for replies, never to one that the request chose freely.

use flutecast_contract::enrollment::ReplyToken;
use flutecast_contract::name::TenantName;
use flutecast_contract::subject;

/// In bytes. The reply subject of a client has about 50.
const MAX_LENGTH: usize = 256;

/// Returns the subject of the reply; `None` if there is no permitted one. `reply` is the reply subject that
/// NATS delivered with the request.
pub(super) fn reply_subject(
    tenant: &TenantName,
    reply: Option<&str>,
    token: Option<&ReplyToken>,
) -> Option<String> {
    let requested = reply.filter(|reply| is_permitted(tenant, reply)).map(str::to_owned);
    requested.or_else(|| token.map(|token| subject::enrolled(tenant, token)))
}

fn is_permitted(tenant: &TenantName, reply: &str) -> bool {
    let is_literal = |token: &str| {
        !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic() && b != b'*' && b != b'>')
    };
    if reply.len() > MAX_LENGTH || !reply.split('.').all(is_literal) {
        return false;
    }
    // A request that came through a gateway between NATS clusters has two routing tokens before the subject.
    let target = match reply.strip_prefix("_GR_.") {
        Some(routed) => routed.splitn(3, '.').nth(2).unwrap_or_default(),
        None => reply,
    };
    let enrolled = format!("flutecast.{tenant}.enrolled.");
    // `_INBOX.…` of a client, `_INBOX_acme.…` where users are separated, `_R_.…` for a request from another
    // account.
    (target.starts_with("_INBOX") && target.contains('.'))
        || target.starts_with("_R_.")
        || target.strip_prefix(&enrolled).is_some_and(|token| !token.is_empty() && !token.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_go_only_to_subjects_for_replies() {
        let tenant = TenantName::new("acme").unwrap();
        let token = ReplyToken::encode("CORR-01").unwrap();
        let own = "flutecast.acme.enrolled.CORR-01";
        for good in [
            "_INBOX.a.b",
            "_INBOX_acme.x",
            "_R_.abc.x",
            "_GR_.c1.s1._INBOX.a.b",
            "flutecast.acme.enrolled.other",
        ] {
            assert_eq!(reply_subject(&tenant, Some(good), Some(&token)).as_deref(), Some(good));
        }
        for bad in [
            "iot.acme.k3v5.power",
            "live.acme.k3v5.power",
            "$JS.API.STREAM.DELETE.IOT_acme",
            "flutecast.acme.enroll",
            "flutecast.other.enrolled.x",
            "flutecast.acme.enrolled",
            "flutecast.acme.enrolled.",
            "flutecast.acme.enrolled.a.b",
            "flutecast.acme.enrolled.*",
            "_GR_.c1.s1.iot.acme.k3v5.power",
            "_GR_.c1",
            "_INBOX",
            "_INBOX.*",
            "_INBOX.a\r\nPUB x",
            "_INBOX..a",
            "",
            &format!("_INBOX.{}", "a".repeat(300)),
        ] {
            assert_eq!(reply_subject(&tenant, Some(bad), Some(&token)).as_deref(), Some(own), "{bad}");
            assert_eq!(reply_subject(&tenant, Some(bad), None), None, "{bad}");
        }
        assert_eq!(reply_subject(&tenant, None, Some(&token)).as_deref(), Some(own));
    }
}
