//! Supervision of the tasks that a program can't do without.

use std::future::Future;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The tasks of a program, each with a name. Dropping this aborts no task: tasks end by their tokens.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<(&'static str, anyhow::Result<()>)>,
}

impl Tasks {
    /// Starts a task and watches it.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.watch(name, tokio::spawn(task));
    }

    /// Starts a task that ends when `cancel` is cancelled, and watches it.
    pub fn spawn_until(
        &mut self,
        name: &'static str,
        cancel: &CancellationToken,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let cancel = cancel.clone();
        self.spawn(name, async move { cancel.run_until_cancelled_owned(task).await.unwrap_or_default() });
    }

    /// Watches a task that is already running.
    pub fn watch(&mut self, name: &'static str, task: JoinHandle<()>) {
        self.set.spawn(async move { (name, task.await.context("it panicked")) });
    }

    /// Waits until a task ends, and returns how it ended as an error. While no shutdown is under way, that is
    /// a fault which ends the program. Never returns without tasks.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn ended(&mut self) -> anyhow::Error {
        match self.set.join_next().await {
            Some(Ok((name, Ok(())))) => anyhow::anyhow!("the task {name:?} has ended by itself"),
            Some(Ok((name, Err(error)))) => error.context(format!("the task {name:?} failed")),
            Some(Err(error)) => anyhow::Error::new(error).context("a task could not be watched"),
            None => std::future::pending().await,
        }
    }

    /// Waits until all tasks have ended.
    ///
    /// # Errors
    /// If some have not ended after `limit`, or one of them panicked.
    pub async fn join(mut self, limit: Duration) -> anyhow::Result<()> {
        let all = async {
            let mut result = Ok(());
            while let Some(ended) = self.set.join_next().await {
                let (name, ended) = ended.context("a task could not be watched")?;
                result = result.and(ended.with_context(|| format!("the task {name:?} failed")));
            }
            result
        };
        timeout(limit, all).await.context("some tasks do not end in time")?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_or_panics_is_named() {
        let mut tasks = Tasks::default();
        tasks.spawn("short", async {});
        tasks.spawn("long", std::future::pending());
        assert_eq!(tasks.ended().await.to_string(), "the task \"short\" has ended by itself");
        tasks.spawn("broken", async { panic!("on purpose") });
        assert_eq!(tasks.ended().await.to_string(), "the task \"broken\" failed");
        let error = tasks.join(Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(error.to_string(), "some tasks do not end in time");
    }

    #[tokio::test]
    async fn all_tasks_are_waited_for() {
        let mut tasks = Tasks::default();
        tasks.spawn("one", async {});
        tasks.spawn("two", async {});
        tasks.join(Duration::from_secs(5)).await.unwrap();
    }
}
