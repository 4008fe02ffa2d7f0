//! Log lines that name the messages that aren't understood.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flutecast_contract::name::{ChannelName, DeviceCode, TenantName};
use flutecast_format::program::ProblemReason;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::log_limit::{Decision, LogLimit};
use crate::pipeline::ProblemReport;

/// The time after which a line says how many were left out.
const SUM_UP: Duration = Duration::from_secs(10);

/// A problem of a channel, to be logged.
#[derive(Debug)]
pub(super) struct ProblemLine {
    pub(super) device: DeviceCode,
    pub(super) channel: ChannelName,
    pub(super) report: ProblemReport,
}

/// The log of all hubs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct ProblemLog {
    limit: Arc<Mutex<LogLimit<LineSubject>>>,
    left_out: Counter,
    wake: Arc<Notify>,
}

type LineSubject = (TenantName, DeviceCode, ChannelName, ProblemReason);

impl ProblemLog {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let log = Self::default();
        let help = "Log lines about problems of messages that were left out, as there were too many";
        registry.register("problem_lines_left_out", help, log.left_out.clone());
        log
    }

    /// Writes a line, unless there was one like it, or too many others, a short time ago.
    pub(super) fn write(&self, tenant: &TenantName, line: &ProblemLine) {
        let ProblemLine { device, channel, report } = line;
        let problem = &report.problem;
        let about = (tenant.clone(), device.clone(), channel.clone(), problem.reason);
        match self.with_limit(|limit| limit.decide(about, Instant::now())) {
            Decision::Write => {}
            Decision::Known => return,
            Decision::LeftOut => {
                self.left_out.inc();
                return self.wake.notify_one();
            }
        }
        let (reason, place, sequence) = (problem.reason.as_str(), &problem.place, report.sequence.0);
        let (excerpt, sentence) = (&report.excerpt, problem.sentence());
        tracing::warn!(
            %tenant, %device, %channel, %reason, place, sequence, excerpt,
            "problem with a message: {sentence}"
        );
    }

    /// Logs how many lines were left out, some time after the first of them.
    pub(super) async fn sum_up(self) {
        loop {
            self.wake.notified().await;
            sleep(SUM_UP).await;
            let lines = self.with_limit(LogLimit::take_left_out);
            tracing::warn!(lines, "lines about problems of messages were left out, as there were too many");
        }
    }

    fn with_limit<T>(&self, use_it: impl FnOnce(&mut LogLimit<LineSubject>) -> T) -> T {
        // No code that can panic runs under the lock.
        use_it(&mut self.limit.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flutecast_contract::stream_position::Sequence;
    use flutecast_format::program::Problem;

    #[tokio::test(start_paused = true)]
    async fn what_is_left_out_is_counted_and_summed_up() {
        let log = ProblemLog::default();
        let summing_up = tokio::spawn(log.clone().sum_up());
        let tenant = TenantName::new("acme").unwrap();
        let line = |n: u32| ProblemLine {
            device: DeviceCode::new(&format!("D-{n}")).unwrap(),
            channel: ChannelName::new("power").unwrap(),
            report: ProblemReport {
                problem: Problem::not_read(),
                sequence: Sequence(1),
                excerpt: String::new(),
            },
        };
        for n in 0..25 {
            log.write(&tenant, &line(n));
        }
        log.write(&tenant, &line(0));
        assert_eq!(log.left_out.get(), 15);
        tokio::time::sleep(SUM_UP + Duration::from_millis(1)).await;
        assert_eq!(log.with_limit(LogLimit::take_left_out), 0, "a line has said it");
        assert_eq!(log.left_out.get(), 15);
        summing_up.abort();
    }
}
