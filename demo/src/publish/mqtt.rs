//! Publishes over MQTT 3.1.1 with one client per device, as real devices do.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rumqttc::{AsyncClient, ConnAck, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS, Request};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{EVENTS_WAITING, Tally, backoff, pause};
use crate::line::Quality;

const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// The time limit for connecting, in seconds.
const CONNECT_TIMEOUT_S: u64 = 5;
/// The time limit for sending DISCONNECT to the broker.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);

/// The address of an MQTT broker, with an optional login.
#[derive(Clone, PartialEq, Eq)]
pub struct MqttAddress {
    host: String,
    port: u16,
    /// User and password, if the broker requires them.
    login: Option<(String, String)>,
}

impl MqttAddress {
    /// Returns an address without a login.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Self {
        Self { host: host.to_owned(), port, login: None }
    }
}

/// Omits the password.
impl fmt::Debug for MqttAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, login } = self;
        let user = login.as_ref().map_or_else(String::new, |(user, _)| format!("{user}@"));
        write!(f, "mqtt://{user}{host}:{port}")
    }
}

impl FromStr for MqttAddress {
    type Err = String;

    fn from_str(value: &str) -> Result<Self, String> {
        let address = value.strip_prefix("mqtt://").unwrap_or(value);
        let (login, address) =
            address.rsplit_once('@').map_or((None, address), |(login, rest)| (Some(login), rest));
        // The error shows the address without its login.
        let wrong = || {
            format!("{address:?} is not an address; write [USER:PASSWORD@]HOST:PORT, such as 127.0.0.1:1883")
        };
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        if host.is_empty() {
            return Err(wrong());
        }
        let login = login.map(|login| login.split_once(':').ok_or_else(wrong)).transpose()?;
        let login = login.map(|(user, password)| (user.to_owned(), password.to_owned()));
        Ok(Self { login, ..Self::new(host, port.parse().map_err(|_| wrong())?) })
    }
}

/// The MQTT client of one device.
#[derive(Debug)]
pub(super) struct MqttSender {
    client: AsyncClient,
    shared: Arc<Shared>,
    cancelled: CancellationToken,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    tally: Tally,
    connected: AtomicBool,
    /// Number of messages of QoS 1 that were accepted and not yet acknowledged.
    outstanding: AtomicU64,
}

impl MqttSender {
    pub(super) fn start(address: &MqttAddress, client_id: String, tally: Tally) -> Self {
        let mut options = MqttOptions::new(client_id, address.host.clone(), address.port);
        options.set_keep_alive(KEEP_ALIVE);
        if let Some((user, password)) = &address.login {
            options.set_credentials(user, password.clone());
        }
        // The session outlives the connection, so that unacknowledged messages of QoS 1 are sent again.
        options.set_clean_session(false);
        let (client, mut events) = AsyncClient::new(options, EVENTS_WAITING);
        events.network_options.set_connection_timeout(CONNECT_TIMEOUT_S);
        let shared =
            Arc::new(Shared { tally, connected: AtomicBool::new(false), outstanding: AtomicU64::new(0) });
        let cancelled = CancellationToken::new();
        let task = tokio::spawn(run(events, Arc::clone(&shared), cancelled.clone()));
        Self { client, shared, cancelled, task }
    }

    pub(super) fn offer(&self, topic: &str, quality: Quality, payload: Bytes) {
        match quality {
            Quality::AtMostOnce => {
                // The client would buffer the message, and it would be outdated when sent.
                let connected = self.shared.connected.load(Ordering::Relaxed);
                if !connected || self.client.try_publish(topic, QoS::AtMostOnce, false, payload).is_err() {
                    self.shared.tally.unsent();
                }
            }
            Quality::AtLeastOnce => {
                // Counted first, since the acknowledgement may arrive before `try_publish` returns.
                self.shared.outstanding.fetch_add(1, Ordering::Relaxed);
                if self.client.try_publish(topic, QoS::AtLeastOnce, false, payload).is_err() {
                    self.shared.settle(1);
                    self.shared.tally.lost(1);
                }
            }
        }
    }

    /// Waits for acknowledgements until `deadline`, then disconnects from the broker.
    pub(super) async fn stop(self, deadline: Instant) {
        let Self { client, shared, cancelled, mut task } = self;
        while shared.connected.load(Ordering::Relaxed)
            && shared.outstanding.load(Ordering::Relaxed) > 0
            && Instant::now() < deadline
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // DISCONNECT is queued after all accepted messages.
        let farewell = client.try_disconnect().is_ok();
        if !farewell || tokio::time::timeout(GOODBYE_TIMEOUT, &mut task).await.is_err() {
            cancelled.cancel();
            task.abort();
        }
        shared.tally.lost(shared.outstanding.load(Ordering::Relaxed));
    }
}

/// Drives one connection until the client disconnects or is cancelled.
async fn run(mut events: EventLoop, shared: Arc<Shared>, cancelled: CancellationToken) {
    let mut attempt = 0;
    let mut at_risk = 0;
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(ConnAck { session_present, .. }))) => {
                attempt = 0;
                if !session_present {
                    // Without a session at the broker, the client drops its unacknowledged messages.
                    shared.tally.lost(at_risk);
                    shared.settle(at_risk);
                }
                shared.connected.store(true, Ordering::Relaxed);
            }
            Ok(Event::Incoming(Packet::PubAck(_))) => {
                shared.tally.acknowledged();
                shared.settle(1);
            }
            Ok(Event::Outgoing(Outgoing::Publish(_))) => shared.tally.sent_by_mqtt(),
            Ok(Event::Outgoing(Outgoing::Disconnect)) => return,
            Ok(_) => {}
            Err(error) => {
                if shared.connected.swap(false, Ordering::Relaxed) {
                    tracing::info!(%error, "MQTT connection");
                }
                at_risk = unacknowledged(&events);
                attempt += 1;
                if !pause(backoff(attempt), &cancelled).await {
                    return;
                }
            }
        }
    }
}

/// Returns the number of messages of QoS 1 that the client sends again if the broker still has the session.
fn unacknowledged(events: &EventLoop) -> u64 {
    let of_qos_1 =
        |request: &&Request| matches!(request, Request::Publish(publish) if publish.qos == QoS::AtLeastOnce);
    events.pending.iter().filter(of_qos_1).count() as u64
}

impl Shared {
    /// Subtracts `count` outstanding messages. A repeat may be acknowledged twice, so the number stops at
    /// zero.
    fn settle(&self, count: u64) {
        let less = |outstanding: u64| Some(outstanding.saturating_sub(count));
        let _ = self.outstanding.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        assert_eq!("127.0.0.1:1883".parse(), Ok(MqttAddress::new("127.0.0.1", 1883)));
        assert_eq!("mqtt://broker:1884".parse(), Ok(MqttAddress::new("broker", 1884)));
        let login = Some(("devices".to_owned(), "p1:x@y".to_owned()));
        let guarded = MqttAddress { login, ..MqttAddress::new("broker", 1884) };
        assert_eq!(format!("{guarded:?}"), "mqtt://devices@broker:1884", "no password in logs");
        assert_eq!("mqtt://devices:p1:x@y@broker:1884".parse(), Ok(guarded));
        for bad in ["", "devices@broker:1883", ":1883", "broker", "broker:x", "broker:70000"] {
            let error = bad.parse::<MqttAddress>().unwrap_err();
            assert!(error.contains("HOST:PORT"), "{error}");
        }
    }
}
