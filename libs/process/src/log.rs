//! Log lines on standard error.

use std::io::IsTerminal;

use anyhow::Context as _;
use clap::ValueEnum;
use tracing::Metadata;
use tracing_subscriber::filter::{EnvFilter, LevelFilter, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The place of an event's fields in a JSON line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonFields {
    /// In an object of their own, `fields`.
    Nested,
    /// Beside `level` and `target`.
    Flat,
}

/// The finest level that a library may log at, whatever the filter asks for.
///
/// At finer levels these libraries write whole requests (addresses hold tokens), whole messages, or what they
/// failed to decode, which may be a Secret. What kube warns of, our own lines say without quoting it.
const GUARD: [(&str, LevelFilter); 7] = [
    ("h2", LevelFilter::INFO),
    ("hyper", LevelFilter::INFO),
    ("hyper_util", LevelFilter::INFO),
    ("warp", LevelFilter::INFO),
    ("async_nats", LevelFilter::INFO),
    ("kube_client", LevelFilter::OFF),
    ("kube_runtime", LevelFilter::ERROR),
];

/// Starts to write log lines to standard error. `filter` has the syntax of `RUST_LOG`. A guard behind it
/// drops the lines of libraries that may hold a secret, whatever the filter selects.
///
/// # Errors
/// If the filter can't be parsed, or a logger was started before.
pub fn start(format: LogFormat, fields: JsonFields, filter: &str) -> anyhow::Result<()> {
    let filter = parsed(filter)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(fields == JsonFields::Flat).boxed(),
    };
    let registry = tracing_subscriber::registry().with(filter).with(filter_fn(is_harmless));
    Ok(registry.with(lines).try_init()?)
}

fn parsed(filter: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(filter)
        .with_context(|| format!("{filter:?} is no log filter; write for example info,async_nats=warn"))
}

/// Returns whether an event or span may be logged at all.
fn is_harmless(metadata: &Metadata<'_>) -> bool {
    // A target is a module path: `kube_client` guards `kube_client::client::builder` too.
    let target = metadata.target().split("::").next().unwrap_or_default();
    let finest = GUARD.iter().find(|(library, _)| *library == target).map(|(_, finest)| *finest);
    finest.is_none_or(|finest| *metadata.level() <= finest)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    /// Logs at all levels to guarded and other targets, under a filter.
    fn logged(filter: &str) -> String {
        let lines = Lines::default();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(lines.clone());
        let filter = EnvFilter::try_new(filter).unwrap();
        let registry = tracing_subscriber::registry().with(filter).with(filter_fn(is_harmless)).with(layer);
        tracing::subscriber::with_default(registry, || {
            tracing::error!(target: "kube_client::client::builder", "a Secret");
            tracing::debug!(target: "kube_client::client::builder", "a Secret");
            tracing::warn!(target: "kube_runtime::watcher", "a Secret");
            tracing::error!(target: "kube_runtime::watcher", "harmless error");
            tracing::debug!(target: "hyper_util::client::legacy", "an address with a token");
            tracing::trace!(target: "async_nats::connection", "a password");
            tracing::info!(target: "async_nats", "harmless event");
            tracing::trace!(target: "kube_clientele", "another crate");
            tracing::trace!("our own");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn no_filter_opens_what_the_guard_closes() {
        for filter in [
            "trace",
            "trace,kube_client::client::builder=trace,kube_runtime::watcher=trace",
            "trace,async_nats::connection=trace,hyper_util::client::legacy=trace,kube_client=trace",
        ] {
            let lines = logged(filter);
            for secret in ["a Secret", "an address with a token", "a password"] {
                assert!(!lines.contains(secret), "{filter}: {lines}");
            }
            for harmless in ["harmless error", "harmless event", "another crate", "our own"] {
                assert!(lines.contains(harmless), "{filter}: {lines}");
            }
        }
    }

    #[test]
    fn a_filter_that_cannot_be_parsed_is_named() {
        let error = parsed("info,a=loud").unwrap_err().to_string();
        assert!(error.starts_with("\"info,a=loud\" is no log filter; write"), "{error}");
    }

    #[test]
    fn the_filter_still_closes_what_it_closes() {
        assert_eq!(logged("off"), "");
        assert!(!logged("info").contains("our own"));
    }
}
