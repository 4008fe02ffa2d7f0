//! The connection to NATS: made in the background, taken up again for ever.

use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event};
use tokio::sync::watch;

use super::login::Login;

/// The longest wait between two attempts to connect.
const LONGEST_WAIT: Duration = Duration::from_secs(4);

/// Opens a connection as `login` says. Answers at once, also when no server is there; the second value changes each time that the
/// connection is made or lost, and is true while it holds.
///
/// # Errors
/// When the address or the login can't be used at all.
pub async fn open(login: &Login) -> anyhow::Result<(Client, watch::Receiver<bool>)> {
    let (connected, watch) = watch::channel(false);
    let (servers, options) = login.options().await?;
    let client = usual(options, "flutecast-operator")
        .event_callback(move |event| {
            let connected = connected.clone();
            async move {
                match event {
                    Event::Connected => {
                        tracing::info!("connected to NATS");
                        connected.send_replace(true);
                    }
                    Event::Disconnected => {
                        tracing::warn!("NATS is away; connecting again");
                        connected.send_replace(false);
                    }
                    other => tracing::debug!(event = %other, "NATS"),
                }
            }
        })
        .connect(servers)
        .await?;
    Ok((client, watch))
}

/// Opens a connection for requests that anybody may send. At most `waiting` of one subscription wait; what comes beyond that is dropped,
/// and `dropped` is told of each. Answers at once, also when no server is there.
///
/// # Errors
/// As [`open`].
pub async fn open_for_requests(
    login: &Login,
    waiting: usize,
    dropped: impl Fn() + Clone + Send + Sync + 'static,
) -> anyhow::Result<Client> {
    let (servers, options) = login.options().await?;
    let client = usual(options, "flutecast-operator-enrolment")
        .subscription_capacity(waiting)
        .event_callback(move |event| {
            if matches!(event, Event::SlowConsumer(_)) {
                dropped();
            }
            std::future::ready(())
        })
        .connect(servers)
        .await?;
    Ok(client)
}

fn usual(options: ConnectOptions, name: &str) -> ConnectOptions {
    options
        .name(name)
        .retry_on_initial_connect()
        .reconnect_delay_callback(crate::backoff::reconnect_delay(LONGEST_WAIT))
}
