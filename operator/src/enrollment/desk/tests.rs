use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::name::{ChannelName, IotId};
use proptest::prelude::*;

use super::*;
use crate::enrollment::policy::Enrollment;
use crate::enrollment::policy::CodePattern;

fn code(code: &str) -> DeviceCode {
    DeviceCode::new(code).unwrap()
}

fn mapped() -> Standing {
    let channels: Arc<[ChannelName]> = [ChannelName::new("power").unwrap()].into();
    Standing::Mapped { iot_id: IotId::new("k3v5").unwrap(), channels }
}

fn waiting(why: Option<&str>) -> Standing {
    Standing::Waiting { object: "Device/d".into(), why: why.map(str::to_owned) }
}

fn roll(newcomers: Newcomers, max_devices: Option<u32>) -> Roll {
    Roll {
        namespace: "default".into(),
        has_stream: true,
        enrollment: Enrollment { newcomers, max_devices },
        devices: [
            (code("A"), mapped()),
            (code("B"), waiting(Some("QuotaExceeded: full"))),
            (code("C"), waiting(None)),
        ]
        .into(),
    }
}

fn created() -> Newcomers {
    let code_pattern = Some(CodePattern::new("[A-Z][0-9]*").unwrap());
    Newcomers::Created(Template { code_pattern, ..Template::default() })
}

fn desk(now: Instant) -> Desk {
    Desk::new(TenantName::new("acme").unwrap(), now)
}

fn decide(desk: &mut Desk, roll: &Roll, request: &str, may_create: bool, now: Instant) -> Step {
    desk.decide(roll, Request::parse(request.as_bytes()), Some("_INBOX.x".into()), may_create, now)
}

/// The step in a word: a reason, or what is done.
fn word(step: &Step) -> String {
    match step {
        Step::Answer { answer: Ok(_), .. } => "Topics".into(),
        Step::Answer { answer: Err(refusal), .. } => format!("{:?}", refusal.reason),
        Step::Create { .. } => "Create".into(),
        Step::Wait => "Wait".into(),
        Step::Drop => "Drop".into(),
    }
}

#[test]
fn each_request_has_its_step() {
    let now = Instant::now();
    for (newcomers, most, may_create, request, expected) in [
        (Newcomers::Refused, None, true, "A", "Topics"),
        (Newcomers::Refused, None, true, "B", "NotReady"),
        (Newcomers::Refused, None, true, "C", "Pending"),
        (Newcomers::Refused, None, true, "D", "UnknownDevice"),
        (Newcomers::Refused, None, true, "", "InvalidRequest"),
        (Newcomers::Refused, None, true, "*", "InvalidCode"),
        (Newcomers::Blocked, None, true, "A", "Topics"),
        (Newcomers::Blocked, None, true, "D", "Unavailable"),
        (created(), None, true, "A", "Topics"),
        (created(), None, true, "B", "NotReady"),
        (created(), None, true, "D", "Create"),
        (created(), None, true, "d", "CodeNotAllowed"),
        (created(), None, false, "D", "Unavailable"),
        (created(), Some(3), true, "D", "QuotaExceeded"),
        (created(), Some(3), true, "A", "Topics"),
        (created(), Some(4), true, "D", "Create"),
    ] {
        let step = decide(&mut desk(now), &roll(newcomers, most), request, may_create, now);
        assert_eq!(word(&step), expected, "{request}");
    }
    let without_stream = Roll { has_stream: false, ..roll(Newcomers::Refused, None) };
    assert_eq!(word(&decide(&mut desk(now), &without_stream, "A", true, now)), "Pending");
    let nowhere = desk(now).decide(&roll(created(), None), Request::parse(b"D"), None, true, now);
    assert_eq!(nowhere, Step::Drop);
}

#[test]
fn one_code_is_created_once_and_counts_in_the_quota_at_once() {
    let now = Instant::now();
    let (mut desk, roll) = (desk(now), roll(created(), Some(5)));
    let steps: Vec<String> = ["D", "D", "D", "D", "D", "E", "F"]
        .iter()
        .map(|request| word(&decide(&mut desk, &roll, request, true, now)))
        .collect();
    assert_eq!(steps, ["Create", "Wait", "Wait", "Wait", "RateLimited", "Create", "QuotaExceeded"]);
    assert_eq!(desk.done(&code("D")).len(), WAITING_FOR_ONE);
    assert_eq!(desk.done(&code("D")).len(), 0);
    // Seen in the roll, it isn't counted twice.
    let mut seen = roll.clone();
    seen.devices.insert(code("E"), waiting(None));
    assert_eq!(word(&decide(&mut desk, &seen, "E", true, now)), "Wait");
    assert_eq!(word(&decide(&mut desk, &seen, "G", true, now)), "Create");
}

#[test]
fn a_flood_is_told_so_for_a_while_and_then_dropped() {
    let now = Instant::now();
    let (mut desk, roll) = (desk(now), roll(Newcomers::Refused, None));
    let words: Vec<String> = (0..300).map(|_| word(&decide(&mut desk, &roll, "A", true, now))).collect();
    let count = |what: &str| words.iter().filter(|word| *word == what).count();
    assert_eq!((count("Topics"), count("RateLimited"), count("Drop")), (50, 50, 200));
    assert_eq!(word(&decide(&mut desk, &roll, "A", true, now + Duration::from_millis(60))), "Topics");
}

proptest! {
    #[test]
    fn creations_keep_within_their_bounds(requests in prop::collection::vec(("[A-Z][0-9]", any::<bool>(), 0_u64..300), 1..200)) {
        let start = Instant::now();
        let (mut now, mut desk, roll) = (start, desk(start), roll(created(), Some(20)));
        let mut under_way = std::collections::BTreeSet::new();
        for (request, ends, wait) in requests {
            now += Duration::from_millis(wait);
            match decide(&mut desk, &roll, &request, true, now) {
                Step::Create { code, .. } => {
                    prop_assert!(under_way.insert(code), "created twice at once");
                    prop_assert!(under_way.len() <= CREATIONS_AT_ONCE);
                    prop_assert!(under_way.len() + roll.devices.len() <= 20);
                }
                Step::Wait => prop_assert!(under_way.contains(&code(&request))),
                Step::Answer { .. } | Step::Drop => {}
            }
            if ends && let Some(code) = under_way.pop_first() {
                let answered = desk.done(&code).len();
                prop_assert!((1..=WAITING_FOR_ONE).contains(&answered));
            }
        }
    }
}
