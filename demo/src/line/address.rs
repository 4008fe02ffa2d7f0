//! The route on which each device publishes each of its channels.

use std::collections::BTreeMap;
use std::sync::Arc;

use flutecast_contract::name::{InvalidName, IotId, TenantName};
use flutecast_contract::{iot_id, subject};

use super::device::{Channel, Device};

/// The subject of the MES, which reports the counters of the printer, the die cutter and the stacker.
const MES_SUBJECT: &str = "mes.out";

/// The delivery guarantee that a sender asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quality {
    /// Sent once without acknowledgement: QoS 0 in MQTT, a plain publish in NATS.
    AtMostOnce,
    /// Sent until acknowledged: QoS 1 in MQTT, a JetStream publish in NATS.
    AtLeastOnce,
}

/// A route into the broker.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Route {
    Nats(Arc<str>),
    /// An MQTT 3.1.1 topic, published by the client of this device.
    Mqtt(Device, Arc<str>),
}

impl Route {
    /// Returns the NATS subject of the route; nats-server maps MQTT topics to subjects.
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Self::Nats(subject) => subject.to_string(),
            Self::Mqtt(_, topic) => topic.replace('/', "."),
        }
    }
}

/// The iotIds of the line's devices and the routes of their channels.
#[derive(Debug, Clone)]
pub struct Addresses {
    iot_ids: BTreeMap<Device, IotId>,
    routes: BTreeMap<(Device, Channel), Route>,
    mes: Route,
}

impl Addresses {
    /// Returns the addresses of the line's devices in this tenant.
    ///
    /// # Errors
    /// Never, in practice: all names but the tenant's are fixed and valid.
    pub fn new(tenant: &TenantName) -> Result<Self, InvalidName> {
        let mut iot_ids = BTreeMap::new();
        let mut routes = BTreeMap::new();
        for device in Device::ALL {
            let iot_id = iot_id::generate(tenant, &device.device_code()?);
            for channel in [Channel::Telemetry, Channel::Power, Channel::Counters, Channel::Alarms] {
                let name = channel.channel_name()?;
                let route = match (device, channel) {
                    // The die cutter's drive is connected through a gateway with its own subjects.
                    (Device::DieCutter, Channel::Power) => {
                        Route::Nats(format!("plant.gw1.{iot_id}.power").into())
                    }
                    // These two devices support only MQTT.
                    (Device::Flexo | Device::DieCutter, _) => {
                        Route::Mqtt(device, subject::mqtt_topic(tenant, &iot_id, &name).into())
                    }
                    _ => Route::Nats(subject::stored(tenant, &iot_id, &name).into()),
                };
                routes.insert((device, channel), route);
            }
            iot_ids.insert(device, iot_id);
        }
        Ok(Self { iot_ids, routes, mes: Route::Nats(MES_SUBJECT.into()) })
    }

    /// Returns the device's iotId.
    #[must_use]
    pub fn iot_id(&self, device: Device) -> &IotId {
        &self.iot_ids[&device]
    }

    /// Returns the route of a device's channel.
    #[must_use]
    pub fn route(&self, device: Device, channel: Channel) -> &Route {
        &self.routes[&(device, channel)]
    }

    /// Returns the route of the MES.
    #[must_use]
    pub fn mes(&self) -> &Route {
        &self.mes
    }
}
