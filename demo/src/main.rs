//! `make demo`: starts nats-server, the operator in folder mode, the data plane and the simulated line in
//! order, watches them, and ends them in reverse order on Ctrl-C.

mod announce;
mod line_command;
mod options;
mod port_holder;
mod processes;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::options::{Command, Options};
use crate::processes::Processes;

#[tokio::main]
async fn main() -> ExitCode {
    let mut options = Options::parse();
    let (who, result) = match options.command.take() {
        None => ("\nmake demo", run(options).await),
        Some(Command::Line(args)) => ("flutecast-demo line", line_command::run(args).await),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{who}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> anyhow::Result<()> {
    // The signal handlers are installed first, so that Ctrl-C during the start ends the started processes.
    let mut ends = EndSignals::new()?;
    let mut processes = Processes::default();
    let result = tokio::select! {
        result = show(&options, &mut processes) => result,
        name = ends.next() => {
            announce::say(&format!("\n{name}: ending the demo"));
            Ok(())
        }
    };
    let ended = processes.end().await;
    result.and(ended)
}

/// Starts the processes and watches them. Returns after `--check-seconds`, or when a process fails.
async fn show(options: &Options, processes: &mut Processes) -> anyhow::Result<()> {
    processes.start(options).await?;
    let seen = processes.wait_for_live_values().await?;
    announce::running(processes, options)?;
    match options.check_seconds {
        None => processes.watch().await,
        Some(seconds) => {
            let check = processes.check(Duration::from_secs(seconds), seen);
            announce::say(&check.await?);
            Ok(())
        }
    }
}

/// The signals that end the demo: SIGINT (Ctrl-C), SIGTERM, and SIGHUP when the terminal is closed.
struct EndSignals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl EndSignals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "Ctrl-C",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}
