//! What a pod says of messages that can't be shown: in the event stream, in the JSON API and in its log.

use std::time::Duration;

use flutecast_testkit::{SseClient, wait_until};
use serde_json::Value;

use crate::fixture::{ALL, DEADLINE, PodFixture};

/// The longest that a problem may take to be told, and its end behind the last bad message.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// Returns the next problem of the channel `telemetry`; `Null` if it has ended.
async fn next_problem(client: &mut SseClient, within: Duration) -> Value {
    let event = client.next_named("problem", within).await.unwrap();
    assert_eq!(event.id, None, "{event:?}");
    let data = event.json().unwrap();
    assert_eq!((&data["device"], &data["channel"]), (&"CORR-01".into(), &"telemetry".into()), "{data}");
    data["problem"].clone()
}

async fn json_problem(setup: &PodFixture) -> Value {
    let token = format!("Bearer {ALL}");
    let answer = setup.get("/v1/acme/devices/CORR-01", &[("authorization", &token)]).await;
    let telemetry = answer.json().unwrap()["channels"]["telemetry"].clone();
    assert!(telemetry.get("problem").is_some(), "{telemetry}");
    telemetry["problem"].clone()
}

/// Returns the log's lines about problems, when there are so many.
async fn lines_of_problems(setup: &PodFixture, count: usize) -> Vec<String> {
    let lines = || {
        let output = setup.dataplane.process.output().into_iter();
        output.filter(|line| line.contains("problem with a message")).collect::<Vec<_>>()
    };
    let enough = async || if lines().len() == count { Ok(()) } else { Err(format!("{:#?}", lines())) };
    wait_until("the lines about problems", DEADLINE, enough).await.unwrap();
    lines()
}

#[tokio::test]
async fn a_problem_is_named_on_the_stream_in_json_and_in_the_log_until_it_heals() {
    let setup = PodFixture::start(&[]).await;
    let mut client =
        setup.connect(&format!("/v1/acme/events?device=CORR-01&problems=true&access_token={ALL}"), &[]).await;
    setup.publish("acme", "corr1", "telemetry", r#"{"v":1}"#).await;
    client.next_named("message", DEADLINE).await.unwrap();
    assert_eq!(json_problem(&setup).await, Value::Null);

    setup.publish("acme", "corr1", "telemetry", "{\"v\":2,\"text\":\"cut off").await;
    let problem = next_problem(&mut client, TOLD_WITHIN).await;
    assert_eq!((&problem["reason"], &problem["count"]), (&"Malformed".into(), &1.into()));
    assert!(problem["message"].as_str().unwrap().len() > 20, "{problem}");
    assert_eq!(json_problem(&setup).await, problem);
    let line = |line: &str| {
        ["WARN", "tenant=acme", "device=CORR-01", "channel=telemetry", "Malformed", "cut off"]
            .iter()
            .all(|part| line.contains(part))
    };
    let logged = lines_of_problems(&setup, 1).await;
    assert!(line(&logged[0]), "{logged:#?}");

    setup.publish("acme", "corr1", "telemetry", r#"{"v":3}"#).await;
    assert_eq!(next_problem(&mut client, 2 * TOLD_WITHIN).await, Value::Null);
    assert_eq!(json_problem(&setup).await, Value::Null);
    let output = setup.dataplane.process.output().join("\n");
    assert!(!output.contains(ALL), "no token in the log");
}

#[tokio::test]
async fn the_json_names_problems_of_channels_that_nobody_watches() {
    let setup = PodFixture::start(&[]).await;
    setup.publish("acme", "corr1", "telemetry", r#"{"v":1}"#).await;
    setup.publish("acme", "corr1", "telemetry", r#"{"w":1}"#).await;
    let problem = json_problem(&setup).await;
    assert_eq!(problem["reason"], "NoFields", "{problem}");
    setup.publish("acme", "corr1", "telemetry", r#"{"v":"fast"}"#).await;
    let problem = json_problem(&setup).await;
    assert_eq!((&problem["reason"], &problem["field"]), (&"BadField".into(), &"v".into()));
    assert_eq!((&problem["place"], &problem["found"]), (&"/v".into(), &"fast".into()));
}

#[tokio::test]
async fn only_the_log_and_a_look_show_more_of_a_payload_than_a_declared_field() {
    let setup = PodFixture::start(&[]).await;
    let mut client =
        setup.connect(&format!("/v1/acme/events?device=CORR-01&problems=true&access_token={ALL}"), &[]).await;
    client.next_named("hello", DEADLINE).await.unwrap();
    let undeclared = "recipe-".repeat(40);
    let long = "7".repeat(400);
    for payload in [
        format!("{{\"recipe\":\"{undeclared}\",\"v\":\"{long}\"}}"),
        format!("{{\"recipe\":\"{undeclared}\",\"v\":\"{long}"),
    ] {
        setup.publish("acme", "corr1", "telemetry", &payload).await;
        let problem = next_problem(&mut client, TOLD_WITHIN).await.to_string();
        let json = json_problem(&setup).await.to_string();
        for text in [&problem, &json] {
            assert!(!text.contains("recipe"), "{text}");
            assert!(!text.contains(&long[..65]), "{text}");
        }
    }
    for line in lines_of_problems(&setup, 2).await {
        assert!(line.contains("recipe-recipe-") && !line.contains(&undeclared), "{line}");
        assert!(line.len() < 900, "{line}");
    }
}
