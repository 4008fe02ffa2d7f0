//! The tenants whose mapping could not be stored. Synchronous; the time is passed in.
//!
//! A refusal of the API server is reported at once. An internal failure (a webhook that fails, a store that
//! is full) is often brief, so it is reported only if it persists; until then its tenants' status stays as it
//! is. While the API server can't be reached, no status can be written.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flutecast_contract::name::TenantName;
use tokio::time::Instant;

/// The time after which an internal failure of the API server is reported.
const GRACE: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WriteFailure {
    Refused(String),
    Troubled(String),
    Away(String),
}

impl WriteFailure {
    pub(crate) fn message(&self) -> &str {
        let (Self::Refused(message) | Self::Troubled(message) | Self::Away(message)) = self;
        message
    }

    /// Puts the name of the document before the message.
    pub(crate) fn about(self, name: &str) -> Self {
        let named = format!("{name}: {}", self.message());
        match self {
            Self::Refused(_) => Self::Refused(named),
            Self::Troubled(_) => Self::Troubled(named),
            Self::Away(_) => Self::Away(named),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteState<'a> {
    Stored,
    /// It is not, perhaps for a moment only.
    Failing,
    /// It is not. With the message.
    Failed(&'a str),
}

#[derive(Debug, Default)]
pub(crate) struct WriteFailures(BTreeMap<TenantName, UnstoredTenant>);

#[derive(Debug)]
struct UnstoredTenant {
    since: Instant,
    /// `None` while it may still pass.
    message: Option<String>,
}

impl WriteFailures {
    /// Replaces all failures by those of the last write. Returns the tenants whose [`WriteState`] changed.
    pub(crate) fn update(
        &mut self,
        failures: BTreeMap<TenantName, WriteFailure>,
        now: Instant,
    ) -> BTreeSet<TenantName> {
        let mut before = std::mem::take(&mut self.0);
        let mut changed = BTreeSet::new();
        for (tenant, failure) in failures {
            let before = before.remove(&tenant);
            let since = before.as_ref().map_or(now, |before| before.since);
            let is_new = before.is_none();
            let said = before.and_then(|before| before.message);
            let message = match failure {
                WriteFailure::Refused(message) => Some(message),
                // The message of the cause may vary from attempt to attempt.
                WriteFailure::Troubled(_) | WriteFailure::Away(_) if said.is_some() => said.clone(),
                WriteFailure::Troubled(message) if now.duration_since(since) >= GRACE => Some(message),
                WriteFailure::Troubled(_) | WriteFailure::Away(_) => None,
            };
            if is_new || said != message {
                changed.insert(tenant.clone());
            }
            self.0.insert(tenant, UnstoredTenant { since, message });
        }
        changed.extend(before.into_keys());
        changed
    }

    pub(crate) fn state(&self, tenant: &TenantName) -> WriteState<'_> {
        let Some(failure) = self.0.get(tenant) else { return WriteState::Stored };
        failure.message.as_deref().map_or(WriteState::Failing, WriteState::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant() -> TenantName {
        TenantName::new("demo").unwrap()
    }

    fn failed(failure: WriteFailure) -> BTreeMap<TenantName, WriteFailure> {
        BTreeMap::from([(tenant(), failure)])
    }

    #[test]
    fn a_refusal_is_said_at_once_and_trouble_after_its_grace() {
        let (mut failures, now) = (WriteFailures::default(), Instant::now());
        let trouble = |text: &str| failed(WriteFailure::Troubled(text.to_owned()));
        let concerned = BTreeSet::from([tenant()]);
        assert_eq!(failures.update(trouble("a"), now), concerned);
        assert_eq!(failures.state(&tenant()), WriteState::Failing);
        assert!(failures.update(trouble("b"), now + GRACE / 2).is_empty());
        assert_eq!(failures.update(trouble("c"), now + GRACE), concerned);
        assert_eq!(failures.state(&tenant()), WriteState::Failed("c"));
        assert!(failures.update(trouble("d"), now + GRACE * 2).is_empty(), "it was said");
        assert!(
            failures
                .update(failed(WriteFailure::Away("no connection".to_owned())), now + GRACE * 2)
                .is_empty()
        );
        assert_eq!(failures.update(failed(WriteFailure::Refused("no".to_owned())), now), concerned);
        assert_eq!(failures.state(&tenant()), WriteState::Failed("no"));
        assert_eq!(failures.update(BTreeMap::new(), now), concerned);
        assert_eq!(failures.state(&tenant()), WriteState::Stored);
        assert!(failures.update(BTreeMap::new(), now).is_empty());
    }

    #[test]
    fn nothing_is_said_while_the_api_server_is_away() {
        let (mut failures, now) = (WriteFailures::default(), Instant::now());
        failures.update(failed(WriteFailure::Away("no connection".to_owned())), now);
        failures.update(failed(WriteFailure::Away("no connection".to_owned())), now + GRACE * 10);
        assert_eq!(failures.state(&tenant()), WriteState::Failing);
    }
}
