//! The parameters of a request, from its query or its JSON body, as one [`Subscription`].
//!
//! Both are first turned into one list of names and texts, so that every rule is written once.

use std::collections::BTreeSet;
use std::time::Duration;

use flutecast_contract::name::{ChannelName, DeviceCode, TenantName};
use flutecast_contract::stream_position::{Epoch, EventId, Sequence};

use super::error::RequestError;
use crate::duration;
use crate::fanout::{DeviceQuery, Selector};

mod body;
mod query;
mod suggest;
#[cfg(test)]
mod tests;

pub(crate) use query::access_token;

/// The most devices that one request may name. It bounds the work of a request, and exceeds a tenant's quota.
pub(crate) const MAX_DEVICES: usize = 5_000;
pub(crate) const MAX_CHANNELS: usize = 64;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) wanted: DeviceQuery,
    /// All channels if `None`.
    pub(crate) channels: Option<BTreeSet<ChannelName>>,
    /// At most one value per `Latest` channel in this time.
    pub(crate) interval: Option<Duration>,
    /// Whether the event `problem` is wanted; not if left out.
    pub(crate) problems: Option<bool>,
    /// The last event id given in the query or the body.
    pub(crate) last_event_id: Option<String>,
}

/// The meaning of a parameter. Its name, which differs between query and body, is kept for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ParameterKind {
    Device,
    Selector,
    Channel,
    Interval,
    Problems,
    LastEventId,
    AccessToken,
    Tenant,
}

/// The query of the loopback listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InspectQuery {
    /// Any that has the device if `None`.
    pub(crate) tenant: Option<TenantName>,
    pub(crate) device: DeviceCode,
    /// All channels if `None`.
    pub(crate) channels: Option<BTreeSet<ChannelName>>,
}

#[derive(Debug)]
struct Parameter {
    key: ParameterKind,
    name: &'static str,
    value: String,
}

/// The parameters that a kind of request accepts.
type Names = &'static [(&'static str, ParameterKind)];

const EVENTS_QUERY: Names = &[
    ("device", ParameterKind::Device),
    ("selector", ParameterKind::Selector),
    ("channel", ParameterKind::Channel),
    ("interval", ParameterKind::Interval),
    ("problems", ParameterKind::Problems),
    ("lastEventId", ParameterKind::LastEventId),
    ("access_token", ParameterKind::AccessToken),
];
const EVENTS_BODY: Names = &[
    ("devices", ParameterKind::Device),
    ("selector", ParameterKind::Selector),
    ("channels", ParameterKind::Channel),
    ("interval", ParameterKind::Interval),
    ("problems", ParameterKind::Problems),
    ("lastEventId", ParameterKind::LastEventId),
];
const DEVICES_QUERY: Names = &[
    ("device", ParameterKind::Device),
    ("selector", ParameterKind::Selector),
    ("channel", ParameterKind::Channel),
    ("access_token", ParameterKind::AccessToken),
];
const DEVICE_QUERY: Names =
    &[("channel", ParameterKind::Channel), ("access_token", ParameterKind::AccessToken)];
const INSPECT_QUERY: Names = &[
    ("tenant", ParameterKind::Tenant),
    ("device", ParameterKind::Device),
    ("channel", ParameterKind::Channel),
];

impl InspectQuery {
    pub(crate) fn read(query: &str) -> Result<Self, RequestError> {
        let (names, others): (Vec<_>, Vec<_>) = query::parameters(query, INSPECT_QUERY)?
            .into_iter()
            .partition(|parameter| parameter.key == ParameterKind::Tenant);
        let mut tenant = None;
        for Parameter { value, .. } in names {
            let name = TenantName::new(&value).map_err(|error| error.to_string());
            name.and_then(|name| set_once(&mut tenant, name))
                .map_err(|problem| RequestError::BadRequest(format!("tenant: {problem}")))?;
        }
        let Subscription { wanted, channels, .. } = Subscription::read(others)?;
        let mut codes = wanted.codes.into_iter();
        match (codes.next(), codes.next(), wanted.all) {
            (Some(device), None, false) => Ok(Self { tenant, device, channels }),
            _ => {
                let message = "device: exactly one is needed: /channels?device=CORR-01";
                Err(RequestError::BadRequest(message.to_owned()))
            }
        }
    }
}

