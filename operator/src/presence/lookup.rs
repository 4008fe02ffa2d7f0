//! Reads the last message of each of many subjects from a tenant's stream, and the broker's time.

use async_nats::Client;
use flutecast_contract::subject;
use flutecast_nats::{RequestError, StreamReader};

use super::scheduler::{Lookup, LookupReply};

/// Carries out a lookup.
///
/// # Errors
/// Returns a [`RequestError`], within 5 s for each page.
pub(super) async fn look_up(client: &Client, lookup: &Lookup) -> Result<LookupReply, RequestError> {
    let reader = StreamReader::new(client.clone(), subject::stream(&lookup.tenant));
    let subjects: Vec<&str> = lookup.subjects.keys().map(String::as_str).collect();
    let last = reader.last_headers_of(&subjects).await?.messages;
    let messages = last.into_iter().map(|message| (message.subject, message.sequence.0, message.stored_at));
    // The clock is read after the messages, so that none of them is from its future.
    let clock = if lookup.with_clock { Some(reader.broker_time().await?) } else { None };
    Ok(LookupReply { messages: messages.collect(), clock })
}
