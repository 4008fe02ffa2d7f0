//! The bundled NATS, as devices outside the cluster reach it.

use anyhow::Context;

use super::{Release, decoded};
use crate::cluster::{Cluster, ServiceAddress};

const CLIENT: u16 = 4222;
const MQTT: u16 = 1883;
/// The users of the bundled server.
const USERS: [&str; 3] = ["operator", "dataplane", "devices"];

/// Addresses of the bundled NATS and the passwords of its users. Dropping it closes port-forwards, and with
/// them the connections.
#[derive(Debug)]
pub struct NatsAddress {
    client: ServiceAddress,
    mqtt: ServiceAddress,
    passwords: [(&'static str, String); 3],
}

impl NatsAddress {
    /// Returns the URL for NATS clients with the login of a user: `devices`, `operator` or `dataplane`.
    ///
    /// # Panics
    /// If there is no such user.
    #[must_use]
    pub fn url(&self, user: &str) -> String {
        format!("nats://{}@{}", self.login(user), self.client.address)
    }

    /// Returns the URL for MQTT clients with the login of a user.
    ///
    /// # Panics
    /// If there is no such user.
    #[must_use]
    pub fn mqtt_url(&self, user: &str) -> String {
        format!("mqtt://{}@{}", self.login(user), self.mqtt.address)
    }

    fn login(&self, user: &str) -> String {
        format!("{user}:{}", self.password(user))
    }

    #[allow(clippy::expect_used, reason = "a test that names no user of the chart is wrong")]
    fn password(&self, user: &str) -> &str {
        &self.passwords.iter().find(|(name, _)| *name == user).expect("a user").1
    }

    /// Returns a NATS client, which reconnects by itself.
    ///
    /// # Errors
    /// If NATS doesn't respond or refuses the login.
    pub async fn connect(&self, user: &str) -> anyhow::Result<async_nats::Client> {
        let password = self.password(user).to_owned();
        // `connect` takes no login from an address.
        let options = async_nats::ConnectOptions::with_user_and_password(user.to_owned(), password)
            .reconnect_delay_callback(|_| std::time::Duration::from_millis(100));
        options.connect(&self.client.address).await.context("NATS")
    }
}

impl Release<'_> {
    /// Returns addresses and passwords of the bundled NATS.
    ///
    /// # Errors
    /// If there is none.
    pub async fn nats(&self) -> anyhow::Result<NatsAddress> {
        reach(self.cluster, &self.namespace, &self.full_name("")).await
    }
}

/// Returns addresses and passwords of the bundled NATS of the release whose objects have the prefix
/// `full_name`.
pub(super) async fn reach(
    cluster: &Cluster,
    namespace: &str,
    full_name: &str,
) -> anyhow::Result<NatsAddress> {
    let service = format!("{full_name}-nats");
    let client = cluster.reach(namespace, &service, CLIENT).await?;
    let mqtt = cluster.reach(namespace, &service, MQTT).await?;
    let secret = format!("{full_name}-nats-passwords");
    let mut passwords = USERS.map(|user| (user, String::new()));
    for (user, password) in &mut passwords {
        let jsonpath = format!("jsonpath={{.data.{user}}}");
        let get = ["--namespace", namespace, "get", "secret", &secret, "-o", &jsonpath];
        *password = decoded(&cluster.kubectl(&get).await?)?;
    }
    Ok(NatsAddress { client, mqtt, passwords })
}
