//! The sender: telemetry of many devices at a steady rate.

use std::ops::Range;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::Client;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use crate::manifests::BenchDevice;

/// Interval at which the sender looks what is due.
const TICK: Duration = Duration::from_millis(1);
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Options of the sender.
#[derive(Debug)]
pub(crate) struct Load<'a> {
    /// By whom, in turn.
    pub(crate) devices: &'a [BenchDevice],
    /// Messages per second, all devices together.
    pub(crate) rate: u32,
    /// The time that counts, in microseconds; the sender ends at its end.
    pub(crate) window: Range<u64>,
}

/// The messages that were sent in the window.
#[derive(Debug, Default, Clone)]
pub(crate) struct Sent {
    /// Messages by device.
    pub(crate) by_device: Vec<u64>,
    /// The longest delay of the sender itself, in microseconds.
    pub(crate) behind_us: u64,
}

impl Sent {
    pub(crate) fn total(&self) -> u64 {
        self.by_device.iter().sum()
    }
}

impl Load<'_> {
    /// Sends until the window ends.
    pub(crate) async fn send(
        &self,
        client: &Client,
        clock: Clock,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Sent> {
        let mut sent = Sent { by_device: vec![0; self.devices.len()], behind_us: 0 };
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let started = Instant::now();
        let mut serial: u64 = 0;
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = shutdown.cancelled() => anyhow::bail!("interrupted"),
            }
            let due = started.elapsed().as_micros() * u128::from(self.rate) / 1_000_000;
            while u128::from(serial) < due {
                let now_us = clock.now_us();
                if now_us >= self.window.end {
                    client.flush().await.context("flushing")?;
                    return Ok(sent);
                }
                let device = usize::try_from(serial).unwrap_or(0) % self.devices.len();
                let payload = payload(now_us, serial).into();
                let publish = client.publish(self.devices[device].stored.clone(), payload);
                timeout(PUBLISH_TIMEOUT, publish).await.context("the broker takes nothing")??;
                if self.window.contains(&now_us) {
                    sent.by_device[device] += 1;
                    let scheduled = u128::from(serial) * 1_000_000 / u128::from(self.rate);
                    let behind = started.elapsed().as_micros().saturating_sub(scheduled);
                    sent.behind_us = sent.behind_us.max(u64::try_from(behind).unwrap_or(u64::MAX));
                }
                serial += 1;
            }
            if clock.now_us() >= self.window.end {
                client.flush().await.context("flushing")?;
                return Ok(sent);
            }
        }
    }
}

/// A message of about the size of a machine's telemetry.
fn payload(sent_us: u64, serial: u64) -> String {
    let (speed, pressure) = (1500 + serial % 900, 900 + serial % 200);
    let (temperature, tension) = (1700 + serial % 90, 400 + serial % 150);
    format!(
        "{{\"sent\":{sent_us},\"seq\":{serial},\"d\":{{\"speed\":{speed},\"pressure\":{pressure},\
         \"temperature\":{temperature},\"tension\":{tension},\"st\":1}}}}"
    )
}
