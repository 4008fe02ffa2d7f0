//! Real nginx and HAProxy with the shipped example configurations, in front of two data planes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use flutecast_testkit::fleet::{Fleet, FleetOptions, FleetReport};
use flutecast_testkit::{
    Dataplane, DataplaneOptions, Gateway, GatewayPod, LocalStack, ServiceProxy, SseClient, http_client,
    wait_until,
};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::factory::{SOON, stack, switch, value};

const QUERY: &str = "/v1/acme/events?device=A-1&channel=switch";
/// The gateways' timeouts are shortened to a fifteenth of the shipped ones, so the ping interval is too.
const PING: &str = "1s";

/// A stack, two data planes and the gateway in front of them.
struct Plant {
    stack: LocalStack,
    pods: Vec<Dataplane>,
    /// Stands for kube-proxy if the gateway connects to the Service.
    service: Option<ServiceProxy>,
    gateway: Gateway,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Nginx,
    Haproxy,
}

fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().unwrap()
}

impl Plant {
    async fn open(kind: Kind) -> anyhow::Result<Self> {
        let stack = stack().await?;
        let pod = async |name| stack.dataplane_with(&["--ping", PING, "--server-name", name]).await;
        let pods = vec![pod("pod-0").await?, pod("pod-1").await?];
        let (service, gateway) = match kind {
            Kind::Nginx => {
                let service = ServiceProxy::start().await?;
                let edits = [
                    ("proxy_read_timeout 60s", "proxy_read_timeout 4s"),
                    ("send_timeout 60s", "send_timeout 4s"),
                ];
                let gateway = Gateway::nginx(service.address, &edits).await?;
                (Some(service), gateway)
            }
            Kind::Haproxy => {
                let seen = |pod: &Dataplane| GatewayPod {
                    clients: address(&pod.url),
                    admin: address(&pod.admin_url),
                };
                let seen: Vec<_> = pods.iter().map(seen).collect();
                let edits = [
                    ("timeout client 60s", "timeout client 4s"),
                    ("timeout server 60s", "timeout server 4s"),
                ];
                (None, Gateway::haproxy(&seen, &edits).await?)
            }
        };
        let this = Self { stack, pods, service, gateway };
        this.set_ready_pods(&[0, 1]);
        this.wait_until_served().await?;
        Ok(this)
    }

    /// Sets the pods to which the Service sends new clients.
    fn set_ready_pods(&self, pods: &[usize]) {
        if let Some(service) = &self.service {
            service.set_ready(pods.iter().map(|pod| address(&self.pods[*pod].url)).collect());
        }
    }

    /// Waits until a request passes the gateway. HAProxy checks the pods once a second.
    async fn wait_until_served(&self) -> anyhow::Result<()> {
        let url = format!("{}/v1/acme/devices", self.gateway.url);
        wait_until("a response through the gateway", SOON, async || match http_client::get(&url).await {
            Ok(answer) if answer.status == StatusCode::OK => Ok(()),
            Ok(answer) => Err(format!("{}: {}", answer.status, answer.text())),
            Err(error) => Err(format!("{error:#}")),
        })
        .await
    }

    fn events(&self) -> String {
        format!("{}{QUERY}", self.gateway.url)
    }

    fn fleet(&self, clients: usize) -> anyhow::Result<Fleet> {
        Fleet::start(&FleetOptions::new(self.events(), clients))
    }
}

async fn gateway_forwards_events_unbuffered(kind: Kind) -> anyhow::Result<()> {
    let plant = Plant::open(kind).await?;
    let subject = plant.stack.subject("A-1", "switch")?;
    let publisher = plant.stack.publisher().await?;
    publisher.publish(&subject, switch(0)).await?;

    let headers = [("accept-encoding", "gzip, br")];
    let mut through = SseClient::connect(&plant.events(), &headers).await?;
    let mut direct = SseClient::connect(&format!("{}{QUERY}", plant.pods[0].url), &headers).await?;
    assert_eq!(through.headers().get("content-encoding"), None, "compression would buffer the stream");
    for client in [&mut through, &mut direct] {
        client.next_named("hello", SOON).await?;
        client.next_named("message", SOON).await?;
    }
    // Each event arrives before the next one is sent, so the gateway doesn't buffer.
    let (mut times, mut behind) = (Vec::new(), Vec::new());
    for n in 1..=50 {
        let begin = Instant::now();
        publisher.publish(&subject, switch(n)).await?;
        assert_eq!(value(&direct.next_named("message", SOON).await?).unwrap().2, n);
        let there = begin.elapsed();
        assert_eq!(value(&through.next_named("message", Duration::from_secs(2)).await?).unwrap().2, n);
        times.push(begin.elapsed());
        behind.push(begin.elapsed() - there);
    }
    times.sort_unstable();
    behind.sort_unstable();
    eprintln!(
        "through the gateway: median {:?}, longest {:?}; behind a direct client by {:?}, {:?}",
        times[25], times[49], behind[25], behind[49]
    );
    assert!(behind[25] < Duration::from_millis(100), "{behind:?}");

    pings_keep_an_idle_stream_open(&mut through).await?;
    publisher.publish(&subject, switch(51)).await?;
    through.next_named("message", SOON).await?;
    origins_are_checked(&plant).await?;
    secrets_are_not_logged(&plant).await
}

