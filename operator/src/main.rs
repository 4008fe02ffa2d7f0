//! `flutecast-operator`: over a folder, or on an API server.

use std::process::ExitCode;

use clap::Parser;
use flutecast_operator::Config;
use flutecast_process::log::{self, JsonFields};

/// The filter of the log if `RUST_LOG` is not set.
const LOG_FILTER: &str = "info,async_nats=warn";

// Two threads are enough for tasks that mostly wait; each further one has memory of its own.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let config = Config::parse();
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| LOG_FILTER.to_owned());
    if let Err(error) = log::start(config.log_format, JsonFields::Nested, &filter) {
        eprintln!("flutecast-operator: {error:#}");
        return ExitCode::FAILURE;
    }
    match flutecast_operator::run(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // In the log's own format, and as a sentence: a backtrace would hide it.
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
