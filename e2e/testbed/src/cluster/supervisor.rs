//! The first process of the node's namespaces. It starts the components, restarts them if they fail (as
//! systemd would), and stops, kills or freezes them on request. If it is killed, the kernel ends all other
//! processes.
//!
//! It uses threads, not tokio tasks: as the first process it must reap every orphan, which conflicts with
//! tokio's own reaping of child processes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions};
use serde::{Deserialize, Serialize};

use super::{Component, preflight};

/// The file with the commands of the components, below the cluster's folder.
pub(super) const COMMANDS: &str = "components.json";
/// Pause before a component that ended by itself is restarted. The kubelet and others expect a restart.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// Time limit for a graceful stop, after which a component is killed.
const STOP: Duration = Duration::from_secs(15);
/// Time limit for a client to send its request.
const ASK: Duration = Duration::from_secs(5);
/// Polling interval while there is no child at all, which is only before the first start.
const NO_CHILD: Duration = Duration::from_millis(20);

/// The command of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    /// The environment, beside `PATH` and `HOME`, which this may replace.
    pub(crate) env: BTreeMap<String, String>,
}

impl Start {
    pub(crate) fn new(program: PathBuf, args: Vec<String>) -> Self {
        Self { program, args, env: BTreeMap::new() }
    }
}

/// A request of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", content = "component", rename_all = "kebab-case")]
pub enum Request {
    /// Starts a component; does nothing if it runs.
    Start(Component),
    /// Sends SIGTERM, and SIGKILL after 15 s. The component stays down.
    Stop(Component),
    /// Sends SIGKILL. The component stays down.
    Kill(Component),
    /// Sends SIGSTOP: the component hangs, with its connections open.
    Freeze(Component),
    /// Sends SIGCONT.
    Thaw(Component),
    /// Only returns the status of all components, as every request does.
    Status,
}

/// The status of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentStatus {
    pub component: Component,
    /// Its process id inside the node; `None` if it doesn't run.
    pub pid: Option<i32>,
    /// Whether it should run.
    pub wanted: bool,
    /// How often it ended by itself and was restarted.
    pub restarts: u32,
    pub last_end: Option<String>,
}

#[derive(Debug, Default)]
struct Child {
    pid: Option<Pid>,
    wanted: bool,
    restarts: u32,
    last_end: Option<String>,
}

struct Supervisor {
    folder: PathBuf,
    children: Mutex<BTreeMap<Component, Child>>,
    /// Notified at each end of a process.
    ended: Condvar,
}

/// Prepares the node's file system and serves requests. Returns only with an error.
///
/// # Errors
/// If a mount fails, or the socket can't be created.
pub fn supervise(folder: &Path) -> anyhow::Result<()> {
    ensure!(std::process::id() == 1, "it must be the first process of a PID namespace");
    prepare(folder)?;
    let socket = folder.join("supervisor.sock");
    let listener = UnixListener::bind(&socket).with_context(|| format!("{}", socket.display()))?;
    let supervisor =
        Arc::new(Supervisor { folder: folder.to_owned(), children: Mutex::default(), ended: Condvar::new() });
    let reaper = supervisor.clone();
    thread::spawn(move || reaper.collect_ends());
    for stream in listener.incoming() {
        let (supervisor, stream) = (supervisor.clone(), stream?);
        thread::spawn(move || {
            if let Err(error) = supervisor.answer(&stream) {
                log(&format!("a request failed: {error:#}"));
            }
        });
    }
    bail!("the socket is closed");
}

/// Writes to `logs/supervisor.log`, which is the standard error.
fn log(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn system(program: &str, args: &[&str]) -> anyhow::Result<()> {
    let path = preflight::find(program).with_context(|| format!("{program} is missing"))?;
    let output = Command::new(path).args(args).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", args.join(" "), said.trim());
    Ok(())
}

/// Mounts private folders over all fixed paths outside the cluster's folder to which components write. The
/// mounts vanish with the node.
fn prepare(folder: &Path) -> anyhow::Result<()> {
    // containerd and the kubelet must see the mounts of pods. The host doesn't, because this is a copy of its
    // mounts.
    system("mount", &["-n", "--make-rshared", "/"])?;
    system("mount", &["-n", "-t", "tmpfs", "-o", "mode=755", "flutecast", "/run"])?;
    for (hidden, own) in HIDDEN {
        let own = folder.join(own);
        fs::create_dir_all(&own)?;
        system("mount", &["-n", "--bind", &own.display().to_string(), hidden])?;
    }
    let images = folder.join("containerd");
    fs::create_dir_all(&images)?;
    if !takes_overlays(&images) {
        log(
            "the folder's file system takes no overlays (it is overlayfs or NFS itself): images are kept in \
             memory",
        );
        let images = images.display().to_string();
        system("mount", &["-n", "-t", "tmpfs", "-o", "mode=700", "flutecast", &images])?;
    }
    system("ip", &["link", "set", "lo", "up"])?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("ip_forward")
}

/// Returns whether overlayfs can be mounted in this folder. Leaves nothing behind.
fn takes_overlays(folder: &Path) -> bool {
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| folder.join(name));
    let made = [&lower, &upper, &work, &merged].into_iter().all(|path| fs::create_dir(path).is_ok());
    let options =
        format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    let target = merged.display().to_string();
    let takes = made
        && system("mount", &["-n", "-t", "overlay", "-o", &options, "none", &target]).is_ok()
        && system("umount", &["-n", &target]).is_ok();
    for path in [lower, upper, work, merged] {
        let _ = fs::remove_dir_all(path);
    }
    takes
}

/// Folders of the host that the node replaces by its own, each with its name below the cluster's folder.
pub(super) const HIDDEN: [(&str, &str); 3] = [
    ("/var/lib/cni", "cni-cache"),
    ("/var/lib/kubelet", "kubelet"),
    ("/var/log/containers", "container-links"),
];