/// Without messages for three of the gateway's timeouts, pings keep the stream open.
async fn pings_keep_an_idle_stream_open(through: &mut SseClient) -> anyhow::Result<()> {
    let silence = through.collect_for(Duration::from_secs(12)).await?;
    assert!(silence.iter().filter(|event| event.name() == "ping").count() >= 6, "{silence:?}");
    Ok(())
}

/// Pages of the gateway's own origin may read, pages of other origins may not. A request body is forwarded.
async fn origins_are_checked(plant: &Plant) -> anyhow::Result<()> {
    let own = format!("http://{}", plant.gateway.url.trim_start_matches("http://"));
    let mut posted = SseClient::post(
        &format!("{}/v1/acme/events", plant.gateway.url),
        &[("origin", &own)],
        &serde_json::json!({"devices": ["A-1"]}),
    )
    .await?;
    posted.next_named("hello", SOON).await?;
    let foreign =
        http_client::request(Method::GET, &plant.events(), &[("origin", "http://evil.example")], "").await?;
    assert_eq!(foreign.status, StatusCode::FORBIDDEN);
    Ok(())
}

/// The gateway logs requests without the secrets in their query.
async fn secrets_are_not_logged(plant: &Plant) -> anyhow::Result<()> {
    let secret = "access_token=s3cr3t-of-a-screen";
    let _ = http_client::get(&format!("{}/v1/acme/devices?{secret}", plant.gateway.url)).await?;
    wait_until("a line in the log", SOON, async || {
        let log = plant.gateway.log();
        if log.contains("/v1/acme/devices") { Ok(()) } else { Err(log) }
    })
    .await?;
    assert!(!plant.gateway.log().contains("s3cr3t"), "{}", plant.gateway.log());
    Ok(())
}

#[tokio::test]
async fn events_flow_through_nginx() -> anyhow::Result<()> {
    gateway_forwards_events_unbuffered(Kind::Nginx).await
}

#[tokio::test]
async fn events_flow_through_haproxy() -> anyhow::Result<()> {
    gateway_forwards_events_unbuffered(Kind::Haproxy).await
}

/// Opens twenty event streams on one HTTP/2 connection.
async fn streams_share_a_connection(plant: &Plant) -> anyhow::Result<()> {
    let socket = tokio::net::TcpStream::connect(plant.gateway.http2).await?;
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await?;
    let connection = tokio::spawn(connection);
    let mut bodies = Vec::new();
    for _ in 0..20 {
        let request = Request::get(format!("http://{}{QUERY}", plant.gateway.http2));
        let request = request.header("accept", "text/event-stream").body(Empty::<bytes::Bytes>::new())?;
        let answer = sender.clone().send_request(request).await?;
        assert_eq!(answer.status(), StatusCode::OK);
        bodies.push(answer.into_body());
    }
    plant.stack.publisher().await?.publish(&plant.stack.subject("A-1", "switch")?, switch(4_711)).await?;
    for mut body in bodies {
        let mut text = String::new();
        let found = tokio::time::timeout(SOON, async {
            while !text.contains("4711") {
                let frame = body.frame().await.context("the stream ended")??;
                text.push_str(&String::from_utf8_lossy(frame.data_ref().map_or(&[][..], |data| data)));
            }
            anyhow::Ok(())
        });
        found.await.with_context(|| text.clone())??;
    }
    connection.abort();
    Ok(())
}

