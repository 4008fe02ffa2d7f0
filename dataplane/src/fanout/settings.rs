//! The limits and times of the fan-out.

use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct HubSettings {
    /// The pod's name, as `hello` shows it.
    pub server_name: Arc<str>,
    /// A `ping` is sent when nothing else was for this long.
    pub ping: Duration,
    /// How long an `EventSource` waits before it reconnects.
    pub retry: Duration,
    /// How long a device stays subscribed after its last client left, so that a reconnect is cheap.
    pub linger: Duration,
    /// A client that takes nothing for this long, while something waits, is closed.
    pub take_timeout: Duration,
    /// How many `Every` events wait for one client at most.
    pub every_max_count: usize,
    /// How many bytes of `Every` events wait for one client at most.
    pub every_max_bytes: usize,
    /// How many clients this pod serves at most.
    pub max_clients: usize,
    /// How often the live `Every` channels are compared with the stream, in case an event was missed.
    pub audit: Duration,
}

impl Default for HubSettings {
    fn default() -> Self {
        Self {
            server_name: "flutecast-dataplane".into(),
            ping: Duration::from_secs(15),
            retry: Duration::from_secs(2),
            linger: Duration::from_secs(2),
            take_timeout: Duration::from_secs(30),
            every_max_count: 1_024,
            every_max_bytes: 1_024 * 1_024,
            max_clients: 20_000,
            audit: Duration::from_secs(20),
        }
    }
}
