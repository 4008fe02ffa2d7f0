//! The node as seen from the host: its first process, its network link, its supervisor.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use super::supervisor::{ComponentStatus, Request};
use super::{ClusterDir, command, preflight};
use flutecast_testkit::wait_until;

/// Time limit for a request. Stopping a component may take twice the supervisor's time limit.
const ANSWER: Duration = Duration::from_secs(40);
/// Time limit for a start or an end on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// A process id with the start time, so that a later process with the same id isn't mistaken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    pid: i32,
    /// In clock ticks after the machine's start (`starttime` in proc_pid_stat(5)).
    started: u64,
}

impl Identity {
    fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may contain any character; only numbers follow it. `starttime` is field
        // 22, the state field 3.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        if fields.next() == Some("Z") {
            return None;
        }
        Some(Self { pid, started: fields.nth(18)?.parse().ok()? })
    }

    fn lives(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

/// The running node of a cluster.
#[derive(Debug, Clone)]
pub struct Node {
    dir: ClusterDir,
    first: Identity,
}

impl Node {
    /// Returns the running node of a cluster; `None` if it isn't up.
    #[must_use]
    pub fn running(dir: &ClusterDir) -> Option<Self> {
        let text = fs::read_to_string(dir.path("node.json")).ok()?;
        let first: Identity = serde_json::from_str(&text).ok()?;
        first.lives().then(|| Self { dir: dir.clone(), first })
    }

    /// Starts the supervisor `program` as the first process of new namespaces, detached from this terminal
    /// and process.
    pub(super) async fn start(dir: &ClusterDir, program: &Path) -> anyhow::Result<Self> {
        let log = fs::File::options().create(true).append(true).open(dir.path("logs/supervisor.log"))?;
        let mut command = std::process::Command::new(preflight::find("setsid").context("setsid is missing")?);
        command.args(["unshare", "--fork", "--pid", "--mount", "--net", "--uts", "--ipc"]);
        // A copy of the host's mounts; changes don't propagate back.
        command.args(["--mount-proc", "--propagation", "private"]);
        command.arg("sh").args([
            "-ec",
            "hostname \"$1\" || true; shift; exec \"$@\"",
            "sh",
            &dir.node_name(),
        ]);
        command.arg(program).arg("supervise").arg(dir.folder());
        command.env("PATH", preflight::path_variable()).current_dir("/");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut parent = command.spawn().context("the node can't be started")?;
        let parent_id = parent.id();
        let first = wait_until("the node's first process", SOON, async || {
            if let Ok(Some(status)) = parent.try_wait() {
                return Err(format!("{status}; logs/supervisor.log says why"));
            }
            child_of(parent_id).and_then(Identity::of).ok_or_else(|| "none yet".to_owned())
        })
        .await?;
        let this = Self { dir: dir.clone(), first };
        fs::write(dir.path("node.json"), serde_json::to_string(&first)?)?;
        // The starting process may live on for long, and must not keep a zombie.
        std::thread::spawn(move || parent.wait());
        wait_until("the node's supervisor", SOON, async || {
            if !first.lives() {
                return Err("it ended; logs/supervisor.log says why".to_owned());
            }
            this.ask(Request::Status).map(drop).map_err(|error| format!("{error:#}"))
        })
        .await?;
        Ok(this)
    }

    /// Connects the node's network to the host's.
    pub(super) async fn link(&self) -> anyhow::Result<()> {
        let (dir, pid) = (&self.dir, self.first.pid.to_string());
        let ip = preflight::find("ip").context("ip is missing")?;
        let host =
            async |args: &str| command::run(&ip, &args.split(' ').collect::<Vec<_>>(), SOON).await.map(drop);
        let node = async |args: &str| self.exec("ip", &args.split(' ').collect::<Vec<_>>()).await.map(drop);
        let link = dir.host_link();
        host(&format!("link add {link} type veth peer name host netns {pid}")).await?;
        host(&format!("addr add {}/30 dev {link}", dir.host_address())).await?;
        host(&format!("link set {link} up")).await?;
        node(&format!("addr add {}/30 dev host", dir.node_address())).await?;
        node("link set host up").await?;
        host(&format!("route add {} via {}", dir.network(), dir.node_address())).await
    }

    /// Sends a request to the supervisor and waits until it is done. Returns the status of all components.
    ///
    /// # Errors
    /// If the supervisor can't carry it out.
    pub fn ask(&self, request: Request) -> anyhow::Result<Vec<ComponentStatus>> {
        let mut stream =
            UnixStream::connect(self.dir.supervisor_socket()).context("the node's supervisor")?;
        stream.set_read_timeout(Some(ANSWER))?;
        writeln!(stream, "{}", serde_json::to_string(&request)?)?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).context("the supervisor's answer")?;
        let answer: Result<Vec<ComponentStatus>, String> =
            serde_json::from_str(&line).context("the supervisor's answer")?;
        answer.map_err(|error| anyhow::anyhow!("{request:?}: {error}"))
    }

    /// Like [`Self::ask`], for async callers.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn request(&self, request: Request) -> anyhow::Result<Vec<ComponentStatus>> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || this.ask(request)).await?
    }

    /// Runs a program in the node's namespaces. Returns its output.
    ///
    /// # Errors
    /// If it fails, or takes longer than 30 s.
    pub async fn exec(&self, program: &str, args: &[&str]) -> anyhow::Result<String> {
        let nsenter = preflight::find("nsenter").context("nsenter is missing")?;
        let program =
            preflight::find(program).with_context(|| format!("there is no program {program} on PATH"))?;
        let (pid, program) = (self.first.pid.to_string(), program.display().to_string());
        let mut all = vec!["--target", &pid, "--mount", "--net", "--uts", "--ipc", "--pid", &program];
        all.extend(args);
        command::run(nsenter, &all, SOON).await
    }

    /// Kills the first process, so that the kernel ends all others.
    pub(super) async fn end(&self) -> anyhow::Result<()> {
        if let Some(pid) = Pid::from_raw(self.first.pid).filter(|_| self.first.lives()) {
            rustix::process::kill_process(pid, Signal::KILL).context("the node can't be killed")?;
        }
        wait_until("the node's end", SOON, async || if self.first.lives() { Err("it lives") } else { Ok(()) })
            .await
    }
}

/// Returns the only child of a process. `/proc/<pid>/task/<pid>/children` would be simpler, but not every
/// kernel has it.
fn child_of(parent: u32) -> Option<i32> {
    let wanted = format!("PPid:\t{parent}");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    ids.find(|pid| {
        fs::read_to_string(format!("/proc/{pid}/status"))
            .is_ok_and(|status| status.lines().any(|line| line == wanted))
    })
}

/// Waits until the host's end of the link is gone.
pub(super) async fn link_is_gone(dir: &ClusterDir) -> anyhow::Result<()> {
    let link = Path::new("/sys/class/net").join(dir.host_link());
    wait_until("the end of the node's network", SOON, async || {
        if link.exists() { Err(format!("{} is there", link.display())) } else { Ok(()) }
    })
    .await?;
    Ok(())
}
