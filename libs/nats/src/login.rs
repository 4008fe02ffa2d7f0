//! The address of NATS, a program's credentials there, and the check of the server's certificate.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, ServerAddr};
use flutecast_process::backoff::Backoff;
use percent_encoding::percent_decode_str;
use tokio::sync::watch;

use crate::attempts::Attempts;
use crate::password::{PasswordSource, SecretText, with_password_of};

/// The longest that making a connection may take.
const CONNECT: Duration = Duration::from_secs(3);
/// Interval of pings. A server that vanished without closing the connection is noticed after two
/// to three intervals.
const PING: Duration = Duration::from_secs(5);
/// The pauses between attempts to connect, from the second attempt on.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(4));

/// The command-line options that say where NATS is and how a program identifies itself there.
#[derive(Debug, Clone, clap::Args)]
pub struct Login {
    /// The address of NATS; several are separated by commas. A name and a password (or a token) may stand
    /// before the `@`.
    #[arg(
        long,
        value_name = "URL",
        env = "FLUTECAST_NATS",
        default_value = "nats://127.0.0.1:4222",
        hide_env_values = true
    )]
    nats: SecretText,

    /// A file that holds the password of the name before the `@`. It is read at each login, so that another
    /// password needs no restart.
    #[arg(long, value_name = "FILE", env = "FLUTECAST_NATS_PASSWORD_FILE")]
    nats_password_file: Option<PathBuf>,

    /// The password that the program finds out itself; instead of a file.
    #[arg(skip)]
    password: Option<watch::Receiver<Option<SecretText>>>,

    /// A credentials file for NATS, as `nsc` writes it.
    #[arg(long, value_name = "FILE", env = "FLUTECAST_NATS_CREDS")]
    nats_creds: Option<PathBuf>,

    /// A file with the certificates that NATS's certificate is checked with, in PEM; left out: the system's.
    #[arg(long, value_name = "FILE", env = "FLUTECAST_NATS_CA")]
    nats_ca: Option<PathBuf>,
}

/// Why a login can't be used. The text never holds the address, as that may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// `--nats` is no address.
    #[error("--nats can't be used: {0}")]
    Address(std::io::Error),
    /// The part before the `@` is not percent-encoded.
    #[error("--nats can't be used: the name or the password in it is not percent-encoded")]
    Encoding,
    /// A password has another source than the address, which is to hold the name.
    #[error(
        "--nats can't be used: the password comes from elsewhere, so it has to hold a name before the @, \
         and no password: nats://name@host:4222"
    )]
    Name,
    /// A file can't be read.
    #[error("{option} {} can't be read: {error}", path.display())]
    File {
        /// The option that names the file.
        option: &'static str,
        /// The path of the file.
        path: PathBuf,
        /// The error of the system.
        error: std::io::Error,
    },
    /// The client can't be started.
    #[error("the connection to NATS can't be started: {0}")]
    Start(async_nats::ConnectError),
}

impl Login {
    /// Returns a login of only these addresses, in the form of `--nats`.
    #[must_use]
    pub fn at(nats: &str) -> Self {
        let nats = SecretText::from(nats);
        Self { nats, nats_password_file: None, password: None, nats_creds: None, nats_ca: None }
    }

    /// Returns the login with a password that the program finds out itself. Each login uses the newest one;
    /// while there is none, no login is tried.
    #[must_use]
    pub fn with_password(self, password: watch::Receiver<Option<SecretText>>) -> Self {
        Self { password: Some(password), ..self }
    }

