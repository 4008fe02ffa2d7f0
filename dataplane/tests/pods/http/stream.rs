//! The event stream over HTTP: what it starts with, and why it ends.

use std::fs;
use std::time::Duration;

use flutecast_testkit::http_client::request;
use flutecast_testkit::{SseClient, SseEvent, wait_until};
use http::{Method, StatusCode};
use serde_json::json;

use crate::fixture::{
    ALL, DEADLINE, PodFixture, SOME, access, codes, digest, error, hello, read_to_end, reason, shard,
};

#[tokio::test]
async fn stream_starts_with_snapshot_and_disables_proxy_buffering() {
    let setup = PodFixture::start(&["--server-name", "pod-1"]).await;
    setup.publish("open", "corr1", "telemetry", r#"{"v": 1}"#).await;
    let mut client = setup.connect("/v1/open/events?device=CORR-01", &[]).await;
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
        ("vary", "Origin"),
    ] {
        assert_eq!(client.headers()[name], value);
    }
    assert!(client.headers().get("content-encoding").is_none());
    let hello = hello(&mut client).await;
    assert_eq!(
        (&hello["protocol"], &hello["tenant"], &hello["server"]),
        (&json!(1), &json!("open"), &json!("pod-1"))
    );
    assert_eq!(codes(&hello), ["CORR-01"]);
    assert!(client.retry().is_some());
    let first = client.next_where("data", DEADLINE, SseEvent::is_data).await.unwrap().json().unwrap();
    assert_eq!((&first["device"], &first["values"]["v"]), (&json!("CORR-01"), &json!(1)));
    setup.publish("open", "corr1", "telemetry", r#"{"v": 2}"#).await;
    let next = client.next_where("data", DEADLINE, SseEvent::is_data).await.unwrap();
    assert_eq!(next.json().unwrap()["values"]["v"], json!(2));
    assert!(next.id.is_some());
}

#[tokio::test]
async fn post_body_is_equivalent_to_query() {
    let setup = PodFixture::start(&[]).await;
    let body =
        json!({"selector": "line=l2", "devices": ["CORR-01"], "channels": ["alarms"], "interval": "500ms"});
    let mut client = SseClient::post(&setup.url("/v1/open/events"), &[], &body).await.unwrap();
    let by_body = hello(&mut client).await;
    let path = "/v1/open/events?selector=line%3Dl2&device=CORR-01&channel=alarms&interval=500ms";
    let by_query = hello(&mut setup.connect(path, &[]).await).await;
    assert_eq!(by_body["devices"], by_query["devices"]);
    assert_eq!(codes(&by_body), ["CORR-01", "FLEX-01"]);
    assert_eq!(by_body["devices"][0]["channels"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn token_sees_only_its_devices() {
    let setup = PodFixture::start(&[]).await;
    setup.publish("acme", "flex1", "telemetry", r#"{"v": 1}"#).await;
    for (token, expected) in [(ALL, vec!["CORR-01", "FLEX-01"]), (SOME, vec!["CORR-01"])] {
        let bearer = format!("Bearer {token}");
        for selection in ["device=*", "selector=line"] {
            let path = format!("/v1/acme/events?{selection}");
            let mut client = setup.connect(&path, &[("authorization", &bearer)]).await;
            assert_eq!(codes(&hello(&mut client).await), expected, "{token} {selection}");
            let by_query = setup.connect(&format!("{path}&access_token={token}"), &[]).await;
            assert_eq!(codes(&hello(&mut { by_query }).await), expected, "{token} {selection} in the query");
        }
        let answer = setup.get("/v1/acme/devices", &[("authorization", &bearer)]).await;
        assert_eq!(codes(&answer.json().unwrap()), expected, "{token}");
    }
}

#[tokio::test]
async fn temporary_refusals_are_events_in_the_stream() {
    let setup = PodFixture::start(&[]).await;
    let mut client =
        setup.connect("/v1/open/events?device=CORR-01&device=MISSING&channel=nothing", &[]).await;
    let mut reasons = Vec::new();
    for _ in 0..2 {
        let refused = client.next_named("refused", DEADLINE).await.unwrap();
        reasons.push((refused.json().unwrap()["device"].as_str().map(str::to_owned), reason(&refused)));
    }
    reasons.sort();
    assert_eq!(
        reasons,
        [
            (Some("CORR-01".to_owned()), "NoSuchChannel".to_owned()),
            (Some("MISSING".to_owned()), "UnknownDevice".to_owned())
        ]
    );
    // It may be read, but its mapping isn't there yet: this passes by itself.
    let mut client = setup.connect("/v1/unmapped/events?device=CORR-01", &[]).await;
    let refused = client.next_named("refused", DEADLINE).await.unwrap();
    assert_eq!(reason(&refused), "Starting");
    let answer = setup.get("/v1/unmapped/devices", &[]).await;
    assert_eq!((answer.status, error(&answer).0.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "Starting"));
    assert!(answer.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn revoked_access_ends_open_streams() {
    let setup = PodFixture::start(&[]).await;
    let connect = async |tenant: &str, token: &str| {
        let mut client =
            setup.connect(&format!("/v1/{tenant}/events?device=CORR-01&access_token={token}"), &[]).await;
        hello(&mut client).await;
        client
    };
    let mut revoked = connect("acme", SOME).await;
    let mut kept = connect("acme", ALL).await;
    let mut open = connect("open", "").await;
    let without_some = access().replace(&digest(SOME), &digest("another"));
    setup.write("flutecast-access.yaml", &without_some);
    let events = read_to_end(&mut revoked).await;
    let bye = events.last().unwrap();
    assert_eq!((bye.name(), reason(bye).as_str()), ("bye", "AccessRevoked"));
    assert_eq!(bye.retry, Some(Duration::from_millis(bye.json().unwrap()["retryMs"].as_u64().unwrap())));
    let again = setup.get(&format!("/v1/acme/events?device=CORR-01&access_token={SOME}"), &[]).await;
    assert_eq!(again.status, StatusCode::UNAUTHORIZED);
    // Those whom it doesn't concern go on.
    for (client, tenant) in [(&mut kept, "acme"), (&mut open, "open")] {
        setup.publish(tenant, "corr1", "telemetry", r#"{"v": 7}"#).await;
        client.next_where("data", DEADLINE, SseEvent::is_data).await.unwrap();
    }
    setup.write("flutecast-access.yaml", &access().replace("anonymous: true", "anonymous: false"));
    assert_eq!(reason(read_to_end(&mut open).await.last().unwrap()), "AccessRevoked");
    // A document that can't be read takes nothing away, one that is gone takes all.
    setup.write("flutecast-access.yaml", "tenants: [");
    setup.publish("acme", "corr1", "telemetry", r#"{"v": 8}"#).await;
    kept.next_where("data", DEADLINE, SseEvent::is_data).await.unwrap();
    fs::remove_file(setup.mapping.path().join("flutecast-access.yaml")).unwrap();
    assert_eq!(reason(read_to_end(&mut kept).await.last().unwrap()), "AccessRevoked");
    assert!(setup.dataplane.metric("flutecast_http_streams_revoked_total").await.unwrap() >= 3.0);
}

#[tokio::test]
async fn streams_of_a_removed_tenant_end_with_tenant_removed() {
    let setup = PodFixture::start(&[]).await;
    let mut client = setup.connect("/v1/open/events?device=CORR-01", &[]).await;
    hello(&mut client).await;
    fs::remove_file(setup.mapping.path().join("flutecast-open-0.yaml")).unwrap();
    setup.write("flutecast-access.yaml", &access().replace("  open: {anonymous: true}\n", ""));
    assert_eq!(reason(read_to_end(&mut client).await.last().unwrap()), "TenantRemoved");
    // The two files are read one after the other, so the stream may have ended before the access was taken
    // away.
    wait_until("nobody reads the tenant", DEADLINE, async || {
        match setup.get("/v1/open/devices", &[]).await.status {
            StatusCode::UNAUTHORIZED => Ok(()),
            other => Err(other),
        }
    })
    .await
    .unwrap();
    assert_eq!(setup.get("/v1/open/events?device=CORR-01", &[]).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn full_pod_and_full_tenant_refuse_clients_in_the_stream() {
    let setup = PodFixture::start(&["--max-clients", "3"]).await;
    setup.write("flutecast-acme-0.yaml", &shard("acme", ", maxClients: 1"));
    let acme = format!("/v1/acme/events?device=CORR-01&access_token={ALL}");
    let full = |path: String| {
        let url = setup.url(&path);
        async move {
            let mut client = SseClient::connect(&url, &[]).await.map_err(|error| error.to_string())?;
            let mut events = Vec::new();
            while let Ok(Some(event)) = client.next_or_end(Duration::from_millis(300)).await {
                events.push(event);
            }
            match events.last() {
                Some(last) if last.name() == "bye" && reason(last) == "Full" => Ok(()),
                _ => Err(format!("{events:?}")),
            }
        }
    };
    let mut first = setup.connect(&acme, &[]).await;
    hello(&mut first).await;
    wait_until("the tenant is full", DEADLINE, async || full(acme.clone()).await).await.unwrap();
    let mut others = Vec::new();
    for _ in 0..2 {
        let mut client = setup.connect("/v1/open/events?device=CORR-01", &[]).await;
        hello(&mut client).await;
        others.push(client);
    }
    full("/v1/open/events?device=CORR-01".to_owned()).await.unwrap();
    // A place that is left is free again.
    drop(first);
    wait_until("a free place", DEADLINE, async || {
        match full("/v1/open/events?device=CORR-01".to_owned()).await {
            Ok(()) => Err("full".to_owned()),
            Err(_) => Ok(()),
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn many_streams_share_one_http2_connection() {
    use http_body_util::{BodyExt, Empty};
    let setup = PodFixture::start(&[]).await;
    let authority = setup.dataplane.url.trim_start_matches("http://").to_owned();
    let socket = tokio::net::TcpStream::connect(&authority).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(socket);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<bytes::Bytes>>(executor, io).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut bodies = Vec::new();
    for device in ["CORR-01", "FLEX-01"].repeat(10) {
        let request = http::Request::get(format!("http://{authority}/v1/open/events?device={device}"))
            // A page of this server: the check has to know the host from the address.
            .header("origin", format!("http://{authority}"))
            .body(Empty::new())
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!((response.status(), response.version()), (StatusCode::OK, http::Version::HTTP_2));
        bodies.push((device, response.into_body()));
    }
    for (device, body) in &mut bodies {
        let mut text = String::new();
        while !text.contains("event: hello") {
            let frame = tokio::time::timeout(DEADLINE, body.frame()).await.unwrap().unwrap().unwrap();
            text.push_str(&String::from_utf8_lossy(frame.data_ref().unwrap()));
        }
        assert!(text.contains(&format!("\"device\":\"{device}\"")), "{text}");
    }
    drop((sender, bodies));
    tokio::time::timeout(DEADLINE, connection).await.unwrap().unwrap().unwrap();
    // All of them are gone for the server too.
    wait_until("no stream is open", DEADLINE, async || {
        let open =
            setup.dataplane.metric("flutecast_http_streams ").await.map_err(|error| error.to_string())?;
        if open == 0.0 { Ok(()) } else { Err(format!("{open} streams")) }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn tokens_are_never_logged() {
    let setup = PodFixture::start_with(&["--log-format", "json"], &[("RUST_LOG", "trace")]).await;
    let secret = "s3cr3t-t0k3n-that-nobody-knows";
    for token in [ALL, SOME, secret] {
        let bearer = format!("Bearer {token}");
        for path in ["events?device=CORR-01", "devices", "devices/CORR-01", "events?bad=1", "nothing"] {
            let separator = if path.contains('?') { '&' } else { '?' };
            for headers in [&[("authorization", bearer.as_str())][..], &[]] {
                let query = if headers.is_empty() {
                    format!("{separator}access_token={token}")
                } else {
                    String::new()
                };
                let url = setup.url(&format!("/v1/acme/{path}{query}"));
                // A stream is left at once; the others are read.
                let _ =
                    tokio::time::timeout(Duration::from_millis(200), request(Method::GET, &url, headers, ""))
                        .await;
            }
        }
        let misspelt = setup.get(&format!("/v1/open/events?device=A&accesstoken={token}"), &[]).await;
        assert!(!misspelt.text().contains(token), "{}", misspelt.text());
    }
    let lines = setup.dataplane.process.output();
    assert!(
        lines.iter().any(|line| line.contains("/v1/acme/devices/CORR-01")),
        "the requests are logged: {lines:?}"
    );
    for token in [ALL, SOME, secret] {
        let found: Vec<_> =
            lines.iter().filter(|line| line.contains(token) || line.contains(&digest(token))).collect();
        assert!(found.is_empty(), "{found:?}");
    }
}
