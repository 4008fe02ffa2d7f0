//! Clients that take nothing, send nothing, or only look as if: they cost little, hurt nobody, and are
//! closed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what is wrong by failing"
)]

mod http_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flutecast_e2e::{SseClient, SseEvent, wait_until};
use http_body_util::{BodyExt, Empty};
use http_support::{Box, DEADLINE};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

fn authority(setup: &Box) -> String {
    setup.dataplane.url.trim_start_matches("http://").to_owned()
}

/// Asks for a stream and reads not even the head of the answer. The small buffer makes that felt early.
async fn connect_and_never_read(setup: &Box) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 * 1024).unwrap();
    let mut socket = socket.connect(authority(setup).parse().unwrap()).await.unwrap();
    let request =
        format!("GET /v1/open/events?device=CORR-01 HTTP/1.1\r\nHost: {}\r\n\r\n", authority(setup));
    socket.write_all(request.as_bytes()).await.unwrap();
    socket
}

async fn wait_for_metric(setup: &Box, name: &str, expected: f64) {
    wait_until(&format!("{name} {expected}"), DEADLINE, async || {
        let value = setup.dataplane.metric(name).await.map_err(|error| error.to_string())?;
        if value == expected { Ok(()) } else { Err(format!("{value}")) }
    })
    .await
    .unwrap();
}

/// The size of the event that [`publish_large`] makes, in KiB.
const LARGE_KIB: u32 = 25 * 4_000 / 1024;

/// Publishes a large value and waits until a client that reads has it: nothing piles up between the broker
/// and the clients.
async fn publish_large(setup: &Box, reader: &mut SseClient) {
    let payload = json!({"text": "x".repeat(4_000)}).to_string();
    setup.publish("open", "corr1", "large", &payload).await;
    let event = reader.next_where("data", DEADLINE, SseEvent::is_data).await.unwrap();
    assert!(event.data.unwrap().len() > LARGE_KIB as usize * 1024);
}

async fn connect_and_read(setup: &Box) -> SseClient {
    let mut reader = setup.connect("/v1/open/events?device=CORR-01", &[]).await;
    reader.next_named("hello", DEADLINE).await.unwrap();
    reader
}

#[tokio::test]
async fn clients_that_never_read_are_closed_and_cost_little() {
    const CLIENTS: u32 = 30;
    let setup = Box::start(&["--take-timeout", "2s"]).await;
    let mut reader = connect_and_read(&setup).await;
    // A large message first, so that what it takes in any case is there.
    publish_large(&setup, &mut reader).await;
    let before = setup.dataplane.process.rss_kib().unwrap();
    let mut stuck = Vec::new();
    for _ in 0..CLIENTS {
        stuck.push(connect_and_never_read(&setup).await);
    }
    wait_for_metric(&setup, "flutecast_http_streams ", f64::from(CLIENTS + 1)).await;
    let mut largest = before;
    let mut received = 0_u32;
    let end = Instant::now() + DEADLINE;
    while setup.dataplane.metric("flutecast_http_streams ").await.unwrap() > 1.0 {
        assert!(Instant::now() < end, "some are still open: {}", setup.dataplane.metrics().await.unwrap());
        // The reader isn't held up by the others.
        publish_large(&setup, &mut reader).await;
        received += 1;
        largest = largest.max(setup.dataplane.process.rss_kib().unwrap());
    }
    wait_for_metric(&setup, "flutecast_http_sockets ", 1.0).await;
    // 64 KiB in the writer and a few messages of 100 KB each, not all that was published.
    let (grown, published) = (largest - before, received * LARGE_KIB);
    assert!(
        grown < 32 * 1024,
        "{grown} KiB more for {CLIENTS} clients; {published} KiB were published to each"
    );
    assert!(published > 4 * 32 * 1024 / CLIENTS, "too little to tell: {published} KiB");
    // What came through to them ends in a broken connection, not in silence.
    for mut socket in stuck {
        let mut sink = Vec::new();
        let _ = timeout(DEADLINE, socket.read_to_end(&mut sink)).await.expect("the connection is closed");
    }
}

