//! A child process whose output is kept, and which ends with its handle.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

/// Number of latest lines that an error message shows.
const LINES_IN_ERRORS: usize = 40;

/// How a process is started.
#[derive(Debug, Clone, Default)]
pub struct ProcessOptions {
    /// Environment variables on top of the own ones.
    pub env: Vec<(OsString, OsString)>,
    /// A file that gets every line of output as well.
    pub log: Option<PathBuf>,
    /// Puts the process in a group of its own: Ctrl-C in the terminal doesn't reach it, and when its handle
    /// is dropped, its own children are killed with it.
    pub own_group: bool,
}

/// A running program. Its stdout and stderr are read line by line and kept. It is killed when this is
/// dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: u32,
    own_group: bool,
    child: Child,
    output: Arc<Output>,
    /// Changes with each line.
    lines: watch::Receiver<usize>,
}

/// Where a line was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pipe {
    /// To standard output.
    Stdout,
    /// To standard error.
    Stderr,
}

/// One line of output, without its line feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub pipe: Pipe,
    pub text: String,
}

#[derive(Debug, Default)]
struct Output {
    lines: Mutex<Vec<Line>>,
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    /// Starts `program` with `args`.
    ///
    /// # Errors
    /// If it can't be started. Needs a tokio runtime.
    pub fn spawn(
        program: impl AsRef<Path>,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> anyhow::Result<Self> {
        Self::spawn_with(program, args, ProcessOptions::default())
    }

    /// Starts `program` with `args` and options.
    ///
    /// # Errors
    /// If it can't be started, or its log file can't be written.
    pub fn spawn_with(
        program: impl AsRef<Path>,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        options: ProcessOptions,
    ) -> anyhow::Result<Self> {
        let ProcessOptions { env, log, own_group } = options;
        let program = program.as_ref();
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = match log {
            Some(path) => {
                let file = std::fs::File::options().create(true).append(true).open(&path);
                Some(Arc::new(Mutex::new(file.with_context(|| format!("{}", path.display()))?)))
            }
            None => None,
        };
        let mut command = Command::new(program);
        command.args(args).envs(env).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        if own_group {
            command.process_group(0);
        }
        let mut child = command.spawn().with_context(|| format!("{} can't be started", program.display()))?;
        let pid = child.id().context("the process has no id")?;
        let output = Arc::new(Output::default());
        let (changed, lines) = watch::channel(0);
        let changed = Arc::new(changed);
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(keep_lines(Pipe::Stdout, stdout, output.clone(), changed.clone(), log.clone()));
        }
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(keep_lines(Pipe::Stderr, stderr, output.clone(), changed, log));
        }
        Ok(Self { name, pid, own_group, child, output, lines })
    }

    /// The program's file name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The lines that it has written so far, stdout and stderr together, without the first `skip`.
    #[must_use]
    pub fn lines_from(&self, skip: usize) -> Vec<Line> {
        self.output.lock().iter().skip(skip).cloned().collect()
    }

    /// All lines that it has written so far.
    #[must_use]
    pub fn output(&self) -> Vec<String> {
        self.output.lock().iter().map(|line| line.text.clone()).collect()
    }

    /// Number of lines: it has written so far.
    #[must_use]
    pub fn line_count(&self) -> usize {
        self.output.lock().len()
    }

    /// The latest lines, for error messages.
    #[must_use]
    pub fn tail(&self) -> String {
        let lines = self.output.lock();
        let last: Vec<_> = lines.iter().rev().take(LINES_IN_ERRORS).map(|line| line.text.as_str()).collect();
        last.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Waits for a line of output for which `wanted` is true, also among those that are there already.
    ///
    /// # Errors
    /// If the time is over, or the output ends before. Says what was written last.
    pub async fn wait_for_line(
        &mut self,
        what: &str,
        deadline: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> anyhow::Result<String> {
        self.wait_for_line_from(0, what, deadline, wanted).await
    }

    /// The same, for lines from number `from` on ([`Self::line_count`] is the next one).
    ///
    /// # Errors
    /// As [`Self::wait_for_line`].
    pub async fn wait_for_line_from(
        &mut self,
        mut from: usize,
        what: &str,
        deadline: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> anyhow::Result<String> {
        let end = Instant::now() + deadline;
        loop {
            self.lines.borrow_and_update();
            {
                let lines = self.output.lock();
                if let Some(line) = lines.iter().skip(from).find(|line| wanted(&line.text)) {
                    return Ok(line.text.clone());
                }
                from = from.max(lines.len());
            }
            match timeout_at(end, self.lines.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => anyhow::bail!("{} ended without {what}; it wrote:\n{}", self.name, self.tail()),
                Err(_) => {
                    anyhow::bail!("{}: no {what} within {deadline:?}; it wrote:\n{}", self.name, self.tail())
                }
            }
        }
    }

    /// Sends SIGTERM and returns at once.
    ///
    /// # Errors
    /// If the signal can't be sent. A process that has ended already is no error.
    pub fn signal_term(&self) -> anyhow::Result<()> {
        self.signal(rustix::process::Signal::TERM)
    }

    /// Sends SIGSTOP: it hangs, and its connections with it, until [`Self::thaw`].
    ///
    /// # Errors
    /// If the signal can't be sent.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(rustix::process::Signal::STOP)
    }

    /// Sends SIGCONT: one that was frozen goes on.
    ///
    /// # Errors
    /// If the signal can't be sent.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(rustix::process::Signal::CONT)
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// If it hasn't ended within `deadline`; then it is killed.
    pub async fn terminate(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        self.signal_term()?;
        match timeout(deadline, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => {
                let tail = self.tail();
                self.kill().await?;
                anyhow::bail!("{} did not end within {deadline:?} of SIGTERM; it wrote:\n{tail}", self.name)
            }
        }
    }

    /// Sends SIGKILL and waits for the end.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("{} can't be killed", self.name))
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// If it hasn't within `deadline`.
    pub async fn wait(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        match timeout(deadline, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => {
                anyhow::bail!("{} still runs after {deadline:?}; it wrote:\n{}", self.name, self.tail())
            }
        }
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// If the operating system refuses to say.
    pub fn exit_status(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Its resident memory in KiB (`VmRSS` in `/proc/<pid>/status`).
    ///
    /// # Errors
    /// If it has ended.
    pub fn rss_kib(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let value = line.and_then(|line| line.trim().strip_suffix("kB")).context("no VmRSS: it has ended")?;
        Ok(value.trim().parse()?)
    }

    fn signal(&self, signal: rustix::process::Signal) -> anyhow::Result<()> {
        // Once tokio has seen the end, the id may belong to somebody else; `Child::id` is none then.
        let Some(pid) = self.child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()))
        else {
            return Ok(());
        };
        rustix::process::kill_process(pid, signal).with_context(|| format!("signal to {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process itself is killed by tokio. Its id names its group only as long as it hasn't been
        // collected.
        let id = self.child.id().filter(|_| self.own_group);
        if let Some(group) = id.and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// Reads lines until the pipe ends. A line that isn't UTF-8 is kept with replacement characters.
async fn keep_lines(
    pipe: Pipe,
    reader: impl AsyncRead + Unpin,
    output: Arc<Output>,
    changed: Arc<watch::Sender<usize>>,
    log: Option<Arc<Mutex<std::fs::File>>>,
) {
    let mut reader = BufReader::new(reader);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match reader.read_until(b'\n', &mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if let Some(log) = &log {
            // A full disk must not stop the reading: the child would block on its pipe.
            let _ = log.lock().unwrap_or_else(PoisonError::into_inner).write_all(&bytes);
        }
        let text = String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']).to_owned();
        let count = {
            let mut lines = output.lock();
            lines.push(Line { pipe, text });
            lines.len()
        };
        changed.send_replace(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn lines_of_both_pipes_are_kept_and_waited_for() {
        let mut shell = Process::spawn("/bin/sh", ["-c", "echo one; echo two >&2; exec sleep 60"]).unwrap();
        assert_eq!(shell.wait_for_line("two", SOON, |line| line == "two").await.unwrap(), "two");
        assert_eq!(shell.wait_for_line("one", SOON, |line| line == "one").await.unwrap(), "one");
        assert!(shell.rss_kib().unwrap() > 0);
        assert_eq!(shell.exit_status().unwrap(), None);
    }

    #[tokio::test]
    async fn an_early_end_is_reported_with_the_output() {
        let mut shell = Process::spawn("/bin/sh", ["-c", "echo broken; exit 3"]).unwrap();
        let error = shell.wait_for_line("readiness", SOON, |line| line == "ready").await.unwrap_err();
        assert!(error.to_string().contains("broken"), "{error}");
        assert_eq!(shell.wait(SOON).await.unwrap().code(), Some(3));
        assert!(shell.terminate(SOON).await.is_ok(), "a process that has ended is no error");
    }

    #[tokio::test]
    async fn terminate_lets_the_process_clean_up() {
        let script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
        let mut shell = Process::spawn("/bin/sh", ["-c", script]).unwrap();
        shell.wait_for_line("ready", SOON, |line| line == "ready").await.unwrap();
        assert!(shell.terminate(SOON).await.unwrap().success());
        shell.wait_for_line("bye", SOON, |line| line == "bye").await.unwrap();
    }

    #[tokio::test]
    async fn a_process_that_ignores_sigterm_is_killed() {
        let script = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
        let mut shell = Process::spawn("/bin/sh", ["-c", script]).unwrap();
        shell.wait_for_line("ready", SOON, |line| line == "ready").await.unwrap();
        assert!(shell.terminate(Duration::from_millis(200)).await.is_err());
        assert!(shell.exit_status().unwrap().is_some());
    }

    #[tokio::test]
    async fn dropping_the_handle_of_a_group_ends_its_children() {
        let options = ProcessOptions { own_group: true, ..ProcessOptions::default() };
        let script = "sleep 60 & echo $!; wait";
        let mut shell = Process::spawn_with("/bin/sh", ["-c", script], options).unwrap();
        let line = shell.wait_for_line("the child's id", SOON, |line| !line.is_empty()).await.unwrap();
        let child = PathBuf::from(format!("/proc/{line}/status"));
        assert!(child.exists());
        drop(shell);
        crate::wait_until("the end of the child", SOON, async || match std::fs::read_to_string(&child) {
            Ok(text) if !text.contains("State:\tZ") => {
                Err(text.lines().nth(2).unwrap_or_default().to_owned())
            }
            _ => Ok(()),
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn dropping_the_handle_ends_the_process() {
        let shell = Process::spawn("/bin/sleep", ["60"]).unwrap();
        let status = format!("/proc/{}/status", shell.pid());
        drop(shell);
        crate::wait_until("the end of sleep", SOON, async || match std::fs::read_to_string(&status) {
            // A zombie waits only for tokio to collect it.
            Ok(text) if !text.contains("State:\tZ") => {
                Err(text.lines().nth(2).unwrap_or_default().to_owned())
            }
            _ => Ok(()),
        })
        .await
        .unwrap();
    }
}
