//! The process while it starts.

use std::fs;

use flutecast_testkit::{Process, SseClient, SseEvent, free_ports, http_client, program, wait_until};
use http::StatusCode;

use crate::fixture::{DEADLINE, PodFixture, access, codes, error, hello, read_to_end, reason, shard};

#[tokio::test]
async fn requests_are_answered_with_starting_before_the_mapping_is_read() {
    let setup = PodFixture::start(&[]).await;
    let empty = tempfile::tempdir().unwrap();
    let [port, admin] = free_ports().unwrap();
    let (listen, admin) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{admin}"));
    let mapping = empty.path().join("later");
    let process = Process::spawn(
        program("flutecast-dataplane").unwrap(),
        [
            "--mapping",
            mapping.to_str().unwrap(),
            "--nats",
            &setup.nats.url(),
            "--listen",
            &listen,
            "--admin",
            &admin,
        ],
    )
    .unwrap();
    wait_until("not ready, for the mapping", DEADLINE, async || {
        let answer =
            http_client::get(&format!("http://{admin}/readyz")).await.map_err(|error| error.to_string())?;
        let text = answer.text();
        if answer.status == 503 && text.contains("mapping folder") { Ok(()) } else { Err(text) }
    })
    .await
    .unwrap_or_else(|error| panic!("{error}: {}", process.tail()));
    for tenant in ["open", "acme", "missing"] {
        let mut client =
            SseClient::connect(&format!("http://{listen}/v1/{tenant}/events?device=A"), &[]).await.unwrap();
        let events = read_to_end(&mut client).await;
        let names: Vec<_> = events.iter().filter(|event| event.data.is_some()).map(SseEvent::name).collect();
        assert_eq!(names, ["hello", "bye"], "{events:?}");
        assert_eq!(reason(events.last().unwrap()), "Starting");
        let answer = http_client::get(&format!("http://{listen}/v1/{tenant}/devices")).await.unwrap();
        assert_eq!((answer.status, error(&answer).0.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "Starting"));
    }
    fs::create_dir(&mapping).unwrap();
    fs::write(mapping.join("flutecast-open-0.yaml"), shard("open", "")).unwrap();
    fs::write(mapping.join("flutecast-access.yaml"), access()).unwrap();
    wait_until("ready", DEADLINE, async || {
        let answer =
            http_client::get(&format!("http://{admin}/readyz")).await.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    })
    .await
    .unwrap();
    let mut client =
        SseClient::connect(&format!("http://{listen}/v1/open/events?device=CORR-01"), &[]).await.unwrap();
    assert_eq!(codes(&hello(&mut client).await), ["CORR-01"]);
}

#[tokio::test]
async fn taken_port_is_reported_at_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mapping = tempfile::tempdir().unwrap();
    let executable = program("flutecast-dataplane").unwrap();
    for (option, other) in [("--listen", "--admin"), ("--admin", "--listen")] {
        let arguments =
            ["--mapping", mapping.path().to_str().unwrap(), option, &address, other, "127.0.0.1:0"];
        let mut process = Process::spawn(&executable, arguments).unwrap();
        let expected = format!("{option} {address} can't be listened on");
        process.wait_for_line("the reason", DEADLINE, |line| line.contains(&expected)).await.unwrap();
        assert!(!process.wait(DEADLINE).await.unwrap().success());
    }
}
