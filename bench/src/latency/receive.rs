//! The receivers: SSE clients and plain subscribers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use async_nats::Client;
use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::clock::Clock;
use super::recorder::Recorder;
use super::sse::{Block, SseReader, number_after};

/// Longest time that a client may take until it has its `hello`.
const HELLO_TIMEOUT: Duration = Duration::from_secs(30);
/// Number of clients that connect at the same time: no more than a listen queue holds.
const CONNECT_AT_ONCE: usize = 64;
/// Room for what one read takes.
const READ_BUFFER: usize = 8 * 1024;
const SENT: &[u8] = b"\"sent\":";

/// The server of the SSE clients.
#[derive(Debug, Clone)]
pub struct SseTarget {
    /// Host and port.
    authority: String,
    /// Path and query.
    path: String,
    /// Number of devices that the data plane must serve.
    devices: usize,
}

impl SseTarget {
    /// The events of all devices of the tenant, which are so many, at a data plane `http://host:port`.
    ///
    /// # Errors
    /// Returns an error if the address isn't `http://host:port`.
    pub fn all(http: &str, tenant: &str, count: usize) -> anyhow::Result<Self> {
        Ok(Self { devices: count, ..Self::some(http, tenant, &["*".to_owned()])? })
    }

    /// The events of these devices.
    ///
    /// # Errors
    /// Returns an error if the address isn't `http://host:port`.
    pub fn some(http: &str, tenant: &str, devices: &[String]) -> anyhow::Result<Self> {
        let address = url::Url::parse(http).with_context(|| format!("{http:?} is not an address"))?;
        ensure!(address.scheme() == "http", "{http:?}: the benchmarks speak http only");
        let host = address.host_str().context("an address without a host")?;
        let authority = format!("{host}:{}", address.port_or_known_default().unwrap_or(80));
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for device in devices {
            query.append_pair("device", device);
        }
        let path = format!("/v1/{tenant}/events?{}", query.finish());
        Ok(Self { authority, path, devices: devices.len() })
    }
}

/// Running receivers. They end when this is dropped.
#[derive(Debug)]
pub struct Watcher {
    tasks: JoinSet<anyhow::Result<()>>,
    strange: Arc<AtomicU64>,
}

impl Watcher {
    /// Connects one SSE client for each target and waits until each has its `hello`. Without a recorder they
    /// only read.
    ///
    /// # Errors
    /// Returns an error if a client isn't welcome within 30 s.
    pub(crate) async fn sse(
        targets: &[SseTarget],
        clock: Clock,
        recorder: Option<&Recorder>,
    ) -> anyhow::Result<Self> {
        let mut tasks = JoinSet::new();
        let strange = Arc::new(AtomicU64::new(0));
        for (batch, targets) in targets.chunks(CONNECT_AT_ONCE).enumerate() {
            let mut welcomes = Vec::new();
            for (index, target) in targets.iter().enumerate() {
                let (welcome, welcomed) = oneshot::channel();
                let client = SseWatcher {
                    target: target.clone(),
                    number: batch * CONNECT_AT_ONCE + index,
                    clock,
                    recorder: recorder.cloned(),
                    strange: Arc::clone(&strange),
                };
                tasks.spawn(client.run(welcome));
                welcomes.push(welcomed);
            }
            for welcomed in welcomes {
                let welcome = timeout(HELLO_TIMEOUT, welcomed).await;
                let welcome = welcome.context("a client got no hello in time")?;
                if welcome.is_err() {
                    // It has ended; its result has the reason.
                    let ended = tasks.join_next().await.context("no client")?;
                    ended.context("a client broke")?.context("a client was turned away")?;
                    anyhow::bail!("a client was turned away");
                }
            }
        }
        Ok(Self { tasks, strange })
    }

    /// Connects idle SSE clients, which only read.
    ///
    /// # Errors
    /// Returns an error if a client isn't welcome within 30 s.
    pub async fn idle(targets: &[SseTarget]) -> anyhow::Result<Self> {
        Self::sse(targets, Clock::start(), None).await
    }

    /// Subscribes to a subject with a connection of its own.
    ///
    /// # Errors
    /// Returns an error if the broker doesn't answer.
    pub(crate) async fn nats(
        url: &str,
        subject: String,
        clock: Clock,
        recorder: Recorder,
    ) -> anyhow::Result<Self> {
        let client: Client = async_nats::ConnectOptions::new()
            // Nothing may be dropped here: what is measured is the broker, not this queue.
            .subscription_capacity(1 << 20)
            .connect(url)
            .await
            .with_context(|| url.to_owned())?;
        let mut messages = client.subscribe(subject).await.context("subscribing")?;
        client.flush().await.context("subscribing")?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Some(message) = messages.next().await {
                if let Some(sent_us) = number_after(&message.payload, SENT) {
                    recorder.note(0, clock.now_us(), &[sent_us]);
                }
            }
            drop(client);
            Ok(())
        });
        Ok(Self { tasks, strange: Arc::default() })
    }

    /// Returns the number of events that mean a fault: `gap`, `refused`, `bye`.
    pub(crate) fn strange_events(&self) -> u64 {
        self.strange.load(Ordering::Relaxed)
    }

    /// Says why a receiver has ended, if one has.
    pub(crate) fn ended(&mut self) -> Option<String> {
        self.tasks.try_join_next().map(|ended| match ended {
            Ok(Ok(())) => "the stream ended".to_owned(),
            Ok(Err(error)) => format!("{error:#}"),
            Err(error) => error.to_string(),
        })
    }
}

struct SseWatcher {
    target: SseTarget,
    number: usize,
    clock: Clock,
    recorder: Option<Recorder>,
    strange: Arc<AtomicU64>,
}

impl SseWatcher {
    async fn run(self, welcome: oneshot::Sender<()>) -> anyhow::Result<()> {
        let SseTarget { authority, path, devices } = &self.target;
        let mut socket = TcpStream::connect(authority).await.with_context(|| authority.clone())?;
        socket.set_nodelay(true)?;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\naccept: text/event-stream\r\n\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut welcome = Some(welcome);
        let mut reader = SseReader::default();
        let mut buffer = vec![0; READ_BUFFER];
        let mut sent = Vec::new();
        let mut served = None;
        loop {
            let length = socket.read(&mut buffer).await?;
            if length == 0 {
                return Ok(());
            }
            let now_us = self.clock.now_us();
            reader.push(&buffer[..length], &mut |block: Block<'_>| match block.event {
                None => sent.extend(number_after(block.data, SENT)),
                Some("hello") => served = Some(served_devices(block.data)),
                Some("gap" | "refused" | "bye") => {
                    tracing::debug!(client = self.number, event = block.event,
                     data = %String::from_utf8_lossy(block.data), "strange");
                    self.strange.fetch_add(1, Ordering::Relaxed);
                }
                Some(_) => {}
            })?;
            if let Some(served) = served.take()
                && let Some(welcome) = welcome.take()
            {
                let served = served?;
                ensure!(served == *devices, "the data plane serves {served} of {devices} devices");
                // The receiver is gone if another client failed.
                let _ = welcome.send(());
            }
            if let Some(recorder) = &self.recorder
                && !sent.is_empty()
            {
                recorder.note(self.number, now_us, &sent);
            }
            sent.clear();
        }
    }
}

/// Returns the number of devices that a `hello` names.
fn served_devices(hello: &[u8]) -> anyhow::Result<usize> {
    #[derive(serde::Deserialize)]
    struct Hello {
        devices: Vec<serde::de::IgnoredAny>,
    }
    Ok(serde_json::from_slice::<Hello>(hello).context("hello")?.devices.len())
}
