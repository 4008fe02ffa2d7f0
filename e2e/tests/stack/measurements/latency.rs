//! The latency measurement, with a real nats-server and a relay with known faults.

use std::time::Duration;

use async_nats::jetstream;
use flutecast_bench::latency::{LatencyOptions, LatencyReport, run};
use flutecast_contract::name::TenantName;
use flutecast_testkit::NatsServer;
use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, Copy)]
enum Fault {
    Slow(Duration),
    DropsEveryTenth,
    Closes,
    ServesNone,
}

/// Starts a relay in place of a data plane: it sends all messages of the tenant to each client, with the
/// given fault. Returns its URL.
async fn relay(nats: String, fault: Fault) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, nats.clone(), fault));
        }
    });
    address
}

async fn serve(mut socket: TcpStream, nats: String, fault: Fault) -> Option<()> {
    let mut request = vec![0; 4096];
    let length = socket.read(&mut request).await.ok()?;
    assert!(request[..length].starts_with(b"GET /v1/bench/events?device="));
    let client = async_nats::connect(nats).await.unwrap();
    let mut messages = client.subscribe("live.bench.>").await.unwrap();
    client.flush().await.unwrap();
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let devices = if matches!(fault, Fault::ServesNone) { String::new() } else { ["{}"; 10].join(",") };
    let hello = format!("retry: 1000\n\nevent: hello\ndata: {{\"devices\":[{devices}]}}\n\n");
    let hello = format!("{head}{:x}\r\n{hello}\r\n", hello.len());
    socket.write_all(hello.as_bytes()).await.ok()?;
    let mut count = 0;
    while let Some(message) = messages.next().await {
        count += 1;
        match fault {
            Fault::Slow(delay) => tokio::time::sleep(delay).await,
            Fault::DropsEveryTenth if count % 10 == 0 => continue,
            Fault::Closes if count > 50 => return None,
            Fault::DropsEveryTenth | Fault::Closes | Fault::ServesNone => {}
        }
        let payload = String::from_utf8(message.payload.to_vec()).unwrap();
        let event = format!("data: {{\"device\":\"bench\",\"values\":{payload}}}\n\n");
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        socket.write_all(chunk.as_bytes()).await.ok()?;
    }
    Some(())
}

async fn measure(fault: Fault, rate: u32) -> anyhow::Result<LatencyReport> {
    let nats = NatsServer::start().await?;
    let config = jetstream::stream::Config {
        name: "IOT_bench".into(),
        subjects: vec!["iot.bench.>".into()],
        republish: Some(jetstream::stream::Republish {
            source: "iot.bench.>".into(),
            destination: "live.bench.>".into(),
            headers_only: false,
        }),
        ..Default::default()
    };
    jetstream::new(nats.client().await?).create_stream(config).await?;
    let options = LatencyOptions {
        nats: nats.url(),
        http: relay(nats.url(), fault).await,
        tenant: TenantName::new("bench")?,
        devices: 10,
        rate,
        warm_up: Duration::from_millis(300),
        duration: Duration::from_secs(1),
        clients: 2,
        per_client: None,
        pids: vec![std::process::id()],
    };
    run(&options, &CancellationToken::new()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn data_plane_delay_is_not_attributed_to_the_broker() {
    let report = measure(Fault::Slow(Duration::from_millis(15)), 20).await.unwrap();
    assert!(report.complete(), "{report}");
    assert!(report.sse.median_us >= 15_000, "{report}");
    assert!(report.broker.median_us < 15_000, "{report}");
    assert!(report.median_ratio() > 1.0, "{report}");
    // A message at the edge of the measured second may or may not count.
    assert!((19..=21).contains(&report.broker.expected), "{report}");
    assert_eq!(report.sse.expected, 2 * report.broker.expected, "{report}");
    assert!(report.processes[0].rss_kib > 1000, "{report}");
    let text = report.to_string();
    assert!(text.contains("device → SSE client | 2 | "), "{text}");
    assert!(serde_json::to_value(&report).unwrap()["sse"]["p99Us"].is_u64());
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_do_not_arrive_are_counted() {
    let report = measure(Fault::DropsEveryTenth, 200).await.unwrap();
    assert!(!report.complete(), "{report}");
    assert_eq!(report.broker.received, report.broker.expected, "{report}");
    let missing = report.sse.expected - report.sse.received;
    assert!((36..=44).contains(&missing), "{missing} of 400 are missing: {report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_stream_ends_the_run() {
    let error = measure(Fault::Closes, 200).await.unwrap_err().to_string();
    assert!(error.contains("a receiver ended: the stream ended"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unserved_devices_are_reported_before_anything_is_measured() {
    let error = format!("{:#}", measure(Fault::ServesNone, 200).await.unwrap_err());
    assert!(error.contains("serves 0 of 10 devices"), "{error}");
}
