//! Gateways that lead to the pod under a path.

use flutecast_testkit::SseClient;
use flutecast_testkit::http_client::request;
use http::{Method, StatusCode};

use crate::fixture::{ALL, PodFixture, error, hello};

const SCREENS: &str = "https://screens.acme.example";

#[tokio::test]
async fn everything_is_served_below_each_prefix_and_at_the_root() {
    let setup = PodFixture::start(&["--path-prefix=/plant-1", "--path-prefix=/eu/plant-2"]).await;
    let token = format!("Bearer {ALL}");
    for prefix in ["", "/plant-1", "/eu/plant-2"] {
        let page = setup.get(&format!("{prefix}/"), &[]).await;
        assert_eq!(page.status, StatusCode::OK, "{prefix}");
        // A browser resolves the page's addresses, all relative, below the prefix.
        for file in ["style.css", "dashboard.js", "flutecast.js", "favicon.svg"] {
            let answer = setup.get(&format!("{prefix}/{file}"), &[]).await;
            assert_eq!(answer.status, StatusCode::OK, "{prefix}/{file}");
        }
        let headers = [("authorization", token.as_str()), ("origin", SCREENS)];
        let devices = setup.get(&format!("{prefix}/v1/acme/devices/CORR-01?channel=alarms"), &headers).await;
        assert_eq!(devices.json().unwrap()["device"], "CORR-01", "{prefix}");
        assert_eq!(devices.headers["access-control-allow-origin"], SCREENS);
        let mut stream = setup.connect(&format!("{prefix}/v1/acme/events?device=*"), &headers).await;
        hello(&mut stream).await;
        let posted = serde_json::json!({"devices": ["CORR-01"]});
        let url = setup.url(&format!("{prefix}/v1/acme/events"));
        hello(&mut SseClient::post(&url, &headers, &posted).await.unwrap()).await;

        let asked = [("origin", SCREENS), ("access-control-request-method", "GET")];
        let url = setup.url(&format!("{prefix}/v1/acme/events"));
        let preflight = request(Method::OPTIONS, &url, &asked, "").await.unwrap();
        assert_eq!(preflight.status, StatusCode::NO_CONTENT, "{prefix}");
        let foreign = setup
            .get(&format!("{prefix}/v1/acme/devices"), &[headers[0], ("origin", "https://evil.example")])
            .await;
        assert_eq!(foreign.status, StatusCode::FORBIDDEN, "{prefix}");
    }
}

#[tokio::test]
async fn a_prefix_without_a_slash_leads_to_the_page_and_other_paths_nowhere() {
    let setup = PodFixture::start(&["--path-prefix=/plant-1"]).await;
    for (path, location) in [
        ("/plant-1", "/plant-1/"),
        ("/plant-1?tenant=acme&device=A%2F1", "/plant-1/?tenant=acme&device=A%2F1"),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let answer = request(method, &setup.url(path), &[], "").await.unwrap();
            assert_eq!(
                (answer.status, &answer.headers["location"]),
                (StatusCode::TEMPORARY_REDIRECT, &location.parse().unwrap()),
                "{path}"
            );
        }
    }
    for path in ["/plant-10/", "/plant-2", "/plant-1/plant-1/", "/plant-1//", "/x/plant-1/"] {
        let answer = setup.get(path, &[]).await;
        assert_eq!((answer.status, error(&answer).0.as_str()), (StatusCode::NOT_FOUND, "NotFound"), "{path}");
    }
}
