//! Runs a nats-server for one test, with JetStream and optionally MQTT.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::{Process, ProcessOptions, free_ports, http_client, nats_server_program, wait_until};

/// The time limit of a start, sized for a busy machine.
const START: Duration = Duration::from_secs(30);
/// The time limit of a graceful stop.
const STOP: Duration = Duration::from_secs(10);
/// Number of attempts with other ports, in case another process takes a port before nats-server binds it.
const ATTEMPTS: usize = 5;

#[derive(Debug, Clone, Default)]
pub struct NatsOptions {
    /// Whether the server also serves MQTT 3.1.1.
    pub mqtt: bool,
    /// The ports; free ones if `None`.
    pub ports: Option<NatsPorts>,
    /// The folder for configuration and streams. If `None`, a temporary folder that is removed with the
    /// server.
    pub folder: Option<PathBuf>,
    /// A file to which the log is appended.
    pub log: Option<PathBuf>,
    /// Whether the process gets its own group, which Ctrl-C does not reach.
    pub own_group: bool,
    /// Additional lines of the configuration file.
    pub extra: String,
    /// Environment variables, which the configuration may refer to (`$PASSWORD`).
    pub env: Vec<(OsString, OsString)>,
}

/// The ports that a nats-server listens on, all on 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NatsPorts {
    pub client: u16,
    pub mqtt: u16,
    pub monitor: u16,
}

/// A running nats-server. Dropping it kills the process.
#[derive(Debug)]
pub struct NatsServer {
    process: Process,
    ports: NatsPorts,
    options: NatsOptions,
    folder: PathBuf,
    // Fields are dropped in order, so the folder is removed after the process was killed.
    _temporary: Option<tempfile::TempDir>,
}

impl NatsServer {
    /// Starts a server with JetStream on free ports, without MQTT.
    ///
    /// # Errors
    /// Returns an error if nats-server can't be found or built, or is not ready within 30 s.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(NatsOptions::default()).await
    }

    /// Starts a server with `options`.
    ///
    /// # Errors
    /// Returns the same errors as [`Self::start`], and an error if a requested port is taken.
    pub async fn start_with(options: NatsOptions) -> anyhow::Result<Self> {
        let program = tokio::task::spawn_blocking(nats_server_program).await??;
        let (folder, temporary) = match &options.folder {
            Some(folder) => (folder.clone(), None),
            None => {
                let temporary = tempfile::Builder::new().prefix("flutecast-nats-").tempdir()?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        std::fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
        let mut attempt = 1;
        loop {
            let ports = match options.ports {
                Some(ports) => ports,
                None => {
                    let [client, mqtt, monitor] = free_ports()?;
                    NatsPorts { client, mqtt, monitor }
                }
            };
            match launch(&program, &folder, ports, &options).await {
                Ok(process) => return Ok(Self { process, ports, options, folder, _temporary: temporary }),
                Err(error) => {
                    let taken = error.to_string().contains("address already in use");
                    if !taken || options.ports.is_some() || attempt == ATTEMPTS {
                        return Err(error);
                    }
                    attempt += 1;
                }
            }
        }
    }

    /// Returns the URL for clients, `nats://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.ports.client)
    }

    /// Returns the port for MQTT clients, which is open only with [`NatsOptions::mqtt`].
    #[must_use]
    pub fn mqtt_port(&self) -> u16 {
        self.ports.mqtt
    }

    /// Returns the base URL of HTTP monitoring, `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn monitor_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.monitor)
    }

    #[must_use]
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Opens a new client connection.
    ///
    /// # Errors
    /// Returns an error if the connection fails.
    pub async fn client(&self) -> anyhow::Result<async_nats::Client> {
        async_nats::connect(self.url()).await.with_context(|| self.url())
    }

    /// Stops the server with SIGTERM. It keeps its ports and store for [`Self::restart`].
    ///
    /// # Errors
    /// Returns an error if the server does not exit within 10 s of SIGTERM; it is then killed.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.process.terminate(STOP).await.map(drop)
    }

    /// Kills the server with SIGKILL, as a crash would.
    ///
    /// # Errors
    /// Returns an error if the process can't be killed.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill().await
    }

    /// Starts the server again on the same ports and store. A server that still runs is stopped first.
    ///
    /// # Errors
    /// Returns the same errors as [`Self::start`].
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        if self.process.exit_status()?.is_none() {
            self.stop().await?;
        }
        let program = tokio::task::spawn_blocking(nats_server_program).await??;
        self.process = launch(&program, &self.folder, self.ports, &self.options).await?;
        Ok(())
    }
}

