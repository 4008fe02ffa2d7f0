//! Clients that don't read or don't send: they are closed, use little memory and don't delay others. Idle
//! clients are kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flutecast_testkit::{SseClient, SseEvent, wait_until};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Frame, Incoming};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use crate::fixture::{DEADLINE, PodFixture};

fn authority(setup: &PodFixture) -> String {
    setup.dataplane.url.trim_start_matches("http://").to_owned()
}

/// Requests a stream and reads nothing of the response. The small buffer fills early.
async fn connect_and_never_read(setup: &PodFixture) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 * 1024).unwrap();
    let mut socket = socket.connect(authority(setup).parse().unwrap()).await.unwrap();
    let request =
        format!("GET /v1/open/events?device=CORR-01 HTTP/1.1\r\nHost: {}\r\n\r\n", authority(setup));
    socket.write_all(request.as_bytes()).await.unwrap();
    socket
}

async fn wait_for_metric(setup: &PodFixture, name: &str, expected: f64) {
    wait_until(&format!("{name} {expected}"), DEADLINE, async || {
        let value = setup.dataplane.metric(name).await.map_err(|error| error.to_string())?;
        if value == expected { Ok(()) } else { Err(format!("{value}")) }
    })
    .await
    .unwrap();
}

/// The size of the event that [`publish_large`] makes, in KiB.
const LARGE_KIB: u32 = 25 * 4_000 / 1024;

/// Publishes a large value and waits until a client that reads has it, so that nothing queues between the
/// broker and the clients.
async fn publish_large(setup: &PodFixture, reader: &mut SseClient) {
    let payload = json!({"text": "x".repeat(4_000)}).to_string();
    setup.publish("open", "corr1", "large", &payload).await;
    let event = reader.next_where("data", DEADLINE, SseEvent::is_data).await.unwrap();
    assert!(event.data.unwrap().len() > LARGE_KIB as usize * 1024);
}

async fn connect_and_read(setup: &PodFixture) -> SseClient {
    let mut reader = setup.connect("/v1/open/events?device=CORR-01", &[]).await;
    reader.next_named("hello", DEADLINE).await.unwrap();
    reader
}

#[tokio::test]
async fn clients_that_never_read_are_closed_and_use_bounded_memory() {
    const CLIENTS: u32 = 30;
    let setup = PodFixture::start(&["--take-timeout", "2s"]).await;
    let mut reader = connect_and_read(&setup).await;
    // A large message first, so that the memory that any message takes is already allocated.
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
        // The reader isn't delayed by the others.
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
    assert!(published > 4 * 32 * 1024 / CLIENTS, "too little was published: {published} KiB");
    // Their connections are closed; they don't hang.
    for mut socket in stuck {
        let mut sink = Vec::new();
        let _ = timeout(DEADLINE, socket.read_to_end(&mut sink)).await.expect("the connection is closed");
    }
}

async fn count_bytes(mut body: Incoming, received: Arc<AtomicUsize>) {
    while let Some(frame) = body.frame().await {
        received.fetch_add(frame.unwrap().data_ref().map_or(0, bytes::Bytes::len), Ordering::Relaxed);
    }
}

/// Reads until the body ends or fails.
async fn last_frame(body: &mut Incoming) -> Option<Result<Frame<bytes::Bytes>, hyper::Error>> {
    loop {
        match body.frame().await {
            Some(Ok(_)) => {}
            other => return other,
        }
    }
}

#[tokio::test]
async fn stalled_http2_stream_is_reset_while_others_continue() {
    let setup = PodFixture::start(&["--take-timeout", "2s"]).await;
    let socket = TcpStream::connect(authority(&setup)).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake::<_, _, Empty<bytes::Bytes>>(
        executor,
        hyper_util::rt::TokioIo::new(socket),
    )
    .await
    .unwrap();
    // The connection answers pings, as that of a gateway with many clients: only one of its streams stalls.
    let connection = tokio::spawn(connection);
    let mut open = async || {
        let uri = format!("http://{}/v1/open/events?device=CORR-01", authority(&setup));
        let request = http::Request::get(uri).body(Empty::new()).unwrap();
        sender.send_request(request).await.unwrap().into_body()
    };
    let (mut stuck, read) = (open().await, open().await);
    let received = Arc::new(AtomicUsize::new(0));
    let reading = tokio::spawn(count_bytes(read, Arc::clone(&received)));
    let mut reader = connect_and_read(&setup).await;
    wait_for_metric(&setup, "flutecast_http_streams ", 3.0).await;
    let end = Instant::now() + DEADLINE;
    while setup.dataplane.metric("flutecast_http_streams ").await.unwrap() > 2.0 {
        assert!(Instant::now() < end, "it is still open: {}", setup.dataplane.metrics().await.unwrap());
        publish_large(&setup, &mut reader).await;
    }
    // It was reset only after its window was full.
    let bytes = setup.dataplane.metric("flutecast_http_stream_bytes_total").await.unwrap();
    assert!(bytes > 1_000_000.0, "{bytes}");
    wait_for_metric(&setup, "flutecast_http_streams_stalled_total", 1.0).await;
    let reset = timeout(DEADLINE, last_frame(&mut stuck)).await.unwrap();
    assert!(matches!(reset, Some(Err(_))), "it must be reset, not look complete: {reset:?}");
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
async fn idle_client_that_reads_is_kept() {
    let setup = PodFixture::start(&["--take-timeout", "1s", "--ping", "1m"]).await;
    let mut client = connect_and_read(&setup).await;
    // Four times the timeout without a byte.
    let silence = client.collect_for(Duration::from_secs(4)).await.unwrap();
    assert!(silence.iter().all(|event| event.name() != "bye"), "{silence:?}");
    setup.publish("open", "corr1", "telemetry", r#"{"v": 5}"#).await;
    client.next_where("data", DEADLINE, SseEvent::is_data).await.unwrap();
}

#[tokio::test]
async fn sockets_without_a_complete_request_head_are_closed() {
    let setup = PodFixture::start(&[]).await;
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
    assert!(start.elapsed() > Duration::from_secs(5), "closed too early");
    wait_for_metric(&setup, "flutecast_http_sockets ", 0.0).await;
}

#[tokio::test]
async fn disconnected_client_is_released_at_once() {
    let setup = PodFixture::start(&[]).await;
    let client = connect_and_read(&setup).await;
    drop(client);
    wait_for_metric(&setup, "flutecast_http_streams ", 0.0).await;
    wait_for_metric(&setup, "flutecast_http_sockets ", 0.0).await;
}
