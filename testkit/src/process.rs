//! Runs child processes, keeps their output, and kills them when their handle is dropped.

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

/// Number of latest output lines in an error message.
const LINES_IN_ERRORS: usize = 40;

#[derive(Debug, Clone, Default)]
pub struct ProcessOptions {
    /// Environment variables in addition to the inherited ones.
    pub env: Vec<(OsString, OsString)>,
    /// A file to which all output is appended.
    pub log: Option<PathBuf>,
    /// Starts the process in its own process group: Ctrl-C in the terminal does not reach it, and dropping
    /// its handle also kills its children.
    pub own_group: bool,
}

/// A running program whose stdout and stderr are kept line by line. Dropping it kills the process.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: u32,
    own_group: bool,
    child: Child,
    output: Arc<Output>,
    /// The number of lines so far, to wait for new ones.
    lines: watch::Receiver<usize>,
}

/// The stream of an output line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pipe {
    Stdout,
    Stderr,
}

/// A line of output, without its line ending.
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
    /// Starts `program` with `args`, in the context of a tokio runtime.
    ///
    /// # Errors
    /// Returns an error if the program can't be started.
    pub fn spawn(
        program: impl AsRef<Path>,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> anyhow::Result<Self> {
        Self::spawn_with(program, args, ProcessOptions::default())
    }

    /// Starts `program` with `args` and `options`.
    ///
    /// # Errors
    /// Returns an error if the program can't be started or its log file can't be opened.
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

    /// Returns the program's file name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the lines of both streams so far, without the first `skip`.
    #[must_use]
    pub fn lines_from(&self, skip: usize) -> Vec<Line> {
        self.output.lock().iter().skip(skip).cloned().collect()
    }

    /// Returns the text of all lines so far.
    #[must_use]
    pub fn output(&self) -> Vec<String> {
        self.output.lock().iter().map(|line| line.text.clone()).collect()
    }

    /// Returns the number of lines so far.
    #[must_use]
    pub fn line_count(&self) -> usize {
        self.output.lock().len()
    }

    /// Returns the latest lines, for error messages.
    #[must_use]
    pub fn tail(&self) -> String {
        let lines = self.output.lock();
        let last: Vec<_> = lines.iter().rev().take(LINES_IN_ERRORS).map(|line| line.text.as_str()).collect();
        last.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Waits for a line of output that satisfies `wanted`; lines that are already there count too.
    ///
    /// # Errors
    /// Returns an error with the latest output if the deadline passes or the output ends first.
    pub async fn wait_for_line(
        &mut self,
        what: &str,
        deadline: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> anyhow::Result<String> {
        self.wait_for_line_from(0, what, deadline, wanted).await
    }

    /// Does the same as [`Self::wait_for_line`], but skips the first `from` lines. [`Self::line_count`] gives
    /// the number that skips all lines so far.
    ///
    /// # Errors
    /// Returns the same errors as [`Self::wait_for_line`].
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
    /// Returns an error if the signal can't be sent. A process that has already exited is not an error.
    pub fn signal_term(&self) -> anyhow::Result<()> {
        self.signal(rustix::process::Signal::TERM)
    }

    /// Sends SIGSTOP: the process and its connections hang until [`Self::thaw`].
    ///
    /// # Errors
    /// Returns an error if the signal can't be sent.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(rustix::process::Signal::STOP)
    }

    /// Sends SIGCONT, which resumes the process after [`Self::freeze`].
    ///
    /// # Errors
    /// Returns an error if the signal can't be sent.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(rustix::process::Signal::CONT)
    }

    /// Sends SIGTERM and waits for the process to exit.
    ///
    /// # Errors
    /// Returns an error if the process does not exit within `deadline`; it is then killed.
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

    /// Sends SIGKILL and waits for the process to exit.
    ///
    /// # Errors
    /// Returns an error if the process can't be killed.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("{} can't be killed", self.name))
    }

    /// Waits for the process to exit on its own.
    ///
    /// # Errors
    /// Returns an error if the process is still running after `deadline`.
    pub async fn wait(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        match timeout(deadline, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => {
                anyhow::bail!("{} still runs after {deadline:?}; it wrote:\n{}", self.name, self.tail())
            }
        }
    }

    /// Returns the exit status, `None` while it runs.
    ///
    /// # Errors
    /// Returns an error if the status can't be queried.
    pub fn exit_status(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Returns the resident memory in KiB (`VmRSS` in `/proc/<pid>/status`).
    ///
    /// # Errors
    /// Returns an error if the process has exited.
    pub fn rss_kib(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let value = line.and_then(|line| line.trim().strip_suffix("kB")).context("no VmRSS: it has ended")?;
        Ok(value.trim().parse()?)
    }

    fn signal(&self, signal: rustix::process::Signal) -> anyhow::Result<()> {
        // After tokio has reaped the process, the id may be reused; `Child::id` is `None` then.
        let Some(pid) = self.child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()))
        else {
            return Ok(());
        };
        rustix::process::kill_process(pid, signal).with_context(|| format!("signal to {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // tokio kills the process itself. The process id identifies the group only until the process is
        // reaped.
        let id = self.child.id().filter(|_| self.own_group);
        if let Some(group) = id.and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// Reads lines until the pipe is closed. Invalid UTF-8 is replaced by replacement characters.
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
            // A full disk must not stop the reading: the child would block on its full pipe.
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
            // A zombie has exited and only waits for tokio to reap it.
            Ok(text) if !text.contains("State:\tZ") => {
                Err(text.lines().nth(2).unwrap_or_default().to_owned())
            }
            _ => Ok(()),
        })
        .await
        .unwrap();
    }
}
