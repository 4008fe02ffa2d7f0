//! Prints the messages of the demo.

use std::io::Write;

use anyhow::Context;
use flutecast_contract::name::{ChannelName, DeviceCode, TenantName};
use flutecast_contract::{iot_id, subject};

use crate::options::Options;
use crate::processes::Processes;

const TENANT: &str = "demo";
/// The device and channel of the example commands.
const DEVICE: &str = "FLEX-01";
const CHANNEL: &str = "alarms";
/// A message of that channel, escaped for double quotes in a shell.
const ALARM: &str = concat!(
    r#"{\"ts\":\"$(date -u +%FT%T.%3NZ)\",\"code\":42,\"severity\":\"warning\","#,
    r#"\"text\":\"hello from a second terminal\"}"#
);

/// Writes a line to stdout. Errors are ignored: a closed pipe must not end the demo.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Prints the addresses of the running demo and example commands.
pub(crate) fn running(processes: &Processes, options: &Options) -> anyhow::Result<()> {
    let nats = processes.nats.as_ref().context("nats-server was not started")?;
    let dataplane = processes.dataplane.as_ref().context("the data plane was not started")?;
    let (tenant, channel) = (TenantName::new(TENANT)?, ChannelName::new(CHANNEL)?);
    let id = iot_id::generate(&tenant, &DeviceCode::new(DEVICE)?);
    say(&format!(
        r#"
The demo factory is running.

  dashboard   {url}/
  events      curl -N '{url}/v1/{TENANT}/events?device=CORR-01&device={DEVICE}'
  an alarm    mosquitto_pub -h 127.0.0.1 -p {mqtt} -t {topic} -m "{ALARM}"
  NATS        {nats_url}, subject {stored} (stored), {live} (republished)
  manifests   {manifests}: edit a file, and the running demo changes within a second
  metrics     {admin}/metrics
  messages    curl '{inspect}/channels?device={DEVICE}': the last ones, and why any isn't shown
  logs        {logs}

Ctrl-C ends everything.
"#,
        url = dataplane.url,
        admin = dataplane.admin_url,
        inspect = dataplane.inspect_url().unwrap_or_default(),
        mqtt = nats.mqtt_port(),
        nats_url = nats.url(),
        topic = subject::mqtt_topic(&tenant, &id, &channel),
        stored = subject::stored(&tenant, &id, &channel),
        live = subject::live(&tenant, &id, &channel),
        manifests = options.manifests.display(),
        logs = processes.logs.display(),
    ));
    Ok(())
}