    /// Starts a connection that NATS knows as `name`, with the further options that `more` sets. Returns at
    /// once, also if no server is there: the connection is made in the background, and again whenever it is
    /// lost, forever. While that fails the log says why.
    ///
    /// # Errors
    /// [`LoginError`] if the login can't be used. The client would try forever with a file that is missing.
    pub async fn connect(
        &self,
        name: &str,
        more: impl FnOnce(ConnectOptions) -> ConnectOptions,
    ) -> Result<Client, LoginError> {
        let (addresses, options) = self.options().await?;
        let attempts = Attempts::new(name);
        let tries = Arc::clone(&attempts);
        let options = options
            .name(name)
            .retry_on_initial_connect()
            .connection_timeout(CONNECT)
            .ping_interval(PING)
            .reconnect_to_server_callback(move |servers, _| {
                let attempts = Arc::clone(&attempts);
                async move {
                    attempts.before_round(&servers).await;
                    // The client chooses the server.
                    None
                }
            })
            .reconnect_delay_callback(move |attempt| {
                tries.before_attempt(attempt);
                wait_before(attempt)
            });
        more(options).connect(addresses).await.map_err(LoginError::Start)
    }

    /// Returns the addresses and options with the login.
    async fn options(&self) -> Result<(Vec<ServerAddr>, ConnectOptions), LoginError> {
        let Self { nats: SecretText(nats), nats_password_file, password, nats_creds, nats_ca } = self;
        let parse = |address: &str| address.trim().parse::<ServerAddr>().map_err(LoginError::Address);
        let addresses = nats.split(',').map(parse).collect::<Result<Vec<_>, _>>()?;
        let unreadable =
            |option, path: &PathBuf, error| LoginError::File { option, path: path.clone(), error };
        let source = match (password, nats_password_file) {
            (Some(held), _) => Some(PasswordSource::Held(held.clone())),
            (None, Some(path)) => {
                let readable = tokio::fs::metadata(path).await;
                readable.map_err(|error| unreadable("--nats-password-file", path, error))?;
                Some(PasswordSource::File(path.clone()))
            }
            (None, None) => None,
        };
        let mut options = match source {
            Some(source) => with_password_of(source, name_in(&addresses)?),
            None => with_login(ConnectOptions::new(), &addresses)?,
        };
        if let Some(path) = nats_creds {
            let loaded = options.credentials_file(path).await;
            options = loaded.map_err(|error| unreadable("--nats-creds", path, error))?;
        }
        if let Some(path) = nats_ca {
            // The client reads it each time it connects.
            std::fs::metadata(path).map_err(|error| unreadable("--nats-ca", path, error))?;
            options = options.add_root_certificates(path.clone()).require_tls(true);
        }
        Ok((addresses, options))
    }
}

/// Returns the wait before attempt number `attempt`, counted from 0 since the last connection. Only the first
/// attempt of all and the first one after a connection come at once.
fn wait_before(attempt: usize) -> Duration {
    match attempt {
        0 | 1 => Duration::ZERO,
        attempt => PAUSES.wait_after(u32::try_from(attempt - 2).unwrap_or(u32::MAX)),
    }
}

/// Returns the name before the `@` of an address, which must have no password.
fn name_in(addresses: &[ServerAddr]) -> Result<String, LoginError> {
    let named = addresses.iter().find(|address| address.username().is_some()).ok_or(LoginError::Name)?;
    match (named.username(), named.password()) {
        (Some(name), None) => decode(name),
        _ => Err(LoginError::Name),
    }
}

/// Adds the name and password, or the token, before the `@` of an address. The client ignores them.
fn with_login(options: ConnectOptions, addresses: &[ServerAddr]) -> Result<ConnectOptions, LoginError> {
    let Some(address) = addresses.iter().find(|address| address.username().is_some()) else {
        return Ok(options);
    };
    let name = decode(address.username().unwrap_or_default())?;
    match address.password() {
        Some(password) => Ok(options.user_and_password(name, decode(password)?)),
        None => Ok(options.token(name)),
    }
}