#[tokio::test]
async fn a_stream_of_an_http2_connection_that_is_never_read_is_closed_and_the_others_go_on() {
    let setup = Box::start(&["--take-timeout", "2s"]).await;
    let socket = TcpStream::connect(authority(&setup)).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake::<_, _, Empty<bytes::Bytes>>(
        executor,
        hyper_util::rt::TokioIo::new(socket),
    )
    .await
    .unwrap();
    // The connection itself goes on answering pings, as that of a gateway with many clients: only one stream
    // stands still.
    let connection = tokio::spawn(connection);
    let mut open = async || {
        let uri = format!("http://{}/v1/open/events?device=CORR-01", authority(&setup));
        let request = http::Request::get(uri).body(Empty::new()).unwrap();
        sender.send_request(request).await.unwrap().into_body()
    };
    let (mut stuck, mut read) = (open().await, open().await);
    let received = Arc::new(AtomicUsize::new(0));
    let reading = tokio::spawn({
        let received = Arc::clone(&received);
        async move {
            while let Some(frame) = read.frame().await {
                received.fetch_add(frame.unwrap().data_ref().map_or(0, bytes::Bytes::len), Ordering::Relaxed);
            }
        }
    });
    let mut reader = connect_and_read(&setup).await;
    wait_for_metric(&setup, "flutecast_http_streams ", 3.0).await;
    let end = Instant::now() + DEADLINE;
    while setup.dataplane.metric("flutecast_http_streams ").await.unwrap() > 2.0 {
        assert!(Instant::now() < end, "it is still open: {}", setup.dataplane.metrics().await.unwrap());
        publish_large(&setup, &mut reader).await;
    }
    // It had its window full, and wasn't ended before.
    let bytes = setup.dataplane.metric("flutecast_http_stream_bytes_total").await.unwrap();
    assert!(bytes > 1_000_000.0, "{bytes}");
    wait_for_metric(&setup, "flutecast_http_streams_stalled_total", 1.0).await;
    let reset = async {
        loop {
            match stuck.frame().await {
                Some(Ok(_)) => {}
                other => break other,
            }
        }
    };
    let reset = timeout(DEADLINE, reset).await.unwrap();
    assert!(matches!(reset, Some(Err(_))), "it is reset, and doesn't look complete: {reset:?}");
    drop(stuck);
    let before = received.load(Ordering::Relaxed);
    publish_large(&setup, &mut reader).await;
    wait_until("the other stream to go on", DEADLINE, async || {
        let now = received.load(Ordering::Relaxed);
        if now >= before + LARGE_KIB as usize * 1024 {
            Ok(())
        } else {
            Err(format!("{} bytes", now - before))
        }
    })
    .await
    .unwrap();
    assert!(!reading.is_finished() && !connection.is_finished());
    wait_for_metric(&setup, "flutecast_http_streams ", 2.0).await;
}

#[tokio::test]
async fn a_client_that_reads_is_kept_however_little_there_is() {
    let setup = Box::start(&["--take-timeout", "1s", "--ping", "1m"]).await;
    let mut client = connect_and_read(&setup).await;
    // Four times the timeout without a byte.
    let silence = client.collect_for(Duration::from_secs(4)).await.unwrap();
    assert!(silence.iter().all(|event| event.name() != "bye"), "{silence:?}");
    setup.publish("open", "corr1", "telemetry", r#"{"v": 5}"#).await;
    client.next_where("data", DEADLINE, SseEvent::is_data).await.unwrap();
}

#[tokio::test]
async fn sockets_that_send_no_whole_head_are_closed() {
    let setup = Box::start(&[]).await;
    let start = Instant::now();
    let waits = ["", "GET /v1/open/events?device=CORR-01 HTTP/1.1\r\nHost: a\r\n", "PRI * HTTP/2.0\r\n"].map(
        |sent| {
            let authority = authority(&setup);
            tokio::spawn(async move {
                let mut socket = TcpStream::connect(authority).await.unwrap();
                socket.write_all(sent.as_bytes()).await.unwrap();
                let _ = timeout(DEADLINE, socket.read_to_end(&mut Vec::new()))
                    .await
                    .expect("the connection is closed");
            })
        },
    );
    for wait in waits {
        wait.await.unwrap();
    }
    assert!(start.elapsed() > Duration::from_secs(5), "closed before it could have come");
    wait_for_metric(&setup, "flutecast_http_sockets ", 0.0).await;
}

#[tokio::test]
async fn a_client_that_leaves_is_forgotten_at_once() {
    let setup = Box::start(&[]).await;
    let client = connect_and_read(&setup).await;
    drop(client);
    wait_for_metric(&setup, "flutecast_http_streams ", 0.0).await;
    wait_for_metric(&setup, "flutecast_http_sockets ", 0.0).await;
}
