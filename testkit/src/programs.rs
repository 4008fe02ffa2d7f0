//! Locates and starts the Flutecast programs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};

use crate::{Process, ProcessOptions, free_port, free_ports, http_client};

/// The time limit of a start, sized for a busy machine.
const START: Duration = Duration::from_secs(30);
/// The interval of readiness checks.
const PAUSE: Duration = Duration::from_millis(20);
/// Number of attempts with other ports, in case another process takes a port before the program binds it.
const ATTEMPTS: usize = 3;

/// Returns the path of a program of this workspace, such as `flutecast-operator`, in the target folder of the
/// running test or program.
///
/// # Errors
/// Returns an error if the program has not been built. `make test` and `make demo` build it first; otherwise
/// run `cargo build --bins`.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("the path of this program")?;
    // A test runs in `target/<profile>/deps`, a program in `target/<profile>`.
    let mut folders = own.ancestors().skip(1).take(2);
    folders
        .find_map(|folder| {
            let path = folder.join(name);
            path.is_file().then_some(path)
        })
        .with_context(|| {
            format!("{name} is not beside {}; build it first: cargo build --bins", own.display())
        })
}

#[derive(Debug, Clone, Default)]
pub struct OperatorOptions {
    pub manifests: PathBuf,
    pub mapping: PathBuf,
    /// The URL of nats-server.
    pub nats: String,
    /// The port for health and metrics; a free one if `None`.
    pub admin_port: Option<u16>,
    /// Additional arguments.
    pub args: Vec<OsString>,
    pub process: ProcessOptions,
}

/// A running operator in folder mode. Dropping it kills the process.
#[derive(Debug)]
pub struct Operator {
    pub process: Process,
    /// Base URL of the admin port, `http://127.0.0.1:<port>`.
    pub admin_url: String,
}

