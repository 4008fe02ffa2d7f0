//! The operator's connections to NATS: one for its own work, one for the requests of devices that enroll.

use async_nats::{Client, Event};
use flutecast_nats::{Login, LoginError, NatsConnection};

/// Starts to connect as `login` says and returns at once.
pub(crate) async fn open(login: &Login) -> Result<NatsConnection, LoginError> {
    let on_event = |event: &Event| match event {
        Event::Connected => tracing::info!("connected to NATS"),
        Event::Disconnected => tracing::warn!("NATS is away; connecting again"),
        other => tracing::debug!(event = %other, "NATS"),
    };
    NatsConnection::open(login, "flutecast-operator", |options| options, on_event).await
}

/// Starts a connection for requests that anyone may send, and returns at once. At most `waiting` messages of
/// one subscription wait. Further ones are dropped, and `dropped` is called for each.
pub(crate) async fn open_for_requests(
    login: &Login,
    waiting: usize,
    dropped: impl Fn() + Send + Sync + 'static,
) -> Result<Client, LoginError> {
    let on_event = move |event: &Event| {
        if matches!(event, Event::SlowConsumer(_)) {
            dropped();
        }
    };
    let options = |options: async_nats::ConnectOptions| options.subscription_capacity(waiting);
    Ok(NatsConnection::open(login, "flutecast-operator-enrolment", options, on_event).await?.client)
}
