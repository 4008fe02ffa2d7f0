use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::name::{ChannelName, IotId};
use proptest::prelude::*;

use super::*;
use crate::enrollment::policy::{CodePattern, Enrollment};

fn code(code: &str) -> DeviceCode {
    DeviceCode::new(code).unwrap()
}

fn mapped() -> DeviceEntry {
    let channels: Arc<[ChannelName]> = [ChannelName::new("power").unwrap()].into();
    DeviceEntry::Mapped { iot_id: IotId::new("k3v5").unwrap(), channels }
}

fn waiting(why: Option<&str>) -> DeviceEntry {
    DeviceEntry::Pending { object: "Device/d".into(), problem: why.map(str::to_owned) }
}

fn directory(creation: CreationPolicy, max_devices: Option<u32>) -> TenantDirectory {
    TenantDirectory {
        namespace: "default".into(),
        has_stream: true,
        enrollment: Enrollment { creation, max_devices },
        devices: [
            (code("A"), mapped()),
            (code("B"), waiting(Some("QuotaExceeded: full"))),
            (code("C"), waiting(None)),
        ]
        .into(),
    }
}

fn created() -> CreationPolicy {
    let code_pattern = Some(CodePattern::new("[A-Z][0-9]*").unwrap());
    CreationPolicy::Create(Template { code_pattern, ..Template::default() })
}

fn admission(now: Instant) -> Admission {
    Admission::new(TenantName::new("acme").unwrap(), now)
}

fn decide(
    admission: &mut Admission,
    directory: &TenantDirectory,
    request: &str,
    may_create: bool,
    now: Instant,
) -> Decision {
    admission.decide(
        directory,
        EnrollmentRequest::parse(request.as_bytes()),
        Some("_INBOX.x".into()),
        may_create,
        now,
    )
}

/// The decision in a word.
fn word(decision: &Decision) -> String {
    match decision {
        Decision::Reply { reply: Ok(_), .. } => "Topics".into(),
        Decision::Reply { reply: Err(refusal), .. } => format!("{:?}", refusal.reason),
        Decision::Create { .. } => "Create".into(),
        Decision::Wait => "Wait".into(),
        Decision::Drop => "Drop".into(),
    }
}

#[test]
fn each_request_has_its_decision() {
    let now = Instant::now();
    for (creation, most, may_create, request, expected) in [
        (CreationPolicy::Refuse, None, true, "A", "Topics"),
        (CreationPolicy::Refuse, None, true, "B", "NotReady"),
        (CreationPolicy::Refuse, None, true, "C", "Pending"),
        (CreationPolicy::Refuse, None, true, "D", "UnknownDevice"),
        (CreationPolicy::Refuse, None, true, "", "InvalidRequest"),
        (CreationPolicy::Refuse, None, true, "*", "InvalidCode"),
        (CreationPolicy::Blocked, None, true, "A", "Topics"),
        (CreationPolicy::Blocked, None, true, "D", "Unavailable"),
        (created(), None, true, "A", "Topics"),
        (created(), None, true, "B", "NotReady"),
        (created(), None, true, "D", "Create"),
        (created(), None, true, "d", "CodeNotAllowed"),
        (created(), None, false, "D", "Unavailable"),
        (created(), Some(3), true, "D", "QuotaExceeded"),
        (created(), Some(3), true, "A", "Topics"),
        (created(), Some(4), true, "D", "Create"),
    ] {
        let decision = decide(&mut admission(now), &directory(creation, most), request, may_create, now);
        assert_eq!(word(&decision), expected, "{request}");
    }
    let without_stream = TenantDirectory { has_stream: false, ..directory(CreationPolicy::Refuse, None) };
    assert_eq!(word(&decide(&mut admission(now), &without_stream, "A", true, now)), "Pending");
    let nowhere =
        admission(now).decide(&directory(created(), None), EnrollmentRequest::parse(b"D"), None, true, now);
    assert_eq!(nowhere, Decision::Drop);
}

#[test]
fn a_code_is_created_once_and_counts_in_the_quota_at_once() {
    let now = Instant::now();
    let (mut admission, directory) = (admission(now), directory(created(), Some(5)));
    let decisions: Vec<String> = ["D", "D", "D", "D", "D", "E", "F"]
        .iter()
        .map(|request| word(&decide(&mut admission, &directory, request, true, now)))
        .collect();
    assert_eq!(decisions, ["Create", "Wait", "Wait", "Wait", "RateLimited", "Create", "QuotaExceeded"]);
    assert_eq!(admission.creation_ended(&code("D")).len(), MAX_WAITERS);
    assert_eq!(admission.creation_ended(&code("D")).len(), 0);
    // In the directory, it isn't counted twice.
    let mut seen = directory.clone();
    seen.devices.insert(code("E"), waiting(None));
    assert_eq!(word(&decide(&mut admission, &seen, "E", true, now)), "Wait");
    assert_eq!(word(&decide(&mut admission, &seen, "G", true, now)), "Create");
}

#[test]
fn requests_beyond_the_rate_are_refused_and_then_dropped() {
    let now = Instant::now();
    let (mut admission, directory) = (admission(now), directory(CreationPolicy::Refuse, None));
    let words: Vec<String> =
        (0..300).map(|_| word(&decide(&mut admission, &directory, "A", true, now))).collect();
    let count = |what: &str| words.iter().filter(|word| *word == what).count();
    assert_eq!((count("Topics"), count("RateLimited"), count("Drop")), (50, 50, 200));
    assert_eq!(
        word(&decide(&mut admission, &directory, "A", true, now + Duration::from_millis(60))),
        "Topics"
    );
}

proptest! {
    #[test]
    fn creations_keep_within_their_bounds(
        requests in prop::collection::vec(("[A-Z][0-9]", any::<bool>(), 0_u64..300), 1..200),
    ) {
        let start = Instant::now();
        let (mut now, mut admission, directory) = (start, admission(start), directory(created(), Some(20)));
        let mut in_progress = std::collections::BTreeSet::new();
        for (request, ends, wait) in requests {
            now += Duration::from_millis(wait);
            match decide(&mut admission, &directory, &request, true, now) {
                Decision::Create { code, .. } => {
                    prop_assert!(in_progress.insert(code), "created twice at once");
                    prop_assert!(in_progress.len() <= MAX_CONCURRENT_CREATIONS);
                    prop_assert!(in_progress.len() + directory.devices.len() <= 20);
                }
                Decision::Wait => prop_assert!(in_progress.contains(&code(&request))),
                Decision::Reply { .. } | Decision::Drop => {}
            }
            if ends && let Some(code) = in_progress.pop_first() {
                let answered = admission.creation_ended(&code).len();
                prop_assert!((1..=MAX_WAITERS).contains(&answered));
            }
        }
    }
}
