//! The devices as JSON.

use flutecast_testkit::wait_until;
use serde_json::json;

use crate::fixture::{DEADLINE, PodFixture, codes, error};

#[tokio::test]
async fn devices_are_returned_as_json() {
    let mut setup = PodFixture::start(&[]).await;
    setup.publish("open", "corr1", "telemetry", r#"{"v": 12.34, "text": "a\"b"}"#).await;
    let one = setup.get("/v1/open/devices/CORR-01", &[]).await;
    assert_eq!(one.headers["content-type"], "application/json");
    assert_eq!(one.headers["cache-control"], "no-store");
    let one = one.json().unwrap();
    assert_eq!((&one["device"], &one["name"]), (&json!("CORR-01"), &json!("corrugator-1")));
    assert_eq!(one["labels"], json!({"line": "l1"}));
    assert_eq!(one["channels"]["telemetry"]["values"], json!({"v": 12.3, "text": "a\"b"}));
    assert_eq!(one["channels"]["telemetry"]["stale"], json!(false));
    let empty = json!({"seq": null, "time": null, "stale": false, "values": null, "problem": null});
    assert_eq!(one["channels"]["alarms"], empty);
    let all = setup.get("/v1/open/devices", &[]).await.json().unwrap();
    assert_eq!(codes(&all), ["CORR-01", "FLEX-01"]);
    assert_eq!(all["devices"][0], one);
    let selected =
        setup.get("/v1/open/devices?selector=line!%3Dl1&channel=alarms", &[]).await.json().unwrap();
    assert_eq!(codes(&selected), ["FLEX-01"]);
    assert_eq!(selected["devices"][0]["channels"].as_object().unwrap().len(), 1);

    setup.nats.stop().await.unwrap();
    wait_until("the broker's absence", DEADLINE, async || {
        let answer = setup.get("/v1/open/devices/FLEX-01", &[]).await;
        let seen = answer.text();
        if answer.status == 503 && error(&answer).0 == "BrokerAway" { Ok(()) } else { Err(seen) }
    })
    .await
    .unwrap();
}