/// Undoes percent-encoding. A `%` that is not encoded is an error: the password would be another one than
/// meant.
fn decode(text: &str) -> Result<String, LoginError> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| LoginError::Encoding)?;
    // Each `%` with two digits becomes one byte; a `%` without them stays.
    let is_encoded = decoded.len() + 2 * text.matches('%').count() == text.len();
    is_encoded.then(|| decoded.into_owned()).ok_or(LoginError::Encoding)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        nats: Login,
    }

    fn login(arguments: &[&str]) -> Login {
        Program::try_parse_from(["program"].iter().chain(arguments)).unwrap().nats
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Program::command().debug_assert();
        assert_eq!(login(&["--nats", "nats://a, nats://b"]).nats.0, Login::at("nats://a, nats://b").nats.0);
    }

    #[tokio::test]
    async fn an_unusable_address_is_refused_without_quoting_its_password() {
        let good = "nats://me%40plant:s3cr3t%2F%25@a:4222, nats://b:4222";
        let (addresses, _) = Login::at(good).options().await.unwrap();
        assert_eq!(addresses.len(), 2);
        for url in [
            "nats://me:s3cr3t%zz@localhost",
            "nats://me:s3cr3t%2@localhost",
            "nats://me:s3cr3t%%41@localhost",
            "nats://me:s3cr3t%2%35@localhost",
            "nats://me:s3cr3t%ff@localhost",
            "nats://s3cr3t%@localhost",
            "nats://me:s3cr3t@:x",
        ] {
            let error = Login::at(url).connect("test", |options| options).await.unwrap_err().to_string();
            assert!(error.contains("--nats can't be used") && !error.contains("s3cr3t"), "{url}: {error}");
        }
        let printed = format!("{:?}", login(&["--nats", "nats://me:s3cr3t@localhost"]));
        assert!(!printed.contains("s3cr3t"), "{printed}");
    }

    #[tokio::test]
    async fn a_password_from_elsewhere_needs_a_name_and_no_password_in_the_address() {
        let held = watch::channel(None).1;
        for (url, is_good) in [
            ("nats://a:4222, nats://me@b:4222", true),
            ("nats://a:4222", false),
            ("nats://me:s3cr3t@a:4222", false),
        ] {
            let options = Login::at(url).with_password(held.clone()).options().await;
            match options {
                Ok(_) => assert!(is_good, "{url}"),
                Err(error) => {
                    let error = error.to_string();
                    assert!(!is_good && error.contains("a name before the @"), "{url}: {error}");
                    assert!(!error.contains("s3cr3t"), "{error}");
                }
            }
        }
    }

    #[test]
    fn waits_grow_up_to_the_longest_and_differ() {
        assert_eq!((wait_before(0), wait_before(1)), (Duration::ZERO, Duration::ZERO));
        for (attempt, longest) in
            [(2, 50), (3, 100), (8, 3_200), (9, 4_000), (1_000, 4_000), (usize::MAX, 4_000)]
        {
            let waits: Vec<_> = (0..50).map(|_| wait_before(attempt)).collect();
            let longest = Duration::from_millis(longest);
            assert!(waits.iter().all(|wait| (longest / 2..=longest).contains(wait)), "{attempt}: {waits:?}");
            assert!(waits.iter().any(|wait| *wait != waits[0]), "{attempt}: {waits:?}");
        }
    }

    #[test]
    fn percent_encoding_is_undone() {
        for (encoded, meant) in
            [("", ""), ("me", "me"), ("a+b", "a+b"), ("s3cr3t%2F%25", "s3cr3t/%"), ("%c3%A4", "ä")]
        {
            assert_eq!(decode(encoded).unwrap(), meant);
        }
    }

    #[tokio::test]
    async fn a_missing_file_is_refused_at_once() {
        for option in ["--nats-password-file", "--nats-creds", "--nats-ca"] {
            let login = login(&["--nats", "nats://me@127.0.0.1:1", option, "missing.file"]);
            let error = login.connect("test", |options| options).await.unwrap_err().to_string();
            assert!(error.starts_with(&format!("{option} missing.file can't be read")), "{error}");
        }
    }
}
