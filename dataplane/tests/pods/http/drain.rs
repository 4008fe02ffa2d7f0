//! A pod sends its clients away a few at a time, on connections that are not used again.

use std::time::{Duration, Instant};

use bytes::Bytes;
use flutecast_testkit::{http_client, wait_until};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::fixture::{DEADLINE, PodFixture, hello, read_to_end, reason};

const EVENTS: &str = "/v1/open/events?device=CORR-01";

#[tokio::test]
async fn drain_window_spreads_clients_and_serves_each_until_its_turn() {
    let arguments = ["--drain-delay", "1s", "--drain-window", "4s", "--termination-grace", "20s"];
    let mut setup = PodFixture::start(&arguments).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = setup.connect(EVENTS, &[]).await;
        client.next_named("hello", DEADLINE).await.unwrap();
        assert_eq!(client.headers()["connection"], "close", "the client would come back on it");
        clients.push(client);
    }
    setup.dataplane.process.signal_term().unwrap();
    let begin = Instant::now();
    let reading = clients.into_iter().map(|mut client| {
        tokio::spawn(async move {
            let mut values = Vec::new();
            loop {
                let event = client.next(DEADLINE).await.unwrap();
                match event.name() {
                    "bye" => {
                        assert_eq!(reason(&event), "Draining");
                        let retry = event.json().unwrap()["retryMs"].as_u64().unwrap();
                        let at = begin.elapsed();
                        assert_eq!(client.next_or_end(DEADLINE).await.unwrap(), None);
                        return (at, retry, values);
                    }
                    "message" if event.is_data() => {
                        values.extend(event.json().unwrap()["values"]["code"].as_f64())
                    }
                    _ => {}
                }
            }
        })
    });
    let reading: Vec<_> = reading.collect();
    // Messages go on to those whose turn hasn't come.
    for code in 1..=40 {
        setup.publish("open", "corr1", "alarms", &format!("{{\"code\": {code}}}")).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut times = Vec::new();
    for read in reading {
        let (at, retry, values) = read.await.unwrap();
        assert!((100..=600).contains(&retry), "{retry}");
        let expected: Vec<f64> = (1..=values.len()).map(|code| code as f64).collect();
        assert_eq!(values, expected, "all until its turn");
        times.push((at, values.len()));
    }
    times.sort_unstable();
    let (first, last) = (times[0], times[19]);
    assert!(first.0 >= Duration::from_secs(1) && last.0 <= Duration::from_secs(7), "{times:?}");
    assert!(last.0 - first.0 >= Duration::from_secs(2) && last.1 > first.1 + 10, "not spread: {times:?}");
    let status = setup.dataplane.process.wait(Duration::from_secs(5)).await.unwrap();
    assert!(status.success(), "{status}: {}", setup.dataplane.process.tail());
}

#[tokio::test]
async fn drain_without_clients_ends_at_once() {
    let mut setup = PodFixture::start(&["--drain-delay", "0s", "--drain-window", "15s"]).await;
    let begin = Instant::now();
    setup.dataplane.process.signal_term().unwrap();
    let status = setup.dataplane.process.wait(DEADLINE).await.unwrap();
    assert!(status.success() && begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn draining_http2_connection_refuses_requests_and_ends_with_its_last_stream() {
    let mut setup = PodFixture::start(&["--drain-delay", "0s", "--drain-window", "3s"]).await;
    let address = setup.dataplane.url.trim_start_matches("http://").to_owned();
    let socket = tokio::net::TcpStream::connect(&address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut bodies = Vec::new();
    for _ in 0..6 {
        let request = Request::get(format!("http://{address}{EVENTS}")).body(Empty::<Bytes>::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(!answer.headers().contains_key("connection"), "HTTP/2 has no such header");
        bodies.push(answer.into_body());
    }
    setup.dataplane.process.signal_term().unwrap();
    let mut ends = Vec::new();
    for body in bodies {
        let text = tokio::time::timeout(DEADLINE, body.collect()).await.unwrap().unwrap().to_bytes();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(text.contains("event: bye") && text.contains("Draining"), "{text}");
        ends.push(Instant::now());
    }
    // The first bye has closed the connection for requests, and the other streams went on all the same.
    assert!(ends[5] - ends[0] > Duration::from_secs(1), "{ends:?}");
    let ended = tokio::time::timeout(DEADLINE, connection).await;
    assert!(ended.is_ok(), "the connection ends with its last stream");
    let request = Request::get(format!("http://{address}{EVENTS}")).body(Empty::<Bytes>::new()).unwrap();
    assert!(sender.send_request(request).await.is_err());
    assert!(setup.dataplane.process.wait(DEADLINE).await.unwrap().success());
}

#[tokio::test]
async fn drain_without_window_spreads_retry_times_and_exits_cleanly() {
    let mut setup = PodFixture::start(&["--drain-delay", "1s", "--termination-grace", "20s"]).await;
    let mut clients = Vec::new();
    for _ in 0..12 {
        let mut client = setup.connect(EVENTS, &[]).await;
        hello(&mut client).await;
        clients.push(client);
    }
    // A connection that is only kept open must not hold the end up.
    let idle =
        tokio::net::TcpStream::connect(setup.dataplane.url.trim_start_matches("http://")).await.unwrap();
    setup.dataplane.process.signal_term().unwrap();
    wait_until("not ready any more", DEADLINE, async || {
        let answer = http_client::get(&format!("{}/readyz", setup.dataplane.admin_url))
            .await
            .map_err(|e| e.to_string())?;
        if answer.status == 503 && answer.text().contains("draining") { Ok(()) } else { Err(answer.text()) }
    })
    .await
    .unwrap();
    // Until the delay is over, new clients are still served.
    let mut late = setup.connect(EVENTS, &[]).await;
    hello(&mut late).await;
    clients.push(late);
    let mut retries = Vec::new();
    for client in &mut clients {
        let events = read_to_end(client).await;
        let bye = events.last().unwrap();
        assert_eq!(reason(bye), "Draining");
        retries.push(bye.json().unwrap()["retryMs"].as_u64().unwrap());
    }
    retries.sort_unstable();
    retries.dedup();
    assert!(retries.len() > 6 && retries[retries.len() - 1] - retries[0] > 2_000, "not spread: {retries:?}");
    let status = setup.dataplane.process.wait(Duration::from_secs(8)).await.unwrap();
    assert!(status.success(), "{status}: {}", setup.dataplane.process.tail());
    drop(idle);
}

#[tokio::test]
async fn second_signal_ends_the_process_at_once() {
    let mut setup = PodFixture::start(&["--drain-delay", "1m", "--termination-grace", "5m"]).await;
    let mut client = setup.connect(EVENTS, &[]).await;
    hello(&mut client).await;
    setup.dataplane.process.signal_term().unwrap();
    setup
        .dataplane
        .process
        .wait_for_line("draining", DEADLINE, |line| line.contains("draining"))
        .await
        .unwrap();
    setup.dataplane.process.signal_term().unwrap();
    let status = setup.dataplane.process.wait(DEADLINE).await.unwrap();
    assert!(!status.success(), "{status}");
}
