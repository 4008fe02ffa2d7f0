//! Parses arbitrary enrollment requests. Reply subjects contain nothing of a request but a safe token, and
//! each valid code has one.

#![no_main]

use flutecast_contract::enrollment::{EnrollmentRequest, ReplyToken};
use flutecast_contract::name::TenantName;
use flutecast_contract::subject;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let request = EnrollmentRequest::parse(data);
    let tenant = TenantName::new("acme").expect("a name");
    if let Some(token) = &request.token {
        let place = subject::enrolled(&tenant, token);
        assert_eq!(place.split('.').count(), 4, "{place}");
        assert!(place.bytes().all(|b| b.is_ascii_graphic() && !b"*>/+#".contains(&b)), "{place}");
    }
    match request.code {
        Ok(code) => assert!(request.token.is_some() && ReplyToken::encode(code.as_str()).is_some()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