impl Subscription {
    /// Reads the query of `GET /v1/{tenant}/events`. As with the others, an error is a `BadRequest` that
    /// names the parameter, the value and what would be valid.
    pub(crate) fn from_events_query(query: &str) -> Result<Self, RequestError> {
        Self::read(query::parameters(query, EVENTS_QUERY)?)?
            .need_devices("a device or a selector is needed: device=CORR-01, device=* or selector=line%3Dl1")
    }

    /// Reads the body of `POST /v1/{tenant}/events`; the query of such a request has to be empty.
    pub(crate) fn from_events_body(query: &str, body: &[u8]) -> Result<Self, RequestError> {
        if !query.is_empty() {
            let message = "the query has to be empty with POST: the parameters stand in the body, \
                           the token in the header Authorization";
            return Err(RequestError::BadRequest(message.to_owned()));
        }
        Self::read(body::parameters(body, EVENTS_BODY)?)?.need_devices(
            "devices or a selector are needed: {\"devices\":[\"CORR-01\"]}, {\"devices\":[\"*\"]} \
             or {\"selector\":\"line=l1\"}",
        )
    }

    /// Reads the query of `GET /v1/{tenant}/devices`; without a device or a selector, all devices are wanted.
    pub(crate) fn from_devices_query(query: &str) -> Result<Self, RequestError> {
        let mut subscription = Self::read(query::parameters(query, DEVICES_QUERY)?)?;
        if subscription.wanted == DeviceQuery::default() {
            subscription.wanted.all = true;
        }
        Ok(subscription)
    }

    /// Reads the query of `GET /v1/{tenant}/devices/{code}`.
    pub(crate) fn from_device_query(code: DeviceCode, query: &str) -> Result<Self, RequestError> {
        let mut subscription = Self::read(query::parameters(query, DEVICE_QUERY)?)?;
        subscription.wanted.codes.insert(code);
        Ok(subscription)
    }

    fn need_devices(self, message: &str) -> Result<Self, RequestError> {
        if self.wanted == DeviceQuery::default() {
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

    fn take(&mut self, key: ParameterKind, value: String) -> Result<(), String> {
        match key {
            ParameterKind::Device if value == "*" => self.wanted.all = true,
            ParameterKind::Device => {
                self.wanted.codes.insert(DeviceCode::new(&value).map_err(|error| error.to_string())?);
                if self.wanted.codes.len() > MAX_DEVICES {
                    return Err(format!("more than {MAX_DEVICES} devices; use a selector or \"*\""));
                }
            }
            ParameterKind::Channel => {
                let channels = self.channels.get_or_insert_default();
                channels.insert(ChannelName::new(&value).map_err(|error| error.to_string())?);
                if channels.len() > MAX_CHANNELS {
                    return Err(format!("more than {MAX_CHANNELS} channels; leave it out for all"));
                }
            }
            ParameterKind::Selector => {
                let selector = value.parse::<Selector>().map_err(|error| error.to_string())?;
                set_once(&mut self.wanted.selector, selector)?;
            }
            ParameterKind::Interval => set_once(&mut self.interval, duration::parse(&value)?)?,
            ParameterKind::Problems => set_once(&mut self.problems, boolean(&value)?)?,
            ParameterKind::LastEventId => set_once(&mut self.last_event_id, value)?,
            // Read before: the token when the caller was admitted.
            ParameterKind::AccessToken | ParameterKind::Tenant => {}
        }
        Ok(())
    }
}

fn boolean(value: &str) -> Result<bool, String> {
    value.parse().map_err(|_| format!("{value:?} is neither true nor false"))
}

fn set_once<T>(slot: &mut Option<T>, value: T) -> Result<(), String> {
    if slot.replace(value).is_some() {
        return Err("it is there twice; write it once".to_owned());
    }
    Ok(())
}

/// Returns where to resume. The header takes precedence: an `EventSource` whose address has a `lastEventId`
/// sends newer ids in the header.
///
/// An invalid id is no error, as a client can't repair what its browser stored. It becomes an unknown
/// position in an unknown stream, so that the client gets a `gap` instead of losing events silently.
pub(crate) fn resume(header: Option<&[u8]>, parameter: Option<&str>) -> Option<EventId> {
    let id = match header {
        Some(header) => std::str::from_utf8(header).unwrap_or("?"),
        None => parameter?,
    };
    if id.is_empty() {
        return None;
    }
    Some(id.parse().unwrap_or(EventId { epoch: Epoch(0), sequence: Sequence::START }))
}
