//! Starts the processes of the demo in order, watches them, and ends them in reverse order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use flutecast_testkit::{
    Dataplane, DataplaneOptions, Line, NatsOptions, NatsPorts, NatsServer, Operator, OperatorOptions, Pipe,
    Process, ProcessOptions, SseClient, free_ports, is_free, program,
};
use tokio::time::{Instant, sleep};

use crate::announce::say;
use crate::options::Options;
use crate::port_holder::port_holder;

/// The time limit for the first message of every device.
const FIRST_VALUES: Duration = Duration::from_secs(30);
/// The time limit for the graceful exit of a process.
const END: Duration = Duration::from_secs(15);
/// The interval at which the processes and their output are checked.
const LOOK: Duration = Duration::from_millis(100);
const DEVICES: [&str; 5] = ["CORR-01", "SLIT-01", "FLEX-01", "DIE-01", "STACK-01"];

/// Number of data events by device.
pub(crate) type Counts = BTreeMap<String, u64>;

/// The processes started so far.
#[derive(Default)]
pub(crate) struct Processes {
    pub(crate) nats: Option<NatsServer>,
    pub(crate) operator: Option<Operator>,
    pub(crate) dataplane: Option<Dataplane>,
    pub(crate) line: Option<Process>,
    pub(crate) logs: PathBuf,
    events: Option<SseClient>,
    /// Number of lines already checked, by process.
    looked_at: BTreeMap<&'static str, usize>,
}

impl Processes {
    /// Starts the processes, each after those that it depends on are ready.
    pub(crate) async fn start(&mut self, options: &Options) -> anyhow::Result<()> {
        let manifests = std::path::absolute(&options.manifests)?;
        ensure!(manifests.is_dir(), "{} is not a folder with manifests", manifests.display());
        let (nats_ports, http, admin, operator) = ports(options)?;
        let state = fresh_state(options.state.as_deref())?;
        self.logs = state.join("logs");
        let process = |name: &str| ProcessOptions {
            log: Some(self.logs.join(format!("{name}.log"))),
            own_group: true,
            // The output goes to log files and prefixed lines, where colour codes would be in the way.
            env: vec![("NO_COLOR".into(), "1".into())],
        };
        let (line, dataplane_process, operator_process) =
            (process("line"), process("dataplane"), process("operator"));

        let server = start_nats(nats_ports, &state, &self.logs).await?;
        let (nats, mqtt) = (server.url(), format!("127.0.0.1:{}", server.mqtt_port()));
        self.nats = Some(server);

        say(&format!("starting the operator on {}", options.manifests.display()));
        let mapping = state.join("mapping");
        self.operator = Some(
            Operator::start(OperatorOptions {
                manifests,
                mapping: mapping.clone(),
                nats: nats.clone(),
                admin_port: Some(operator),
                process: operator_process,
                ..OperatorOptions::default()
            })
            .await?,
        );
        self.show_lines();

        say("starting the data plane");
        self.dataplane = Some(
            Dataplane::start(DataplaneOptions {
                mapping,
                nats: nats.clone(),
                ports: Some((http, admin)),
                process: dataplane_process,
                // A demo has few clients, and this many fit within any usual limit of open files.
                args: vec!["--max-clients=500".into()],
            })
            .await?,
        );

        say("starting the line");
        let seed = options.seed.to_string();
        let arguments = ["line", "--nats", &nats, "--mqtt", &mqtt, "--seed", &seed];
        self.line = Some(Process::spawn_with(program("flutecast-demo")?, arguments, line)?);
        Ok(())
    }

