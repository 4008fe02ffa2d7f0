//! Log lines on standard error.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;

use crate::config::LogFormat;

/// Libraries that write whole requests, and so addresses with tokens, or each message at their finest levels. They are never that loud,
/// whatever the filter says. What kube warns of is told by our own lines, and its warnings may quote a Secret.
const QUIET: [&str; 7] = [
    "h2=info",
    "hyper=info",
    "hyper_util=info",
    "warp=info",
    "async_nats=info",
    "kube_client=off",
    "kube_runtime=error",
];

/// Starts to log. `filter` is in the syntax of `RUST_LOG`.
///
/// # Errors
/// If the filter can't be understood.
pub fn start(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let mut filter = EnvFilter::try_new(filter)?;
    for directive in QUIET {
        filter = filter.add_directive(directive.parse::<Directive>()?);
    }
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|error| anyhow::anyhow!("logging could not be started: {error}"))
}