/// Writes the configuration, starts the process and waits until its health check succeeds.
async fn launch(
    program: &Path,
    folder: &Path,
    ports: NatsPorts,
    options: &NatsOptions,
) -> anyhow::Result<Process> {
    let file = folder.join("nats-server.conf");
    std::fs::write(&file, configuration(folder, ports, options))?;
    let process =
        ProcessOptions { log: options.log.clone(), own_group: options.own_group, env: options.env.clone() };
    let mut process = Process::spawn_with(program, ["-c".as_ref(), file.as_os_str()], process)?;
    process.wait_for_line("\"Server is ready\"", START, |line| line.ends_with("Server is ready")).await?;
    let health = format!("http://127.0.0.1:{}/healthz", ports.monitor);
    wait_until("nats-server's health", START, async || http_client::get_text(&health).await).await?;
    Ok(process)
}

fn configuration(folder: &Path, ports: NatsPorts, options: &NatsOptions) -> String {
    let NatsPorts { client, mqtt, monitor } = ports;
    let mut text = format!(
        "server_name: flutecast-{client}\nlisten: \"127.0.0.1:{client}\"\nhttp: \"127.0.0.1:{monitor}\"\n\
         jetstream {{ store_dir: {store:?} }}\n",
        store = folder.join("store").display().to_string(),
    );
    if options.mqtt {
        let _ = writeln!(text, "mqtt {{ listen: \"127.0.0.1:{mqtt}\" }}");
    }
    text.push_str(&options.extra);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_nats::jetstream;

    async fn stored_messages(server: &NatsServer) -> anyhow::Result<u64> {
        let jetstream = jetstream::new(server.client().await?);
        Ok(jetstream.get_stream("KEEP").await?.cached_info().state.messages)
    }

    #[tokio::test]
    async fn what_was_stored_survives_a_kill_and_a_restart() {
        let mut server = NatsServer::start().await.unwrap();
        let url = server.url();
        let jetstream = jetstream::new(server.client().await.unwrap());
        let config = jetstream::stream::Config {
            name: "KEEP".into(),
            subjects: vec!["keep.>".into()],
            ..Default::default()
        };
        jetstream.create_stream(config).await.unwrap();
        jetstream.publish("keep.a", "1".into()).await.unwrap().await.unwrap();
        server.kill().await.unwrap();
        assert!(server.client().await.is_err(), "a killed server must not answer");
        server.restart().await.unwrap();
        assert_eq!(server.url(), url);
        assert_eq!(stored_messages(&server).await.unwrap(), 1);
        server.restart().await.unwrap();
        assert_eq!(stored_messages(&server).await.unwrap(), 1);
        server.stop().await.unwrap();
    }

    #[tokio::test]
    async fn mqtt_is_there_when_asked_for() {
        let options = NatsOptions { mqtt: true, ..NatsOptions::default() };
        let server = NatsServer::start_with(options).await.unwrap();
        tokio::net::TcpStream::connect(("127.0.0.1", server.mqtt_port())).await.unwrap();
        let monitor = http_client::get_json(&format!("{}/varz", server.monitor_url())).await.unwrap();
        assert_eq!(monitor["mqtt"]["port"], server.mqtt_port());
    }

    #[tokio::test]
    async fn a_taken_port_is_reported() {
        let first = NatsServer::start().await.unwrap();
        let options = NatsOptions { ports: Some(first.ports), ..NatsOptions::default() };
        let error = NatsServer::start_with(options).await.unwrap_err().to_string();
        assert!(error.contains("address already in use"), "{error}");
    }
}
