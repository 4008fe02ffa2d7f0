//! Refused requests and their bodies: docs/protocol.md, "Access" and its table of statuses.

use flutecast_testkit::http_client::{self, request};
use flutecast_testkit::{SseClient, wait_until};
use http::{Method, StatusCode};

use crate::fixture::{ALL, DEADLINE, OTHER, PodFixture, SOME, error};

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[tokio::test]
async fn requests_without_a_token_of_the_tenant_are_unauthorized() {
    let setup = PodFixture::start(&[]).await;
    let no_token = setup.get("/v1/acme/devices", &[]).await;
    assert_eq!(no_token.status, StatusCode::UNAUTHORIZED);
    assert_eq!(no_token.headers["www-authenticate"], "Bearer");
    assert_eq!(error(&no_token).0, "Unauthorized");
    for tenant in ["acme", "shut", "missing", "Not_A-Name", "%61cme%2F", "%ff"] {
        for (token, where_) in [
            (OTHER, "header"),
            ("nonsense", "header"),
            ("", "header"),
            (OTHER, "query"),
            ("nonsense", "query"),
            ("", "none"),
        ] {
            let bearer = bearer(token);
            let headers: &[(&str, &str)] =
                if where_ == "header" { &[("authorization", &bearer)] } else { &[] };
            let query = if where_ == "query" { format!("&access_token={token}") } else { String::new() };
            for path in [
                "events?device=CORR-01",
                "devices?x=y",
                "devices/CORR-01?",
                "devices/MISSING?",
                "events?bad=1",
            ] {
                let answer = setup.get(&format!("/v1/{tenant}/{path}{query}"), headers).await;
                assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{tenant} {path} {token} {where_}");
                // An unknown tenant can't be told from a wrong token.
                assert_eq!(answer.body, no_token.body, "{tenant} {path}");
                let names =
                    |headers: &http::HeaderMap| headers.keys().map(ToString::to_string).collect::<Vec<_>>();
                assert_eq!(names(&answer.headers), names(&no_token.headers));
            }
            let url = setup.url(&format!("/v1/{tenant}/events"));
            let body = r#"{"devices":["CORR-01"]}"#;
            let answer = request(Method::POST, &url, headers, body).await.unwrap();
            assert_eq!(
                (answer.status, &answer.body),
                (StatusCode::UNAUTHORIZED, &no_token.body),
                "{tenant} POST"
            );
        }
    }
    // Only the scheme Bearer is looked at, even if another one carries the right token.
    let answer = setup.get("/v1/acme/devices", &[("authorization", &format!("Basic {ALL}"))]).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    // Another scheme may be meant for a gateway; the token may then be in the query.
    let path = format!("/v1/acme/devices?access_token={ALL}");
    assert_eq!(setup.get(&path, &[("authorization", "Basic dTpw")]).await.status, StatusCode::OK);
    assert_eq!(setup.get(&path, &[("authorization", "Bearer x")]).await.status, StatusCode::UNAUTHORIZED);
    // With POST the token belongs in the header.
    let url = setup.url(&format!("/v1/acme/events?access_token={ALL}"));
    let answer = request(Method::POST, &url, &[], r#"{"devices":["CORR-01"]}"#).await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn token_is_forbidden_devices_that_it_does_not_list() {
    let setup = PodFixture::start(&[]).await;
    for (path, status) in [
        ("events?device=FLEX-01", StatusCode::FORBIDDEN),
        ("events?device=CORR-01&device=FLEX-01", StatusCode::FORBIDDEN),
        // The answer doesn't tell whether it exists.
        ("events?device=MISSING", StatusCode::FORBIDDEN),
        ("devices/FLEX-01?", StatusCode::FORBIDDEN),
        ("devices/MISSING?", StatusCode::FORBIDDEN),
        ("devices?device=FLEX-01", StatusCode::FORBIDDEN),
    ] {
        let answer = setup.get(&format!("/v1/acme/{path}&access_token={SOME}"), &[]).await;
        assert_eq!(answer.status, status, "{path}");
        let (code, message) = error(&answer);
        assert_eq!(code, "Forbidden");
        assert!(message.contains("FLEX-01") || message.contains("MISSING"), "{message}");
    }
}

#[tokio::test]
async fn cross_origin_pages_need_an_allowed_origin() {
    let setup = PodFixture::start(&[]).await;
    let own = setup.dataplane.url.clone();
    let all = bearer(ALL);
    let other = bearer(OTHER);
    for (tenant, token, origin, allowed) in [
        ("acme", &all, "https://screens.acme.example", true),
        ("acme", &all, own.as_str(), true),
        ("acme", &all, "https://evil.example", false),
        ("acme", &all, "null", false),
        ("other", &other, "https://evil.example", true),
        ("open", &all, "https://evil.example", false),
        ("open", &all, own.as_str(), true),
    ] {
        for path in ["events?device=CORR-01", "devices/MISSING", "devices?bad=1"] {
            let headers = [("authorization", token.as_str()), ("origin", origin)];
            let stream = path.starts_with("events");
            let url = setup.url(&format!("/v1/{tenant}/{path}"));
            if stream && allowed {
                let client = SseClient::connect(&url, &headers).await.unwrap();
                assert_eq!(client.headers()["access-control-allow-origin"], origin);
                assert_eq!(client.headers()["vary"], "Origin");
                assert_eq!(client.headers()["access-control-expose-headers"], "Date");
                continue;
            }
            let answer = request(Method::GET, &url, &headers, "").await.unwrap();
            assert_eq!(
                answer.status == StatusCode::FORBIDDEN,
                !allowed,
                "{tenant} {origin} {path}: {}",
                answer.text()
            );
            if !allowed {
                assert!(error(&answer).1.contains("allowedOrigins"), "{}", answer.text());
            }
            // The page can read the error.
            assert_eq!(answer.headers["access-control-allow-origin"], "*");
        }
    }
    // The token is checked first, so that an origin learns nothing about tenants.
    for tenant in ["acme", "missing"] {
        let answer = setup.get(&format!("/v1/{tenant}/devices"), &[("origin", "https://evil.example")]).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{tenant}");
    }
}

#[tokio::test]
async fn preflight_requests_are_answered() {
    let setup = PodFixture::start(&[]).await;
    let headers = [
        ("origin", "https://screens.acme.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type,last-event-id"),
    ];
    for path in ["/v1/acme/events", "/v1/missing/events", "/v1/acme/devices", "/v1/acme/devices/CORR-01"] {
        let answer = request(Method::OPTIONS, &setup.url(path), &headers, "").await.unwrap();
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{path}");
        let list = |name: &str| answer.headers[name].to_str().unwrap().to_lowercase();
        assert_eq!(list("access-control-allow-origin"), "*");
        assert!(list("access-control-allow-methods").contains("post"));
        for name in ["authorization", "content-type", "last-event-id"] {
            assert!(list("access-control-allow-headers").contains(name), "{name}");
        }
    }
}

#[tokio::test]
async fn bad_requests_are_answered_with_parameter_and_value() {
    let setup = PodFixture::start(&[]).await;
    for (path, expected) in [
        ("events", "a device or a selector is needed"),
        ("events?devices=A", "devices: not a parameter of this address (its value is \"A\")"),
        (
            "events?device=A&interval=5%20parsecs",
            "interval: \"5 parsecs\" is not a duration; write 500ms, 2s or 1m",
        ),
        ("events?selector=a%20b", "selector: \"a b\""),
        ("events?device=A&channel=Power", "channel: channel name \"Power\" is not valid"),
        ("devices?interval=1s", "interval: not a parameter"),
        ("devices/CORR-01?device=A", "device: not a parameter"),
    ] {
        let answer = setup.get(&format!("/v1/open/{path}"), &[]).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
        let (code, message) = error(&answer);
        assert_eq!(code, "BadRequest");
        assert!(message.contains(expected), "{path}: {message}");
    }
    let url = setup.url("/v1/open/events");
    for (body, expected) in [
        (
            r#"{"device":["CORR-01"]}"#,
            "device: not a parameter of this address (its value is \"[\\\"CORR-01\\\"]\")",
        ),
        ("not json", "the body is not a JSON object"),
    ] {
        let answer = request(Method::POST, &url, &[], body).await.unwrap();
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        assert!(error(&answer).1.contains(expected), "{body}: {}", answer.text());
    }
}

#[tokio::test]
async fn paths_methods_and_sizes_are_checked() {
    let setup = PodFixture::start(&[]).await;
    for path in
        ["/v2/open/events", "/v1/open", "/v1/open/events/more", "/v1", "/missing.js", "/tests/mock.js"]
    {
        let answer = setup.get(path, &[]).await;
        assert_eq!((answer.status, error(&answer).0.as_str()), (StatusCode::NOT_FOUND, "NotFound"), "{path}");
    }
    for path in ["/v1/open/devices/MISSING", "/v1/open/devices/not%20a%20code"] {
        let answer = setup.get(path, &[]).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}: {}", answer.text());
    }
    for (method, path, allow) in [
        (Method::PUT, "/v1/open/events", "GET, POST, OPTIONS"),
        (Method::DELETE, "/v1/open/events", "GET, POST, OPTIONS"),
        (Method::POST, "/v1/open/devices", "GET, OPTIONS"),
        (Method::POST, "/v1/open/devices/CORR-01", "GET, OPTIONS"),
        (Method::POST, "/", "GET, HEAD"),
    ] {
        let answer = request(method.clone(), &setup.url(path), &[], "").await.unwrap();
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        assert_eq!(answer.headers["allow"], allow, "{method} {path}");
        assert_eq!(error(&answer).0, "MethodNotAllowed");
    }
    let url = setup.url("/v1/open/events");
    let padded = |bytes: usize| {
        let body = r#"{"devices":["CORR-01"]}"#;
        body.to_owned() + &" ".repeat(bytes - body.len())
    };
    let answer = request(Method::POST, &url, &[], padded(256 * 1024 + 1)).await.unwrap();
    assert_eq!(
        (answer.status, error(&answer).0.as_str()),
        (StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLarge")
    );
    let body: serde_json::Value = serde_json::json!({"devices": ["CORR-01"], "selector": null});
    SseClient::post(&url, &[], &body).await.unwrap();
    // A request head that is too large.
    let answer = setup.get("/v1/open/devices", &[("x-large", &"A".repeat(100_000))]).await;
    assert_eq!(answer.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}

#[tokio::test]
async fn dashboard_is_served_unless_disabled() {
    let setup = PodFixture::start(&[]).await;
    let page = setup.get("/", &[]).await;
    assert_eq!(
        (page.status, &page.headers["content-type"]),
        (StatusCode::OK, &"text/html; charset=utf-8".parse().unwrap())
    );
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.headers["x-content-type-options"], "nosniff");
    assert_eq!(page.headers["cache-control"], "no-cache");
    let module = setup.get("/flutecast.js", &[]).await;
    assert_eq!(module.headers["content-type"], "text/javascript; charset=utf-8");
    let etag = module.headers["etag"].to_str().unwrap().to_owned();
    let again = setup.get("/flutecast.js", &[("if-none-match", &etag)]).await;
    assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0));
    let head = request(Method::HEAD, &setup.url("/"), &[], "").await.unwrap();
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));

    let without = PodFixture::start(&["--dashboard=false"]).await;
    assert_eq!(without.get("/", &[]).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn admin_port_serves_health_readiness_and_metrics() {
    let mut setup = PodFixture::start(&[]).await;
    let admin = |path: &str| format!("{}{path}", setup.dataplane.admin_url);
    let (live, ready, metrics) = (admin("/livez"), admin("/readyz"), admin("/metrics"));
    assert_eq!(http_client::get(&live).await.unwrap().status, StatusCode::OK);
    let answer = http_client::get_json(&ready).await.unwrap();
    assert_eq!(answer["ready"], true);
    assert_eq!(answer["revisions"]["acme"], serde_json::json!(["r1"]));
    setup.get("/v1/open/devices?bad=1", &[]).await;
    let answer = http_client::get(&metrics).await.unwrap();
    assert!(
        answer.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("application/openmetrics-text; version=1.0.0")
    );
    let text = answer.text();
    for expected in [
        "flutecast_build_info{version=\"",
        "flutecast_http_requests_total{route=\"Devices\",status=\"400\"} 1",
        "flutecast_catalog_revision{revision=\"",
        "flutecast_catalog_tenants 4",
        "flutecast_catalog_devices 8",
        "flutecast_broker_connected 1",
        "flutecast_ready 1",
        "# EOF",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    // The clients' port doesn't serve metrics.
    assert_eq!(setup.get("/metrics", &[]).await.status, StatusCode::NOT_FOUND);

    setup.nats.stop().await.unwrap();
    wait_until("the pod isn't ready", DEADLINE, async || {
        let answer = http_client::get(&ready).await.map_err(|error| error.to_string())?;
        let reasons = answer.text();
        if answer.status == StatusCode::SERVICE_UNAVAILABLE && reasons.contains("broker") {
            Ok(())
        } else {
            Err(reasons)
        }
    })
    .await
    .unwrap();
    assert_eq!(http_client::get(&live).await.unwrap().status, StatusCode::OK);
}
