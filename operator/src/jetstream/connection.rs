//! The connection to NATS: made in the background, taken up again for ever.

use async_nats::{Client, Event};
use flutecast_nats::{Login, LoginError};
use tokio::sync::watch;

/// Opens a connection as `login` says. Answers at once, also when no server is there; the second value
/// changes each time that the connection is made or lost, and is true while it holds.
///
/// # Errors
/// When the address or the login can't be used at all.
pub async fn open(login: &Login) -> Result<(Client, watch::Receiver<bool>), LoginError> {
    let (connected, watch) = watch::channel(false);
    let told = move |event| {
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
        std::future::ready(())
    };
    let client = login.connect("flutecast-operator", |options| options.event_callback(told)).await?;
    Ok((client, watch))
}

/// Opens a connection for requests that anybody may send. At most `waiting` of one subscription wait; what
/// comes beyond that is dropped, and `dropped` is told of each. Answers at once, also when no server is
/// there.
///
/// # Errors
/// As [`open`].
pub async fn open_for_requests(
    login: &Login,
    waiting: usize,
    dropped: impl Fn() + Clone + Send + Sync + 'static,
) -> Result<Client, LoginError> {
    let told = move |event| {
        if matches!(event, Event::SlowConsumer(_)) {
            dropped();
        }
        std::future::ready(())
    };
    login
        .connect("flutecast-operator-enrolment", |options| {
            options.subscription_capacity(waiting).event_callback(told)
        })
        .await
}
