use proptest::prelude::*;

use super::*;

fn message(result: Result<Subscription, RequestError>) -> String {
    match result {
        Err(RequestError::BadRequest(message)) => message,
        other => panic!("not a bad request: {other:?}"),
    }
}

fn code(text: &str) -> DeviceCode {
    DeviceCode::new(text).unwrap()
}

#[test]
fn query_and_body_are_equivalent() {
    let query = Subscription::from_events_query(
        "device=CORR-01&device=a%2Fb&device=*&selector=line%3Dl1,type+in+(a)&channel=telemetry&channel=power\
         &interval=500ms&problems=true&lastEventId=5f3a9c01-7&access_token=x",
    );
    let body = Subscription::from_events_body(
        "",
        br#"{"devices":["CORR-01","a/b","*"],"selector":"line=l1,type in (a)",
            "channels":["telemetry","power"],"interval":"500ms","problems":true,
            "lastEventId":"5f3a9c01-7"}"#,
    );
    assert_eq!(query, body);
    let subscription = query.unwrap();
    assert!(subscription.wanted.all);
    assert_eq!(subscription.wanted.codes, [code("CORR-01"), code("a/b")].into());
    assert_eq!(subscription.wanted.selector, Some("line=l1,type in (a)".parse().unwrap()));
    assert_eq!(subscription.channels.unwrap().len(), 2);
    assert_eq!(subscription.interval, Some(Duration::from_millis(500)));
    assert_eq!(subscription.problems, Some(true));
    assert_eq!(subscription.last_event_id.as_deref(), Some("5f3a9c01-7"));
}

#[test]
fn errors_in_a_query_are_named() {
    for (query, expected) in [
        ("", "a device or a selector is needed"),
        ("channel=power", "a device or a selector is needed"),
        ("device=A&interval=5+parsecs", "interval: \"5 parsecs\" is not a duration; write 500ms, 2s or 1m"),
        ("device=A&interval=1s&interval=2s", "interval: it is there twice"),
        ("device=A&problems=yes", "problems: \"yes\" is neither true nor false"),
        ("device=A&problems=true&problems=true", "problems: it is there twice"),
        ("device=", "device: device code \"\" is not valid"),
        ("device=%C3%A4", "device: device code \"ä\" is not valid; it needs 1 to 64 letters"),
        ("device=A&channel=Power", "channel: channel name \"Power\" is not valid; it needs"),
        ("selector=line%3D%3D%3Dx", "selector: "),
        ("selector=", "selector: the selector is empty"),
        ("device=%ff", "device: \"%ff\" is not percent-encoded UTF-8"),
        ("device=100%", "write %25 for a %"),
        (
            "devices=A",
            "devices: not a parameter of this address (its value is \"A\"); it takes device, selector, \
             channel, interval, problems, lastEventId and access_token; did you mean device?",
        ),
        ("device=A&lasteventid=1-1", "did you mean lastEventId?"),
        ("device=A&foo", "foo: not a parameter of this address"),
    ] {
        let message = message(Subscription::from_events_query(query));
        assert!(message.contains(expected), "{query}: {message}");
    }
    assert!(!message(Subscription::from_events_query("device=A&foo=1")).contains("did you mean"));
    let misspelt = message(Subscription::from_events_query("device=A&acces_token=s3cr3t"));
    assert!(misspelt.contains("did you mean access_token?") && !misspelt.contains("s3cr3t"), "{misspelt}");
    let broken = message(Subscription::from_events_query("device=A&access_token=s3cr3t%"));
    assert!(broken.contains("access_token: it is not") && !broken.contains("s3cr3t"), "{broken}");
    let in_the_body = br#"{"devices":["A"],"access_token":"s3cr3t"}"#;
    let in_the_body = message(Subscription::from_events_body("", in_the_body));
    assert!(!in_the_body.contains("s3cr3t"), "{in_the_body}");
}

