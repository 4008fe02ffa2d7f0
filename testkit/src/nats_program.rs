//! Finds the nats-server program that tests run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::GoTool;

/// The oldest nats-server that Flutecast supports.
const OLDEST_NATS: (u32, u32) = (2, 12);

/// Returns the path of a nats-server that is new enough: the one that `FLUTECAST_NATS_SERVER` names, or the
/// one on `PATH`, or else the pinned one, which is built with `go build` into the cache folder if it is not
/// there yet. Blocks while it builds.
///
/// # Errors
/// Returns an error if `FLUTECAST_NATS_SERVER` names an unsuitable program, or if no program is found and
/// none can be built.
pub fn nats_server_program() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("FLUTECAST_NATS_SERVER").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        let version =
            version_of(&path).with_context(|| format!("FLUTECAST_NATS_SERVER={}", path.display()))?;
        ensure!(
            version >= OLDEST_NATS,
            "FLUTECAST_NATS_SERVER={} is {}.{}; 2.12 or newer is needed",
            path.display(),
            version.0,
            version.1
        );
        return Ok(path);
    }
    let path = Path::new("nats-server");
    if version_of(path).is_ok_and(|version| version >= OLDEST_NATS) {
        return Ok(path.to_owned());
    }
    GoTool::NATS_SERVER.path().context(
        "no nats-server 2.12 or newer is on PATH; install one, or set FLUTECAST_NATS_SERVER to its path, or \
         let Go build one",
    )
}

/// Returns the major and minor version of a nats-server program.
fn version_of(program: &Path) -> anyhow::Result<(u32, u32)> {
    let output = Command::new(program).arg("--version").output().context("it can't be started")?;
    let text = String::from_utf8_lossy(&output.stdout);
    match parse_version(&text) {
        Some(version) => Ok(version),
        None => bail!("its --version is {text:?}"),
    }
}

/// Parses a line such as `nats-server: v2.15.2`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim().rsplit_once('v')?.1.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse_version("nats-server: v2.15.2\n"), Some((2, 15)));
        assert_eq!(parse_version("nothing"), None);
    }

    #[test]
    fn a_nats_server_is_found_or_built() {
        let program = nats_server_program().unwrap();
        assert!(version_of(&program).unwrap() >= OLDEST_NATS);
    }
}
