//! Git repositories that Argo CD and Flux read over HTTP.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use flutecast_testkit::{copy_folder, http_client, in_repository, wait_until};
use tokio::process::Command;

use crate::cluster::{AddOn, Cluster, Component, Start, find, output};

/// The port of the git server, on all of the node's addresses.
const PORT: u16 = 3000;
/// What a user's repository holds.
const FOLDERS: [&str; 5] =
    ["charts/flutecast", "charts/flutecast-crds", "manifests/argocd", "manifests/demo", "manifests/flux"];
/// The address in the manifests that users replace by theirs.
const ADDRESS: &str = "https://git.plant.example/flutecast.git";
/// Time limit for one command of git, or for the server's start, on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// A repository with one branch, `main`, and a working copy of it.
#[derive(Debug)]
pub struct GitRepository {
    url: String,
    copy: tempfile::TempDir,
}

impl GitRepository {
    /// Makes an empty repository of this name, in the place of an earlier one, and serves it until the
    /// cluster ends.
    ///
    /// # Errors
    /// On an existing cluster, or if git fails.
    pub async fn serve(cluster: &Cluster, name: &str) -> anyhow::Result<Self> {
        let dir = cluster.dir()?;
        let (folder, address) = (dir.path("git"), format!("{}:{PORT}", dir.node_address()));
        let program = tokio::task::spawn_blocking(|| Component::GitServer.program()).await??;
        fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
        let start = Start::new(program, vec![address.clone(), folder.display().to_string()]);
        AddOn::start(cluster, &[(Component::GitServer, start)]).await?.keep();
        let health = format!("http://{address}/healthz");
        wait_until("the git server", SOON, async || http_client::get_text(&health).await).await?;

        let bare = folder.join(format!("{name}.git"));
        if bare.exists() {
            fs::remove_dir_all(&bare).with_context(|| format!("{}", bare.display()))?;
        }
        let copy = tempfile::Builder::new().prefix("flutecast-git-").tempdir()?;
        let bare = bare.display().to_string();
        git(copy.path(), &["init", "--quiet", "--bare", "--initial-branch=main", &bare]).await?;
        git(copy.path(), &["init", "--quiet", "--initial-branch=main"]).await?;
        git(copy.path(), &["remote", "add", "origin", &bare]).await?;
        Ok(Self { url: format!("http://{address}/{name}.git"), copy })
    }

    /// Serves the charts and manifests of this checkout, as users copy them: the address of their repository
    /// stands in the place of ours. Nothing is committed yet.
    ///
    /// # Errors
    /// As [`Self::serve`], or if a file can't be copied.
    pub async fn of_checkout(cluster: &Cluster, name: &str) -> anyhow::Result<Self> {
        let this = Self::serve(cluster, name).await?;
        for folder in FOLDERS {
            this.copy_in(&in_repository(folder), folder)?;
        }
        let mut folders = vec![this.path("manifests")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let text = fs::read_to_string(&path)?;
                    fs::write(&path, text.replace(ADDRESS, &this.url))?;
                }
            }
        }
        Ok(this)
    }

    /// Returns the address, which is the same for the node, its pods and this machine.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns a path in the working copy.
    #[must_use]
    pub fn path(&self, below: &str) -> PathBuf {
        self.copy.path().join(below)
    }

    /// Reads a file of the working copy.
    ///
    /// # Errors
    /// If it isn't there.
    pub fn read(&self, path: &str) -> anyhow::Result<String> {
        fs::read_to_string(self.path(path)).with_context(|| path.to_owned())
    }

    /// Writes a file into the working copy, with its folders.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write(&self, path: &str, text: &str) -> anyhow::Result<()> {
        let file = self.path(path);
        fs::create_dir_all(file.parent().context("a file has a folder")?)?;
        fs::write(&file, text).with_context(|| path.to_owned())
    }

    /// Removes a file or a folder from the working copy.
    ///
    /// # Errors
    /// If it isn't there.
    pub fn remove(&self, path: &str) -> anyhow::Result<()> {
        let file = self.path(path);
        let removed = if file.is_dir() { fs::remove_dir_all(&file) } else { fs::remove_file(&file) };
        removed.with_context(|| path.to_owned())
    }

    /// Copies a folder or a file of this machine into the working copy.
    ///
    /// # Errors
    /// If it can't be copied.
    pub fn copy_in(&self, from: &Path, to: &str) -> anyhow::Result<()> {
        let target = self.path(to);
        if from.is_dir() {
            return copy_folder(from, &target);
        }
        fs::create_dir_all(target.parent().context("a file has a folder")?)?;
        fs::copy(from, target).map(drop).with_context(|| format!("{}", from.display()))
    }

    /// Commits all that changed in the working copy, and publishes it. Returns the revision.
    ///
    /// # Errors
    /// If nothing has changed, or git fails.
    pub async fn commit(&self, message: &str) -> anyhow::Result<String> {
        git(self.copy.path(), &["add", "--all"]).await?;
        git(self.copy.path(), &["commit", "--quiet", "--message", message]).await?;
        self.publish().await
    }

    /// Publishes a commit that takes another one back. Returns its revision.
    ///
    /// # Errors
    /// If git fails.
    pub async fn revert(&self, revision: &str) -> anyhow::Result<String> {
        git(self.copy.path(), &["revert", "--no-edit", revision]).await?;
        self.publish().await
    }

    async fn publish(&self) -> anyhow::Result<String> {
        git(self.copy.path(), &["push", "--quiet", "origin", "main"]).await?;
        Ok(git(self.copy.path(), &["rev-parse", "HEAD"]).await?.trim().to_owned())
    }
}

/// Runs git with none of this machine's settings. Returns its output.
async fn git(folder: &Path, args: &[&str]) -> anyhow::Result<String> {
    let mut git = Command::new(find("git").context("git is missing (xtask/install-tools system)")?);
    git.args(args).current_dir(folder);
    git.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    for role in ["AUTHOR", "COMMITTER"] {
        git.env(format!("GIT_{role}_NAME"), "Flutecast")
            .env(format!("GIT_{role}_EMAIL"), "tests@flutecast.io");
    }
    let what = || format!("git {}", args.join(" "));
    let output = output(git, "", SOON).await.with_context(what)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}: {}{said}", what(), output.status, complained.trim());
    Ok(said)
}
