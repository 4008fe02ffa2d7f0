//! SIGTERM and SIGINT.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The two steps of a shutdown.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Cancelled by the first signal: shut down in order.
    pub asked: CancellationToken,
    /// Cancelled by the second signal: end at once.
    pub urged: CancellationToken,
}

impl Shutdown {
    /// Starts to listen for the signals. Needs a running tokio runtime.
    ///
    /// # Errors
    /// If the signal handlers can't be installed.
    pub fn on_signals() -> anyhow::Result<Self> {
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM can't be waited for")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT can't be waited for")?;
        let shutdown = Self::default();
        let Self { asked, urged } = shutdown.clone();
        // This task needs no supervision: it does nothing that can fail.
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
