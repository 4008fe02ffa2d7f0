//! `GET /v1/{tenant}/devices` and `/v1/{tenant}/devices/{code}`.

use bytes::Bytes;
use flutecast_contract::name::DeviceCode;
use http::Response;

use super::api::{Api, Caller, RequestHead, TokenIn, set_data_headers};
use super::error::RequestError;
use super::params::Subscription;
use crate::fanout::{DeviceValues, Unavailable};
use crate::percent;

pub(super) async fn devices(
    api: &Api,
    tenant: &str,
    head: &RequestHead,
) -> Result<Response<Bytes>, RequestError> {
    let caller = admit(api, tenant, head)?;
    let subscription = Subscription::from_devices_query(&head.query)?;
    let devices = latest(api, &caller, &subscription).await?;
    let mut json = Vec::with_capacity(64 + 512 * devices.len());
    json.extend_from_slice(b"{\"devices\":[");
    for (index, device) in devices.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        device.write_json(&mut json);
    }
    json.extend_from_slice(b"]}");
    Ok(answer(json, head))
}

/// `code` is percent-encoded, as in the address.
pub(super) async fn device(
    api: &Api,
    tenant: &str,
    code: &str,
    head: &RequestHead,
) -> Result<Response<Bytes>, RequestError> {
    let caller = admit(api, tenant, head)?;
    let code = percent::decode(code).map_err(RequestError::NotFound)?;
    let code = DeviceCode::new(&code).map_err(|error| RequestError::NotFound(error.to_string()))?;
    let subscription = Subscription::from_device_query(code.clone(), &head.query)?;
    let devices = latest(api, &caller, &subscription).await?;
    let Some(device) = devices.first() else {
        return Err(RequestError::NotFound(format!("there is no device {:?}", code.as_str())));
    };
    let mut json = Vec::with_capacity(512);
    device.write_json(&mut json);
    Ok(answer(json, head))
}

fn admit(api: &Api, tenant: &str, head: &RequestHead) -> Result<Caller, RequestError> {
    let caller = api.admit(tenant, head, TokenIn::HeaderOrQuery)?;
    caller.ok_or_else(|| unavailable(Unavailable::Starting))
}

async fn latest(
    api: &Api,
    caller: &Caller,
    subscription: &Subscription,
) -> Result<Vec<DeviceValues>, RequestError> {
    let Subscription { wanted, channels, interval: _, problems: _, last_event_id: _ } = subscription;
    caller.check_named(wanted)?;
    let (tenant, scope) = (&caller.grant.tenant, &caller.grant.scope);
    api.hubs.latest(tenant, scope, wanted, channels.as_ref()).await.map_err(unavailable)
}

fn unavailable(reason: Unavailable) -> RequestError {
    let code = match reason {
        Unavailable::BrokerAway => "BrokerAway",
        Unavailable::Starting => "Starting",
    };
    RequestError::Unavailable { code, message: reason.to_string() }
}

fn answer(json: Vec<u8>, head: &RequestHead) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(json));
    set_data_headers(&mut response, head, "application/json");
    response
}
