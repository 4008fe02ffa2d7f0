//! The connection to NATS, as the data plane wants it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_nats::{Event, Message, ServerError, Subscriber};
use flutecast_nats::{Login, LoginError, NatsConnection};
use futures_util::StreamExt;
use tokio::time::Instant;

/// The most messages that one subscription holds before the NATS client drops the newest one: a tenth of a
/// second of the fastest channel. What is dropped is read back from the stream. It bounds the memory too,
/// since a message may have 1 MiB.
pub const SUBSCRIPTION_CAPACITY: usize = 4_096;

/// The time between two log lines about refusals.
const LOGGED_EVERY: Duration = Duration::from_secs(60);

/// Starts to connect as `login` says and returns at once.
pub async fn connect(login: &Login, name: &str) -> Result<NatsConnection, LoginError> {
    let logged = Mutex::new(None);
    let options = |options: async_nats::ConnectOptions| {
        options.subscription_capacity(SUBSCRIPTION_CAPACITY).request_timeout(Some(Duration::from_secs(5)))
    };
    let on_event = move |event: &Event| {
        if let Event::ServerError(error) = event {
            warn_of_refusal(error, &logged);
        }
    };
    NatsConnection::open(login, name, options, on_event).await
}

/// Logs the first of what may be thousands of refusals, one for each channel that a client watches.
fn warn_of_refusal(error: &ServerError, logged: &Mutex<Option<Instant>>) {
    // A moment is never left half changed.
    let mut logged = logged.lock().unwrap_or_else(PoisonError::into_inner);
    if logged.is_none_or(|logged| logged.elapsed() >= LOGGED_EVERY) {
        *logged = Some(Instant::now());
        tracing::warn!(
            %error,
            "the broker refuses something, so that data may be missing; which rights a login needs is in \
             docs/install.md"
        );
    }
}

/// Returns the next message; `None` if the subscription has ended. Waits forever without a subscription.
pub(crate) async fn next_message(subscription: &mut Option<Subscriber>) -> Option<Message> {
    match subscription {
        Some(subscriber) => subscriber.next().await,
        None => std::future::pending().await,
    }
}
