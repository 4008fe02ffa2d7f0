//! What a client asks for: the parameters of a query or of a JSON body, read into one [`Subscription`].
//!
//! Query and body are first made the same list of names and texts, so that every rule is written once.

use std::collections::BTreeSet;
use std::time::Duration;

use flutecast_contract::name::{ChannelName, DeviceCode};

use super::duration;
use super::error::RequestError;
use crate::fanout::{Selector, Wanted};
use flutecast_contract::stream_position::{Epoch, EventId};

mod body;
mod query;
mod suggest;
#[cfg(test)]
mod tests;

pub(crate) use query::access_token;

/// How many devices one request may name. More than a tenant's usual quota; it bounds the work of one
/// request.
pub(crate) const MAX_DEVICES: usize = 5_000;
/// How many channels one request may name.
pub(crate) const MAX_CHANNELS: usize = 64;

/// What a client wants to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Subscription {
    /// Which devices.
    pub(crate) wanted: Wanted,
    /// Which channels; none: all.
    pub(crate) channels: Option<BTreeSet<ChannelName>>,
    /// At most one value per `Latest` channel in this time.
    pub(crate) interval: Option<Duration>,
    /// The last event id that stands in the query or the body.
    pub(crate) last_event_id: Option<String>,
}

/// What one address takes. The names differ between query and body, so a parameter carries its name for
/// messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Device,
    Selector,
    Channel,
    Interval,
    LastEventId,
    AccessToken,
}

/// A parameter as it was given.
#[derive(Debug)]
struct Parameter {
    key: Key,
    name: &'static str,
    value: String,
}

/// The names that one kind of request takes.
type Names = &'static [(&'static str, Key)];

const EVENTS_QUERY: Names = &[
    ("device", Key::Device),
    ("selector", Key::Selector),
    ("channel", Key::Channel),
    ("interval", Key::Interval),
    ("lastEventId", Key::LastEventId),
    ("access_token", Key::AccessToken),
];
const EVENTS_BODY: Names = &[
    ("devices", Key::Device),
    ("selector", Key::Selector),
    ("channels", Key::Channel),
    ("interval", Key::Interval),
    ("lastEventId", Key::LastEventId),
];
const DEVICES_QUERY: Names = &[
    ("device", Key::Device),
    ("selector", Key::Selector),
    ("channel", Key::Channel),
    ("access_token", Key::AccessToken),
];
const DEVICE_QUERY: Names = &[("channel", Key::Channel), ("access_token", Key::AccessToken)];

impl Subscription {
    /// Reads the query of `GET /v1/{tenant}/events`.
    ///
    /// # Errors
    /// `BadRequest`, which names the parameter, the value and what would be right.
    pub(crate) fn from_events_query(query: &str) -> Result<Self, RequestError> {
        let subscription = Self::read(query::parameters(query, EVENTS_QUERY)?)?;
        subscription
            .need_devices("a device or a selector is needed: device=CORR-01, device=* or selector=line%3Dl1")
    }

    /// Reads the body of `POST /v1/{tenant}/events`; the query of such a request has to be empty.
    ///
    /// # Errors
    /// As [`Self::from_events_query`].
    pub(crate) fn from_events_body(query: &str, body: &[u8]) -> Result<Self, RequestError> {
        if !query.is_empty() {
            let message = "the query has to be empty with POST: the parameters stand in the body, the token in the header Authorization";
            return Err(RequestError::BadRequest(message.to_owned()));
        }
        let subscription = Self::read(body::parameters(body, EVENTS_BODY)?)?;
        subscription.need_devices(
            r#"devices or a selector are needed: {"devices":["CORR-01"]}, {"devices":["*"]} or {"selector":"line=l1"}"#,
        )
    }

    /// Reads the query of `GET /v1/{tenant}/devices`; without a device or a selector it means all.
    ///
    /// # Errors
    /// As [`Self::from_events_query`].
    pub(crate) fn from_devices_query(query: &str) -> Result<Self, RequestError> {
        let mut subscription = Self::read(query::parameters(query, DEVICES_QUERY)?)?;
        if subscription.wanted == Wanted::default() {
            subscription.wanted.all = true;
        }
        Ok(subscription)
    }

    /// Reads the query of `GET /v1/{tenant}/devices/{code}`.
    ///
    /// # Errors
    /// As [`Self::from_events_query`].
    pub(crate) fn from_device_query(code: DeviceCode, query: &str) -> Result<Self, RequestError> {
        let mut subscription = Self::read(query::parameters(query, DEVICE_QUERY)?)?;
        subscription.wanted.codes.insert(code);
        Ok(subscription)
    }

    fn need_devices(self, message: &str) -> Result<Self, RequestError> {
        if self.wanted == Wanted::default() {
            return Err(RequestError::BadRequest(message.to_owned()));
        }
        Ok(self)
    }

    fn read(parameters: Vec<Parameter>) -> Result<Self, RequestError> {
        let mut subscription = Self::default();
        for Parameter { key, name, value } in parameters {
            subscription
                .take(key, value)
                .map_err(|problem| RequestError::BadRequest(format!("{name}: {problem}")))?;
        }
        Ok(subscription)
    }

    fn take(&mut self, key: Key, value: String) -> Result<(), String> {
        match key {
            Key::Device if value == "*" => self.wanted.all = true,
            Key::Device => {
                self.wanted.codes.insert(DeviceCode::new(&value).map_err(|error| error.to_string())?);
                if self.wanted.codes.len() > MAX_DEVICES {
                    return Err(format!("more than {MAX_DEVICES} devices; use a selector or \"*\""));
                }
            }
            Key::Channel => {
                let channels = self.channels.get_or_insert_default();
                channels.insert(ChannelName::new(&value).map_err(|error| error.to_string())?);
                if channels.len() > MAX_CHANNELS {
                    return Err(format!("more than {MAX_CHANNELS} channels; leave it out for all"));
                }
            }
            Key::Selector => {
                let selector = value.parse::<Selector>().map_err(|error| error.to_string())?;
                set_once(&mut self.wanted.selector, selector)?;
            }
            Key::Interval => set_once(&mut self.interval, duration::parse(&value)?)?,
            Key::LastEventId => set_once(&mut self.last_event_id, value)?,
            // Whoever asks about access has read it already.
            Key::AccessToken => {}
        }
        Ok(())
    }
}

fn set_once<T>(slot: &mut Option<T>, value: T) -> Result<(), String> {
    if slot.replace(value).is_some() {
        return Err("it is there twice; write it once".to_owned());
    }
    Ok(())
}

/// Where to resume, from the last event id that a client sent; the header beats the query, as an
/// `EventSource` that was made with a `lastEventId` in its address sends newer ones in the header.
///
/// An id that can't be understood is not refused, as a client can't repair what its browser stored. It stands
/// for an unknown place in an unknown stream, so that the client is told of a gap and not left with a silent
/// hole.
pub(crate) fn resume(header: Option<&[u8]>, parameter: Option<&str>) -> Option<EventId> {
    let id = match header {
        Some(header) => std::str::from_utf8(header).unwrap_or("?"),
        None => parameter?,
    };
    if id.is_empty() {
        return None;
    }
    Some(id.parse().unwrap_or(EventId { epoch: Epoch(0), sequence: 0 }))
}