#[test]
fn errors_in_a_body_are_named() {
    for (body, expected) in [
        ("", "the body is not a JSON object"),
        ("[]", "the body is not a JSON object"),
        ("{}", "devices or a selector are needed"),
        (r#"{"devices":[]}"#, "devices or a selector are needed"),
        (r#"{"devices":null}"#, "devices or a selector are needed"),
        (
            r#"{"device":["A"]}"#,
            "device: not a parameter of this address (its value is \"[\\\"A\\\"]\"); it takes devices, \
             selector, channels, interval, problems, lastEventId; did you mean devices?",
        ),
        (r#"{"devices":"A"}"#, "devices: \"A\" is not a list"),
        (r#"{"devices":["A",1]}"#, "devices: 1 is not a string"),
        (r#"{"devices":["A"],"devices":["B"]}"#, "devices: it is there twice"),
        (r#"{"devices":["A"],"interval":500}"#, "interval: 500 is not a string"),
        (r#"{"devices":["A"],"problems":"true"}"#, "problems: \"true\" is neither true nor false"),
        (r#"{"devices":["A"],"access_token":"x"}"#, "access_token: not a parameter"),
        (r#"{"devices":["A"]} x"#, "trailing"),
        (r#"{"devices":[" A"]}"#, "devices: device code \" A\" is not valid"),
    ] {
        let message = message(Subscription::from_events_body("", body.as_bytes()));
        assert!(message.contains(expected), "{body}: {message}");
    }
    assert!(message(Subscription::from_events_body("device=A", b"{}")).contains("query has to be empty"));
}

#[test]
fn too_many_names_are_refused() {
    let query = |count: usize| (0..count).map(|n| format!("device=d{n}")).collect::<Vec<_>>().join("&");
    assert!(Subscription::from_events_query(&query(MAX_DEVICES)).is_ok());
    assert!(
        message(Subscription::from_events_query(&query(MAX_DEVICES + 1))).contains("more than 5000 devices")
    );
    let channels: String = (0..=MAX_CHANNELS).map(|n| format!("&channel=c{n}")).collect();
    assert!(
        message(Subscription::from_events_query(&format!("device=A{channels}")))
            .contains("more than 64 channels")
    );
}

#[test]
fn devices_routes_accept_fewer_parameters() {
    let all = Subscription::from_devices_query("channel=power&access_token=x").unwrap();
    assert!(all.wanted.all && all.channels.is_some());
    assert!(!Subscription::from_devices_query("device=A").unwrap().wanted.all);
    assert!(
        message(Subscription::from_devices_query("interval=1s"))
            .contains("it takes device, selector, channel and access_token")
    );
    let one = Subscription::from_device_query(code("A"), "").unwrap();
    assert_eq!((one.wanted.all, one.wanted.codes.len()), (false, 1));
    assert!(
        message(Subscription::from_device_query(code("A"), "device=B")).contains("device: not a parameter")
    );
}

#[test]
fn a_look_at_messages_names_one_device() {
    let read = InspectQuery::read("tenant=demo&device=CORR-01&channel=telemetry&channel=power").unwrap();
    assert_eq!((read.tenant.unwrap().as_str(), read.device), ("demo", code("CORR-01")));
    assert_eq!(read.channels.unwrap().len(), 2);
    assert_eq!(InspectQuery::read("device=A").unwrap().tenant, None);
    for (query, expected) in [
        ("", "device: exactly one is needed"),
        ("device=A&device=B", "device: exactly one is needed"),
        ("device=*", "device: exactly one is needed"),
        ("device=A&tenant=x&tenant=x", "tenant: it is there twice"),
        ("device=A&tenant=X%20Y", "tenant: "),
        ("devices=A", "did you mean device?"),
        ("device=A&access_token=s3cr3t", "it takes tenant, device, channel"),
    ] {
        match InspectQuery::read(query) {
            Err(RequestError::BadRequest(message)) => {
                assert!(message.contains(expected) && !message.contains("s3cr3t"), "{query}: {message}");
            }
            other => panic!("{query}: {other:?}"),
        }
    }
}

#[test]
fn header_takes_precedence_and_an_invalid_id_is_a_gap() {
    let id = |sequence| Some(EventId { epoch: Epoch(0x5f3a_9c01), sequence: Sequence(sequence) });
    let unknown = Some(EventId { epoch: Epoch(0), sequence: Sequence::START });
    assert_eq!(resume(None, None), None);
    assert_eq!(resume(None, Some("5f3a9c01-7")), id(7));
    assert_eq!(resume(Some(b"5f3a9c01-9"), Some("5f3a9c01-7")), id(9));
    assert_eq!(resume(Some(b""), Some("5f3a9c01-7")), None);
    assert_eq!(resume(Some(b"nonsense"), Some("5f3a9c01-7")), unknown);
    assert_eq!(resume(Some(b"\xff"), None), unknown);
    assert_eq!(resume(None, Some("nonsense")), unknown);
}

#[test]
fn token_is_found_in_an_invalid_query() {
    assert_eq!(access_token("foo=%&access_token=a%2Bb+c&x").as_deref(), Some("a+b c"));
    assert_eq!(access_token("xaccess_token=a").as_deref(), None);
    assert_eq!(access_token("access_token=%").as_deref(), None);
}

proptest! {
    /// Any query gives a subscription or an error, never a panic.
    #[test]
    fn any_query_is_answered(
        query in "(device|channel|selector|interval|lastEventId|x)?[=&%+a-f0-9*(),!ä]{0,40}"
    ) {
        let _ = Subscription::from_events_query(&query);
        let _ = Subscription::from_devices_query(&query);
        let _ = access_token(&query);
    }

    #[test]
    fn any_body_is_answered(body in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = Subscription::from_events_body("", &body);
    }

    #[test]
    fn device_codes_round_trip_through_a_query(
        codes in prop::collection::btree_set("[A-Za-z0-9][A-Za-z0-9._:/-]{0,10}", 1..6)
    ) {
        let parameter = |code: &String| format!("device={}", code.replace('/', "%2F"));
        let query: Vec<String> = codes.iter().map(parameter).collect();
        let subscription = Subscription::from_events_query(&query.join("&")).unwrap();
        let read: BTreeSet<String> = subscription.wanted.codes.iter().map(ToString::to_string).collect();
        prop_assert_eq!(read, codes);
        prop_assert!(!subscription.wanted.all && subscription.wanted.selector.is_none());
    }
}