/// Connects sixty clients and asserts that each pod gets a fair share.
async fn sixty_clients(plant: &Plant, kind: Kind) -> anyhow::Result<Fleet> {
    let fleet = plant.fleet(60)?;
    let report = fleet.wait_until("60 clients", SOON, |report| report.connected == 60).await?;
    let shares: Vec<usize> = vec![
        plant.pods[0].metric("flutecast_clients ").await? as usize,
        plant.pods[1].metric("flutecast_clients ").await? as usize,
    ];
    eprintln!("shares behind the gateway: {shares:?}");
    let least = if kind == Kind::Haproxy { 29 } else { 12 };
    assert!(shares.iter().all(|share| *share >= least), "{shares:?} {report:?}");
    Ok(fleet)
}

/// Kills the second pod. The Service removes it only a second later, so clients that reconnect in the
/// meantime may reach the dead pod. Returns the pod's options.
async fn kill_one_pod(plant: &mut Plant, fleet: &Fleet) -> anyhow::Result<DataplaneOptions> {
    let victim = plant.pods.remove(1);
    let (url, options) = (victim.url.clone(), victim.options.clone());
    let before = fleet.report().welcomes;
    drop(victim);
    if let Some(service) = &plant.service {
        service.set_ready(vec![address(&plant.pods[0].url), address(&url)]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        plant.set_ready_pods(&[0]);
    }
    fleet
        .wait_until("all clients on the other pod", SOON, |report| {
            report.connected == 60 && report.servers.len() == 1 && report.welcomes > before
        })
        .await?;
    Ok(options)
}

/// Kills the last pod. The gateway answers for the missing pods without an error, and all clients reconnect
/// when pods are back.
async fn kill_all_pods(plant: &mut Plant, fleet: &Fleet, other: DataplaneOptions) -> anyhow::Result<()> {
    plant.set_ready_pods(&[]);
    let last = plant.pods.remove(0);
    let (last_url, last_options) = (last.url.clone(), last.options.clone());
    drop(last);
    fleet.wait_until("the end of all connections", SOON, |report| report.connected == 0).await?;
    fleet
        .wait_until("the gateway's own response", SOON, |report| {
            report.byes.get("Starting").is_some_and(|byes| *byes >= 60)
        })
        .await?;
    let other_ports = other.ports;
    plant.pods.push(Dataplane::start(last_options).await?);
    plant.pods.push(Dataplane::start(other).await?);
    assert_eq!((&plant.pods[0].url, plant.pods[1].options.ports), (&last_url, other_ports));
    plant.set_ready_pods(&[0, 1]);
    fleet.wait_until("all clients to reconnect", SOON, |report| report.connected == 60).await?;
    Ok(())
}

async fn clients_survive_a_pod_crash(kind: Kind) -> anyhow::Result<()> {
    let mut plant = Plant::open(kind).await?;
    streams_share_a_connection(&plant).await?;
    let subject = plant.stack.subject("A-1", "switch")?;
    let publisher = plant.stack.publisher().await?;
    let fleet = sixty_clients(&plant, kind).await?;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let publishing = tokio::spawn(async move {
        let mut n = 4_711;
        while !*stopped.borrow() {
            n += 1;
            publisher.publish(&subject, switch(n)).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(n)
    });
    fleet.wait_until("the first data", SOON, |report| report.events >= 120).await?;
    let options = kill_one_pod(&mut plant, &fleet).await?;
    kill_all_pods(&mut plant, &fleet, options).await?;

    stop.send_replace(true);
    let newest = publishing.await??;
    let report = fleet
        .wait_until("the newest message on every client", SOON, |report| {
            report.newest.get("A-1/switch").is_some_and(|known| known.number == newest && known.behind == 0)
        })
        .await?;
    eprintln!("{}", serde_json::to_string(&report)?);
    let FleetReport { failed, lost, wrong, strange, bad_answers, gaps, .. } = &report;
    assert_eq!((*failed, *lost, *wrong, *strange), (0, 0, 0, 0), "{report:?}");
    assert!(bad_answers.is_empty() && gaps.is_empty(), "{report:?}");
    Ok(())
}

#[tokio::test]
async fn clients_survive_a_pod_crash_behind_nginx() -> anyhow::Result<()> {
    clients_survive_a_pod_crash(Kind::Nginx).await
}

#[tokio::test]
async fn clients_survive_a_pod_crash_behind_haproxy() -> anyhow::Result<()> {
    clients_survive_a_pod_crash(Kind::Haproxy).await
}
