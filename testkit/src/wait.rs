//! Waits for a condition, with a deadline.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// The first pause between two checks; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Calls `check` until it returns `Ok`, for at most `deadline`.
///
/// # Errors
/// Returns an error when the deadline passes, also while a call of `check` is still pending. The error names
/// `what`, the deadline and the last error of `check` with its causes.
pub async fn wait_until<T, E: Display>(
    what: &str,
    deadline: Duration,
    mut check: impl AsyncFnMut() -> Result<T, E>,
) -> anyhow::Result<T> {
    let end = Instant::now() + deadline;
    let mut pause = FIRST_PAUSE;
    let mut seen = None;
    loop {
        match timeout_at(end, check()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(problem)) => seen = Some(format!("{problem:#}")),
            Err(_) => {
                let seen = seen.unwrap_or_else(|| "nothing, the check did not answer".to_owned());
                anyhow::bail!("{what}: not within {deadline:?}; last seen: {seen}");
            }
        }
        if Instant::now() + pause >= end {
            let seen = seen.unwrap_or_default();
            anyhow::bail!("{what}: not within {deadline:?}; last seen: {seen}");
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_value_of_the_first_success_comes_back() {
        let mut looks = 0;
        let value = wait_until("three looks", Duration::from_secs(5), async || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err(format!("{looks} looks")) }
        });
        assert_eq!(value.await.unwrap(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_says_what_was_seen_last() {
        let error =
            wait_until("rain", Duration::from_secs(1), async || Err::<(), _>("sunshine")).await.unwrap_err();
        assert_eq!(error.to_string(), "rain: not within 1s; last seen: sunshine");
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_says_the_causes_too() {
        let check = async || Err::<(), _>(anyhow::anyhow!("a cloud").context("rain"));
        let error = wait_until("sun", Duration::from_secs(1), check).await.unwrap_err();
        assert_eq!(error.to_string(), "sun: not within 1s; last seen: rain: a cloud");
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_is_cut_off() {
        let error = wait_until("an answer", Duration::from_secs(1), async || -> Result<(), String> {
            std::future::pending().await
        });
        assert!(error.await.unwrap_err().to_string().contains("did not answer"));
    }
}
