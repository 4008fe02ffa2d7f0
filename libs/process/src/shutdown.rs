//! SIGTERM and SIGINT.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What the signals ask for.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Cancelled by the first signal: end in order.
    pub asked: CancellationToken,
    /// Cancelled by the second signal: end at once.
    pub urged: CancellationToken,
}

impl Shutdown {
    /// Listens for the signals from now on. Needs a running runtime.
    ///
    /// # Errors
    /// If the system doesn't let this process handle them.
    pub fn on_signals() -> anyhow::Result<Self> {
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM can't be waited for")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT can't be waited for")?;
        let shutdown = Self::default();
        let Self { asked, urged } = shutdown.clone();
        // Nobody has to watch this task: it does nothing that can fail.
        tokio::spawn(async move {
            for token in [asked, urged] {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                tracing::info!("asked to end");
                token.cancel();
            }
        });
        Ok(shutdown)
    }
}
