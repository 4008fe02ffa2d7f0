//! NATS as Flutecast's programs use it.
//!
//! - [`login`]: where NATS is, name and password, certificates; [`password`]: passwords that may change.
//! - [`connection`]: a connection that reconnects forever, and its state. While it can't be established, the
//!   private module `attempts` logs why, with each server's address: after 4 s, then once a minute.
//! - [`api`]: the JetStream API in JSON, for a program that manages streams.
//! - [`stream`]: reads back what a stream has stored; [`message`]: its messages.
//! - [`error`]: the one set of errors of all requests.
//!
//! # Errors
//! Every request ends within its deadline (5 s, unless its documentation says otherwise) with a good answer
//! or a [`RequestError`]. Nothing here retries a request; only the connection itself is made again.
//!
//! # Cancel safety
//! Every `async fn` can be dropped at any point. A request that was sent may still take effect.

pub mod api;
mod attempts;
pub mod connection;
pub mod error;
pub mod login;
pub mod message;
pub mod password;
pub mod stream;

pub use api::JetStreamApi;
pub use connection::{ConnectionState, NatsConnection};
pub use error::RequestError;
pub use login::{Login, LoginError};
pub use message::{LiveMessage, Origin, StoredMessage};
pub use password::SecretText;
pub use stream::StreamReader;
