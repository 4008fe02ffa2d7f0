//! Where an answer goes. The operator may publish almost anywhere, and whoever asks may not: so an answer
//! goes only to where answers are heard, never to a subject that the question chose freely.

use flutecast_contract::enrollment::Token;
use flutecast_contract::name::TenantName;
use flutecast_contract::subject;

/// The longest reply subject, in bytes. That of a client is about 50.
const LONGEST: usize = 256;

/// The subject that an answer goes to; none: nobody can be answered. `reply` is the one that NATS delivered
/// with the question.
#[must_use]
pub fn place(tenant: &TenantName, reply: Option<&str>, token: Option<&Token>) -> Option<String> {
    let wished = reply.filter(|reply| may_answer(tenant, reply)).map(str::to_owned);
    wished.or_else(|| token.map(|token| subject::enrolled(tenant, token)))
}

fn may_answer(tenant: &TenantName, reply: &str) -> bool {
    let is_literal = |token: &str| {
        !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic() && b != b'*' && b != b'>')
    };
    if reply.len() > LONGEST || !reply.split('.').all(is_literal) {
        return false;
    }
    // A question that came through a gateway between NATS clusters carries its way back, two tokens, before
    // the subject.
    let target = match reply.strip_prefix("_GR_.") {
        Some(routed) => routed.splitn(3, '.').nth(2).unwrap_or_default(),
        None => reply,
    };
    let enrolled = format!("flutecast.{tenant}.enrolled.");
    // `_INBOX.…` of a client, `_INBOX_acme.…` where users are kept apart, `_R_.…` for a question from another
    // account.
    (target.starts_with("_INBOX") && target.contains('.'))
        || target.starts_with("_R_.")
        || target.strip_prefix(&enrolled).is_some_and(|token| !token.is_empty() && !token.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_go_only_where_answers_are_heard() {
        let tenant = TenantName::new("acme").unwrap();
        let token = Token::of("CORR-01").unwrap();
        let own = "flutecast.acme.enrolled.CORR-01";
        for good in [
            "_INBOX.a.b",
            "_INBOX_acme.x",
            "_R_.abc.x",
            "_GR_.c1.s1._INBOX.a.b",
            "flutecast.acme.enrolled.other",
        ] {
            assert_eq!(place(&tenant, Some(good), Some(&token)).as_deref(), Some(good));
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
            assert_eq!(place(&tenant, Some(bad), Some(&token)).as_deref(), Some(own), "{bad}");
            assert_eq!(place(&tenant, Some(bad), None), None, "{bad}");
        }
        assert_eq!(place(&tenant, None, Some(&token)).as_deref(), Some(own));
    }
}
