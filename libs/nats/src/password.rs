//! Passwords, and those that are looked up at each login.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::{Auth, AuthError, ConnectOptions};
use tokio::sync::watch;
use tokio::time::timeout;

/// How long a login waits for a password that isn't known yet: a program that has just started finds it out
/// in the same second. Less than the time in which a connection has to be made.
const PATIENCE: Duration = Duration::from_secs(2);

/// A text that is or may hold a password. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(pub(crate) String);

impl From<&str> for SecretText {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Where the newest password is found.
#[derive(Clone)]
pub(crate) enum PasswordSource {
    /// Kubernetes replaces the file of a mounted Secret that changes.
    File(PathBuf),
    /// `None` until the program knows it.
    Held(watch::Receiver<Option<SecretText>>),
}

impl PasswordSource {
    /// Returns the password as it is now. An error says why there is none; the client logs it.
    async fn newest(&self) -> Result<String, AuthError> {
        match self {
            Self::File(path) => match tokio::fs::read_to_string(path).await {
                // Editors and `echo` end a file with a line feed, which no password holds.
                Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
                Err(error) => Err(AuthError::new(format!(
                    "the password file {} can't be read: {error}",
                    path.display()
                ))),
            },
            Self::Held(held) => match timeout(PATIENCE, known(held.clone())).await {
                Ok(Some(SecretText(password))) => Ok(password),
                Ok(None) | Err(_) => Err(AuthError::new("NATS's password isn't known yet")),
            },
        }
    }
}

/// Waits for a password. `None` if there won't be one.
async fn known(mut held: watch::Receiver<Option<SecretText>>) -> Option<SecretText> {
    loop {
        let password = held.borrow_and_update().clone();
        if password.is_some() {
            return password;
        }
        held.changed().await.ok()?;
    }
}

/// Returns options that log in as `name` with the password that `source` has at that time.
pub(crate) fn with_password_of(source: PasswordSource, name: String) -> ConnectOptions {
    ConnectOptions::with_auth_callback(move |_| {
        let (source, name) = (source.clone(), name.clone());
        async move {
            let mut auth = Auth::new();
            auth.password = Some(source.newest().await?);
            auth.username = Some(name);
            Ok(auth)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_login_finds_the_newest_password() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let file = PasswordSource::File(path.clone());
        for (text, expected) in [("one", "one"), ("two\r\n", "two"), (" three \n", " three ")] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(file.newest().await.unwrap(), expected);
        }
        std::fs::remove_file(&path).unwrap();
        let error = file.newest().await.unwrap_err().to_string();
        assert!(error.contains("can't be read") && !error.contains("three"), "{error}");

        let (sender, held) = watch::channel(None);
        let held = PasswordSource::Held(held);
        assert!(held.newest().await.unwrap_err().to_string().contains("isn't known yet"));
        // A login that comes a moment too early waits.
        let (early, ()) = tokio::join!(held.newest(), async {
            tokio::time::sleep(PATIENCE / 2).await;
            sender.send_replace(Some(SecretText::from("one")));
        });
        assert_eq!(early.unwrap(), "one");
        assert!(!format!("{:?}", sender.borrow()).contains("one"));
    }
}