impl Supervisor {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Component, Child>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(self: &Arc<Self>, stream: &UnixStream) -> anyhow::Result<()> {
        stream.set_read_timeout(Some(ASK))?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        let result = serde_json::from_str(&line).context(line).and_then(|request| self.act(request));
        let result = result.map(|()| self.statuses()).map_err(|error| format!("{error:#}"));
        let mut stream = stream;
        writeln!(stream, "{}", serde_json::to_string(&result)?)?;
        Ok(())
    }

    fn act(self: &Arc<Self>, request: Request) -> anyhow::Result<()> {
        if request != Request::Status {
            log(&format!("asked to {request:?}"));
        }
        match request {
            Request::Start(component) => {
                let mut children = self.lock();
                children.entry(component).or_default().wanted = true;
                self.start(component, &mut children)
            }
            Request::Stop(component) => {
                self.end(component, Signal::TERM)?;
                if !self.wait_for_end(component, STOP) {
                    self.end(component, Signal::KILL)?;
                    ensure!(self.wait_for_end(component, STOP), "{component} can't be killed");
                }
                Ok(())
            }
            Request::Kill(component) => {
                self.end(component, Signal::KILL)?;
                ensure!(self.wait_for_end(component, STOP), "{component} can't be killed");
                Ok(())
            }
            Request::Freeze(component) => self.signal(component, Signal::STOP),
            Request::Thaw(component) => self.signal(component, Signal::CONT),
            Request::Status => Ok(()),
        }
    }

    /// Starts a component unless it runs. The caller holds the lock until the process is in the table, so
    /// that its end can't be missed.
    fn start(&self, component: Component, children: &mut BTreeMap<Component, Child>) -> anyhow::Result<()> {
        let child = children.entry(component).or_default();
        if child.pid.is_some() {
            return Ok(());
        }
        let text = fs::read_to_string(self.folder.join(COMMANDS)).context(COMMANDS)?;
        let mut commands: BTreeMap<Component, Start> = serde_json::from_str(&text).context(COMMANDS)?;
        let Start { program, args, env } =
            commands.remove(&component).context("it isn't in components.json")?;
        let log = self.folder.join("logs").join(format!("{component}.log"));
        let log = fs::File::options().create(true).append(true).open(log)?;
        let mut command = Command::new(&program);
        command.args(args).current_dir(&self.folder).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log).process_group(0);
        // The cluster must not depend on the caller's environment.
        command.env_clear().env("PATH", preflight::path_variable()).env("HOME", &self.folder).envs(env);
        let process = command.spawn().with_context(|| format!("{}", program.display()))?;
        child.pid = Pid::from_raw(process.id().cast_signed());
        Ok(())
    }

    /// Marks a component as unwanted and sends a signal to it.
    fn end(&self, component: Component, signal: Signal) -> anyhow::Result<()> {
        self.lock().entry(component).or_default().wanted = false;
        self.signal(component, signal)?;
        // A frozen process can't handle SIGTERM otherwise.
        self.signal(component, Signal::CONT)
    }

    /// Sends a signal to a component. The process id is valid, because processes are reaped under the same
    /// lock.
    fn signal(&self, component: Component, signal: Signal) -> anyhow::Result<()> {
        match self.lock().get(&component).and_then(|child| child.pid) {
            Some(pid) => rustix::process::kill_process(pid, signal).with_context(|| format!("{component}")),
            None => Ok(()),
        }
    }

    fn wait_for_end(&self, component: Component, deadline: Duration) -> bool {
        let end = Instant::now() + deadline;
        let mut children = self.lock();
        while children.get(&component).is_some_and(|child| child.pid.is_some()) {
            let Some(left) = end.checked_duration_since(Instant::now()) else { return false };
            children = self.ended.wait_timeout(children, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn statuses(&self) -> Vec<ComponentStatus> {
        let children = self.lock();
        let status = |(component, child): (&Component, &Child)| ComponentStatus {
            component: *component,
            pid: child.pid.map(|pid| pid.as_raw_nonzero().get()),
            wanted: child.wanted,
            restarts: child.restarts,
            last_end: child.last_end.clone(),
        };
        children.iter().map(status).collect()
    }

    /// Reaps components, and every process that lost its parent.
    fn collect_ends(self: &Arc<Self>) {
        loop {
            // Waits for an end without reaping it. Processes are reaped under the lock, so that the table
            // never holds a reaped process and a process that is being started isn't reaped before it is in
            // the table.
            if rustix::process::waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).is_err() {
                thread::sleep(NO_CHILD);
                continue;
            }
            let mut children = self.lock();
            while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
                let Some((component, child)) = children.iter_mut().find(|(_, child)| child.pid == Some(pid))
                else {
                    continue;
                };
                let how = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => format!("exit code {code}"),
                    (None, Some(signal)) => format!("signal {signal}"),
                    (None, None) => "an unknown reason".to_owned(),
                };
                log(&format!("{component} ended: {how}"));
                child.pid = None;
                child.last_end = Some(how);
                if child.wanted {
                    child.restarts += 1;
                    let (this, component) = (self.clone(), *component);
                    thread::spawn(move || this.restart(component));
                }
            }
            drop(children);
            self.ended.notify_all();
        }
    }

    fn restart(&self, component: Component) {
        thread::sleep(RESTART_AFTER);
        let mut children = self.lock();
        // A request may have stopped it in the meantime.
        if children.get(&component).is_some_and(|child| child.wanted)
            && let Err(error) = self.start(component, &mut children)
        {
            log(&format!("{component} can't be started again: {error:#}"));
        }
    }
}
