//! Runs helm, isolated from this machine's settings.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::tools;

/// Time limit for one command; `--wait` has its own.
const DEADLINE: Duration = Duration::from_secs(180);

/// Helm for one cluster, or without a cluster (`lint`, `template`).
#[derive(Debug)]
pub struct Helm {
    program: PathBuf,
    kubeconfig: Option<PathBuf>,
    folder: tempfile::TempDir,
}

/// The output of a command of helm.
#[derive(Debug, Clone)]
pub struct HelmOutput {
    /// Standard output.
    pub stdout: String,
    /// Standard error, which includes the API server's warnings.
    pub stderr: String,
}

impl Helm {
    /// Builds helm if this machine doesn't have it yet, which can take minutes. Blocks.
    ///
    /// # Errors
    /// If it can't be built.
    pub fn new(kubeconfig: Option<&Path>) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("flutecast-helm-").tempdir()?;
        Ok(Self { program: tools::HELM.path()?, kubeconfig: kubeconfig.map(Path::to_owned), folder })
    }

    /// Runs helm. Returns its output. Blocks.
    ///
    /// # Errors
    /// If helm fails or takes more than three minutes.
    pub fn run(&self, args: &[&str]) -> anyhow::Result<HelmOutput> {
        let mut command = Command::new("timeout");
        command.arg(DEADLINE.as_secs().to_string()).arg(&self.program).args(args);
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(name, self.folder.path().join(name));
        }
        // Without a kubeconfig helm would use the user's.
        let none = self.folder.path().join("no-kubeconfig");
        command.env("KUBECONFIG", self.kubeconfig.as_deref().unwrap_or(&none));
        let output = command.output().context("helm")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        ensure!(output.status.code() != Some(124), "helm {} takes more than {DEADLINE:?}", args.join(" "));
        if !output.status.success() {
            bail!("helm {}: {}\n{}", args.join(" "), stderr.trim(), stdout.trim());
        }
        Ok(HelmOutput { stdout, stderr })
    }
}
