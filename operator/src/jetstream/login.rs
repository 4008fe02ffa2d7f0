//! Where NATS is, and how the operator shows who it is.

use std::fmt;
use std::path::PathBuf;

use async_nats::{ConnectOptions, ServerAddr};
use percent_encoding::percent_decode_str;

/// Where NATS is, and how the operator shows who it is.
#[derive(Debug, Clone, clap::Args)]
pub struct Login {
    /// The address of NATS; several are separated by commas. A name and a password (or a token) may stand before the `@`.
    #[arg(
        long,
        value_name = "URL",
        env = "FLUTECAST_NATS",
        default_value = "nats://127.0.0.1:4222",
        hide_env_values = true
    )]
    pub nats: Secret,

    /// A credentials file for NATS, as `nsc` writes it.
    #[arg(long, value_name = "FILE", env = "FLUTECAST_NATS_CREDS")]
    pub nats_creds: Option<PathBuf>,

    /// A file with the certificates that NATS's certificate is checked with, in PEM; left out: the system's.
    #[arg(long, value_name = "FILE", env = "FLUTECAST_NATS_CA")]
    pub nats_ca: Option<PathBuf>,
}

/// A text that may hold a password and is never printed.
#[derive(Clone)]
pub struct Secret(String);

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Why a login can't be used. The address is not shown, as it may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// It isn't an address.
    #[error("--nats can't be used: {0}")]
    Address(std::io::Error),
    /// What stands before the `@` isn't percent-encoded.
    #[error("--nats can't be used: the name or the password in it is not percent-encoded")]
    Encoding,
    /// A file can't be read.
    #[error("{option} {} can't be read: {error}", path.display())]
    File {
        /// Which one.
        option: &'static str,
        /// Its path.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
}

impl Login {
    /// The addresses, and options that hold the login.
    ///
    /// # Errors
    /// [`LoginError`], at once: the client would try for ever with a file that isn't there.
    pub async fn options(&self) -> Result<(Vec<ServerAddr>, ConnectOptions), LoginError> {
        let Self { nats: Secret(url), nats_creds, nats_ca } = self;
        let parse = |address: &str| address.trim().parse::<ServerAddr>().map_err(LoginError::Address);
        let addresses = url.split(',').map(parse).collect::<Result<Vec<_>, _>>()?;
        let mut options = with_login(ConnectOptions::new(), &addresses)?;
        if let Some(path) = nats_creds {
            options = options.credentials_file(path).await.map_err(|error| LoginError::File {
                option: "--nats-creds",
                path: path.clone(),
                error,
            })?;
        }
        if let Some(path) = nats_ca {
            std::fs::metadata(path).map_err(|error| LoginError::File {
                option: "--nats-ca",
                path: path.clone(),
                error,
            })?;
            options = options.add_root_certificates(path.clone()).require_tls(true);
        }
        Ok((addresses, options))
    }
}

/// The client ignores what stands before the '@' of an address: a name and a password, or only a token.
fn with_login(options: ConnectOptions, addresses: &[ServerAddr]) -> Result<ConnectOptions, LoginError> {
    let Some(address) = addresses.iter().find(|address| address.username().is_some()) else {
        return Ok(options);
    };
    let decode = |text: &str| {
        let broken = text
            .split('%')
            .skip(1)
            .any(|rest| rest.len() < 2 || !rest.bytes().take(2).all(|digit| digit.is_ascii_hexdigit()));
        let decoded = percent_decode_str(text).decode_utf8().ok().filter(|_| !broken);
        decoded.map(String::from).ok_or(LoginError::Encoding)
    };
    let name = decode(address.username().unwrap_or_default())?;
    match address.password() {
        Some(password) => Ok(options.user_and_password(name, decode(password)?)),
        None => Ok(options.token(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(url: &str) -> Login {
        Login { nats: Secret::from(url), nats_creds: None, nats_ca: None }
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_said_without_the_password() {
        let (addresses, _) =
            login("nats://me%40plant:s3cr3t%2F@a:4222, nats://b:4222").options().await.unwrap();
        assert_eq!(addresses.len(), 2);
        for url in ["nats://me:s3cr3t%zz@localhost", "nats://me:s3cr3t%2@localhost", "nats://me:s3cr3t@:x"] {
            let error = login(url).options().await.unwrap_err().to_string();
            assert!(error.contains("--nats can't be used") && !error.contains("s3cr3t"), "{error}");
        }
        assert!(!format!("{:?}", login("nats://me:s3cr3t@localhost")).contains("s3cr3t"));
    }

    #[tokio::test]
    async fn files_that_are_not_there_are_said_at_once() {
        let missing = Some(PathBuf::from("missing.file"));
        let creds = Login { nats_creds: missing.clone(), ..login("nats://localhost") };
        let ca = Login { nats_ca: missing, ..login("nats://localhost") };
        for (login, option) in [(creds, "--nats-creds"), (ca, "--nats-ca")] {
            let error = login.options().await.unwrap_err().to_string();
            assert!(error.starts_with(&format!("{option} missing.file can't be read")), "{error}");
        }
    }
}