    /// Opens an event stream for all devices and waits for the first value of each.
    pub(crate) async fn wait_for_live_values(&mut self) -> anyhow::Result<Counts> {
        let dataplane = self.dataplane.as_ref().context("the data plane was not started")?;
        let url = format!("{}/v1/demo/events?device=*", dataplane.url);
        self.events = Some(SseClient::connect(&url, &[]).await?);
        let mut counts = Counts::new();
        let end = Instant::now() + FIRST_VALUES;
        while !missing(&counts).is_empty() {
            self.look()?;
            self.count_until(Instant::now() + LOOK, &mut counts).await?;
            ensure!(
                Instant::now() < end,
                "no values of {} within {FIRST_VALUES:?}; see {}",
                missing(&counts).join(", "),
                self.logs.display()
            );
        }
        Ok(counts)
    }

    /// Watches the processes, and returns an error when one ends.
    pub(crate) async fn watch(&mut self) -> anyhow::Result<()> {
        // The stream is not read any more, so it is closed.
        self.events = None;
        loop {
            self.look()?;
            sleep(LOOK).await;
        }
    }

    /// Watches the processes for `time`, then returns the number of events by device as text.
    ///
    /// # Errors
    /// Returns an error if a device sent no values or a process ended.
    pub(crate) async fn check(&mut self, time: Duration, mut before: Counts) -> anyhow::Result<String> {
        before.clear();
        let mut counts = before;
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.look()?;
            self.count_until((Instant::now() + LOOK).min(end), &mut counts).await?;
        }
        let missing = missing(&counts);
        ensure!(missing.is_empty(), "no values of {} within {time:?}", missing.join(", "));
        let total: u64 = counts.values().sum();
        Ok(format!("check: {total} events in {time:?}: {counts:?}"))
    }

    /// Ends everything in order: publishers first, the broker last.
    pub(crate) async fn end(&mut self) -> anyhow::Result<()> {
        self.events = None;
        let mut problems = Vec::new();
        let mut note = |name: &str, result: anyhow::Result<std::process::ExitStatus>| match result {
            Ok(status) if status.success() => {}
            Ok(status) => problems.push(format!("{name} ended with {status}")),
            Err(error) => problems.push(format!("{error:#}")),
        };
        if let Some(line) = &mut self.line {
            note("the line", line.terminate(END).await);
        }
        if let Some(dataplane) = &mut self.dataplane {
            note("the data plane", dataplane.process.terminate(END).await);
        }
        if let Some(operator) = &mut self.operator {
            note("the operator", operator.process.terminate(END).await);
        }
        if let Some(nats) = &mut self.nats {
            // Some versions of nats-server exit with status 1 after SIGTERM, so the status is ignored.
            if let Err(error) = nats.stop().await {
                problems.push(format!("{error:#}"));
            }
        }
        self.show_lines();
        if problems.is_empty() { Ok(()) } else { bail!("{}", problems.join("\n")) }
    }

    /// Prints new output of the processes, and returns an error if one has ended.
    fn look(&mut self) -> anyhow::Result<()> {
        self.show_lines();
        let logs = self.logs.clone();
        for (name, process) in self.processes() {
            if let Some(status) = process.exit_status()? {
                bail!(
                    "{name} has ended with {status}; its latest output (all of it is in {}):\n{}",
                    logs.display(),
                    process.tail()
                );
            }
        }
        Ok(())
    }

    /// Prints the operator's verdicts, and warnings and errors of all processes.
    fn show_lines(&mut self) {
        let mut looked_at = std::mem::take(&mut self.looked_at);
        for (name, process) in self.processes() {
            let count = looked_at.entry(name).or_default();
            for line in process.lines_from(*count) {
                *count += 1;
                if is_worth_showing(name, &line) {
                    say(&format!("{name:>11} | {}", line.text));
                }
            }
        }
        self.looked_at = looked_at;
    }

    fn processes(&mut self) -> impl Iterator<Item = (&'static str, &mut Process)> {
        let nats = self.nats.as_mut().map(|nats| ("nats-server", nats.process()));
        let operator = self.operator.as_mut().map(|operator| ("operator", &mut operator.process));
        let dataplane = self.dataplane.as_mut().map(|dataplane| ("data plane", &mut dataplane.process));
        let line = self.line.as_mut().map(|line| ("line", line));
        [nats, operator, dataplane, line].into_iter().flatten()
    }

    /// Counts data events by device until `end`.
    async fn count_until(&mut self, end: Instant, counts: &mut Counts) -> anyhow::Result<()> {
        let events = self.events.as_mut().context("no event stream")?;
        while let Ok(event) = tokio::time::timeout_at(end, events.next(END + FIRST_VALUES)).await {
            let event = event?;
            if event.is_data()
                && let Some(device) = event.json()?["device"].as_str()
            {
                *counts.entry(device.to_owned()).or_default() += 1;
            }
        }
        Ok(())
    }
}

