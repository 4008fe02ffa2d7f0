//! Judgements in the log, where there is no status to write them to.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Told;
use crate::last_messages::DeviceLook;
use crate::object::Key;
use crate::presence::{Understanding, Understood};
use crate::rate_limit::{Rate, TokenBucket};

/// Lines about all devices. What has no room is written after a later look, if it is still so.
const LINES: Rate = Rate { interval: Duration::from_secs(1), burst: 50 };
/// A device that no look reached for this long is gone.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// Writes a line when it changes whether the messages of a device are understood.
#[derive(Debug, Default)]
pub(crate) struct JudgementLog(Mutex<LoggedDevices>);

#[derive(Debug, Default)]
struct LoggedDevices {
    /// What was written of each, and when it was last told of.
    devices: BTreeMap<Key, (Understanding, Instant)>,
    /// When those are forgotten that no look reaches any more.
    next_sweep: Option<Instant>,
    lines: Option<TokenBucket>,
}

impl LoggedDevices {
    fn forget_gone(&mut self, now: Instant) {
        if self.next_sweep.is_none_or(|due| due <= now) {
            self.devices.retain(|_, (_, told)| now < *told + FORGOTTEN);
            self.next_sweep = Some(now + FORGOTTEN);
        }
    }
}

impl Told for JudgementLog {
    fn tell(&self, device: &DeviceLook<'_>, understanding: Understanding, is_certain: bool) {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        written.forget_gone(now);
        let before =
            written.devices.get_mut(&device.key).map_or(Understanding::NO_MESSAGES, |(before, told)| {
                *told = now;
                before.clone()
            });
        let after = before.followed_by(understanding, is_certain);
        if after == before {
            return;
        }
        // That all is well from the start needs no line.
        let is_worth_it = before.status == Understood::False || after != Understanding::UNDERSTOOD;
        let lines = &mut written.lines;
        if is_worth_it && !lines.get_or_insert_with(|| TokenBucket::new(LINES, now)).take(now) {
            return;
        }
        if is_worth_it {
            line(device, &after);
        }
        if after.status == Understood::Unknown {
            written.devices.remove(&device.key);
        } else {
            written.devices.insert(device.key.clone(), (after, now));
        }
    }
}

fn line(device: &DeviceLook<'_>, Understanding { status, reason, message }: &Understanding) {
    let (tenant, name) = (device.tenant, &device.key.1);
    match status {
        Understood::False => {
            tracing::warn!(%tenant, device = name, %reason, "messages aren't understood: {message}");
        }
        Understood::True | Understood::Unknown => {
            tracing::info!(%tenant, device = name, %reason, "messages are understood: {message}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_no_look_reaches_is_forgotten() {
        let (start, mut written) = (Instant::now(), LoggedDevices::default());
        written.forget_gone(start);
        for (name, told) in [("gone", start), ("there", start + FORGOTTEN / 2)] {
            let key = ("default".to_owned(), name.to_owned());
            written.devices.insert(key, (Understanding::UNDERSTOOD, told));
        }
        written.forget_gone(start + FORGOTTEN / 2);
        assert_eq!(written.devices.len(), 2, "they are looked through once in a while");
        written.forget_gone(start + FORGOTTEN);
        assert_eq!(written.devices.keys().map(|key| &*key.1).collect::<Vec<_>>(), ["there"]);
    }
}