impl Operator {
    /// Starts the program and waits until it is ready.
    ///
    /// # Errors
    /// Returns an error with the latest output if the program exits or is not ready within 30 s.
    pub async fn start(options: OperatorOptions) -> anyhow::Result<Self> {
        let OperatorOptions { manifests, mapping, nats, admin_port, args, process } = options;
        let program = program("flutecast-operator")?;
        let mut attempt = 1;
        loop {
            let admin = format!("127.0.0.1:{}", admin_port.map_or_else(free_port, Ok)?);
            let mut arguments = arguments(&[
                ("--manifests", manifests.as_os_str()),
                ("--mapping-out", mapping.as_os_str()),
                ("--nats", nats.as_ref()),
                ("--admin", admin.as_ref()),
            ]);
            arguments.extend(args.iter().cloned());
            let mut process = Process::spawn_with(&program, arguments, process.clone())?;
            let admin_url = format!("http://{admin}");
            match wait_until_ready(&mut process, &admin_url).await {
                Ok(()) => return Ok(Self { process, admin_url }),
                Err(_) if admin_port.is_none() && attempt < ATTEMPTS && port_was_taken(&process) => {
                    attempt += 1
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the verdicts so far, which the operator writes to stdout.
    #[must_use]
    pub fn verdicts(&self) -> Vec<String> {
        let lines = self.process.lines_from(0).into_iter();
        lines.filter(|line| line.pipe == crate::Pipe::Stdout).map(|line| line.text).collect()
    }
}

#[derive(Debug, Clone, Default)]
pub struct DataplaneOptions {
    pub mapping: PathBuf,
    /// The URL of nats-server.
    pub nats: String,
    /// The ports for clients and for health and metrics; free ones if `None`.
    pub ports: Option<(u16, u16)>,
    /// Additional arguments.
    pub args: Vec<OsString>,
    pub process: ProcessOptions,
}

/// A running data plane. Dropping it kills the process.
#[derive(Debug)]
pub struct Dataplane {
    pub process: Process,
    /// Base URL for clients, `http://127.0.0.1:<port>`.
    pub url: String,
    /// Base URL of the admin port, `http://127.0.0.1:<port>`.
    pub admin_url: String,
    /// The options with the ports in use, so that the data plane can be started again with them.
    pub options: DataplaneOptions,
}

impl Dataplane {
    /// Starts the program and waits until it is ready.
    ///
    /// # Errors
    /// Returns an error with the latest output if the program exits or is not ready within 30 s.
    pub async fn start(mut options: DataplaneOptions) -> anyhow::Result<Self> {
        let program = program("flutecast-dataplane")?;
        let given = options.ports;
        let mut attempt = 1;
        loop {
            let (port, admin_port) = match given {
                Some(ports) => ports,
                None => free_ports::<2>().map(|[port, admin]| (port, admin))?,
            };
            let (listen, admin) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{admin_port}"));
            let mut arguments = arguments(&[
                ("--mapping", options.mapping.as_os_str()),
                ("--nats", options.nats.as_ref()),
                ("--listen", listen.as_ref()),
                ("--admin", admin.as_ref()),
            ]);
            arguments.extend(options.args.iter().cloned());
            let mut surroundings = options.process.clone();
            // Not an argument, which a program of an older version would refuse.
            surroundings.env.insert(0, ("FLUTECAST_INSPECT_ADDRESS".into(), "127.0.0.1:0".into()));
            let mut process = Process::spawn_with(&program, arguments, surroundings)?;
            let admin_url = format!("http://{admin}");
            match wait_until_ready(&mut process, &admin_url).await {
                Ok(()) => {
                    options.ports = Some((port, admin_port));
                    return Ok(Self { process, url: format!("http://{listen}"), admin_url, options });
                }
                Err(_) if given.is_none() && attempt < ATTEMPTS && port_was_taken(&process) => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the base URL of the listener for looks at messages, `http://127.0.0.1:<port>`, as the log
    /// names it; `None` if it isn't listened on.
    #[must_use]
    pub fn inspect_url(&self) -> Option<String> {
        let output = self.process.output();
        let (_, rest) = output.iter().find_map(|line| line.split_once("inspect="))?;
        Some(format!("http://{}", rest.split_whitespace().next()?))
    }

    /// Returns the sum of all metrics whose line starts with `prefix` (name and labels), 0 if there are none.
    ///
    /// # Errors
    /// Returns an error if `/metrics` can't be read.
    pub async fn metric(&self, prefix: &str) -> anyhow::Result<f64> {
        let text = self.metrics().await?;
        let values =
            text.lines().filter(|line| line.starts_with(prefix)).filter_map(|line| line.rsplit_once(' '));
        Ok(values.filter_map(|(_, value)| value.parse::<f64>().ok()).sum())
    }

    /// Returns the body of `/metrics`.
    ///
    /// # Errors
    /// Returns an error if it can't be read.
    pub async fn metrics(&self) -> anyhow::Result<String> {
        http_client::get_text(&format!("{}/metrics", self.admin_url)).await
    }
}

fn arguments(pairs: &[(&str, &std::ffi::OsStr)]) -> Vec<OsString> {
    pairs.iter().flat_map(|(name, value)| [OsString::from(name), (*value).to_owned()]).collect()
}

fn port_was_taken(process: &Process) -> bool {
    process.output().iter().any(|line| line.to_ascii_lowercase().contains("address already in use"))
}

/// Waits until `/readyz` reports success or the process exits.
async fn wait_until_ready(process: &mut Process, admin_url: &str) -> anyhow::Result<()> {
    let url = format!("{admin_url}/readyz");
    let end = Instant::now() + START;
    loop {
        let seen = match http_client::get(&url).await {
            Ok(answer) if answer.status.is_success() => return Ok(()),
            Ok(answer) => format!("{}: {}", answer.status, answer.text()),
            Err(error) => format!("{error:#}"),
        };
        if let Some(status) = process.exit_status()? {
            // The last lines of output may not have been read from the pipe yet.
            sleep(PAUSE).await;
            bail!(
                "{} ended before it was ready, with {status}; it wrote:\n{}",
                process.name(),
                process.tail()
            );
        }
        if Instant::now() >= end {
            bail!("{} is not ready after {START:?}: {seen}; it wrote:\n{}", process.name(), process.tail());
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_missing_program_says_how_to_build_it() {
        let error = super::program("flutecast-nothing").unwrap_err().to_string();
        assert!(error.contains("cargo build --bins"), "{error}");
    }
}