fn missing(counts: &Counts) -> Vec<&'static str> {
    DEVICES.into_iter().filter(|device| !counts.contains_key(*device)).collect()
}

fn is_worth_showing(name: &str, line: &Line) -> bool {
    let Line { pipe, text } = line;
    let verdict = name == "operator" && *pipe == Pipe::Stdout;
    verdict
        || [" WARN ", " ERROR ", "[WRN]", "[ERR]", "[FTL]", "panicked at"]
            .iter()
            .any(|word| text.contains(word))
}

/// Returns the ports of nats-server, the data plane (clients and admin) and the operator. A port in use is an
/// error that names the process holding it.
fn ports(options: &Options) -> anyhow::Result<(NatsPorts, u16, u16, u16)> {
    if options.free_ports {
        let [client, mqtt, monitor, http, admin, operator] = free_ports()?;
        return Ok((NatsPorts { client, mqtt, monitor }, http, admin, operator));
    }
    let Options { nats_port, mqtt_port, monitor_port, http_port, admin_port, operator_port, .. } = *options;
    let uses = [
        (nats_port, "NATS", "NATS"),
        (mqtt_port, "MQTT", "MQTT"),
        (monitor_port, "nats-server's monitor", "MONITOR"),
        (http_port, "the dashboard", "HTTP"),
        (admin_port, "the data plane's health and metrics", "ADMIN"),
        (operator_port, "the operator's health and metrics", "OPERATOR"),
    ];
    let taken: Vec<_> = uses.into_iter().filter(|(port, ..)| !is_free(*port)).collect();
    let words: Vec<_> = taken
        .iter()
        .map(|(port, purpose, variable)| {
            let holder = port_holder(*port).unwrap_or_else(|| "another process".to_owned());
            format!(
                "port {port} for {purpose} is taken by {holder}; choose another with \
             FLUTECAST_DEMO_{variable}_PORT=…"
            )
        })
        .collect();
    ensure!(words.is_empty(), "{}", words.join("\n"));
    Ok((
        NatsPorts { client: nats_port, mqtt: mqtt_port, monitor: monitor_port },
        http_port,
        admin_port,
        operator_port,
    ))
}

async fn start_nats(ports: NatsPorts, state: &Path, logs: &Path) -> anyhow::Result<NatsServer> {
    say("starting nats-server with JetStream and MQTT");
    NatsServer::start_with(NatsOptions {
        mqtt: true,
        ports: Some(ports),
        folder: Some(state.join("nats")),
        log: Some(logs.join("nats-server.log")),
        own_group: true,
        extra: String::new(),
        env: Vec::new(),
    })
    .await
}

/// Returns the state folder with empty subfolders. Other content of the folder is kept.
fn fresh_state(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let state = match given {
        Some(folder) => std::path::absolute(folder)?,
        None => {
            let own = std::env::current_exe().context("the path of this program")?;
            own.parent().context("the folder of this program")?.join("demo")
        }
    };
    for folder in ["logs", "mapping", "nats"] {
        let folder = state.join(folder);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("{} can't be emptied", folder.display()));
            }
            _ => std::fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?,
        }
    }
    Ok(state)
}
