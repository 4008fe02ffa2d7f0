//! The images that a release runs.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use flutecast_testkit::{GoTool, in_repository};

use crate::cluster::{Cluster, packed};

/// The variable with the folder of images; by default `images` in cargo's target folder.
pub const IMAGES_VARIABLE: &str = "FLUTECAST_IMAGES";
/// The image of the bundled NATS in tests. It holds the nats-server that all tests use.
pub(super) const NATS_IMAGE: &str = "flutecast.io/nats-server:e2e";

/// The programs with an image. Archives are named `<program>-<version>.tar`.
pub const PROGRAMS: [&str; 2] = ["flutecast-operator", "flutecast-dataplane"];

/// The images of one version.
#[derive(Debug, Clone)]
pub struct Images {
    version: String,
    folder: PathBuf,
    archives: Vec<PathBuf>,
}

impl Images {
    /// Returns the images of this workspace's version.
    ///
    /// # Errors
    /// As [`Self::built`].
    pub fn of_workspace() -> anyhow::Result<Self> {
        Self::built(env!("CARGO_PKG_VERSION"))
    }

    /// Returns the images of the next version, made by `make images-next`.
    ///
    /// # Errors
    /// As [`Self::built`].
    pub fn of_next() -> anyhow::Result<Self> {
        let version = version_after(env!("CARGO_PKG_VERSION"))?;
        Self::built(&version).context("the next version: make images-next")
    }

    /// Returns the images of a version, made by `make images` (`FLUTECAST_VERSION=0.2.0 make images`).
    ///
    /// # Errors
    /// If they don't exist; the error names the command that makes them.
    pub fn built(version: &str) -> anyhow::Result<Self> {
        let folder = match std::env::var_os(IMAGES_VARIABLE).filter(|folder| !folder.is_empty()) {
            Some(folder) => PathBuf::from(folder),
            None => {
                let own = std::env::current_exe().context("the path of this program")?;
                // Tests are in target/<profile>/deps, programs in target/<profile>.
                let profile = own.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
                profile.and_then(Path::parent).context("a target folder")?.join("images")
            }
        };
        let archives: Vec<_> =
            PROGRAMS.iter().map(|program| folder.join(format!("{}-{version}.tar", program))).collect();
        for archive in &archives {
            ensure!(
                archive.is_file(),
                "{} is missing; make it with: FLUTECAST_VERSION={version} make images (or say in \
                 {IMAGES_VARIABLE} where it lies)",
                archive.display()
            );
        }
        Ok(Self { version: version.to_owned(), folder, archives })
    }

    /// Returns the folder with the CRDs of the next version, as in `crds/yaml`.
    #[must_use]
    pub fn definitions(&self) -> PathBuf {
        self.folder.join(format!("crds-{}", self.version))
    }

    /// Returns the images' tag.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Loads the programs' images and that of NATS into the cluster.
    ///
    /// # Errors
    /// As [`Cluster::load_image`].
    pub async fn load(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let nats = tokio::task::spawn_blocking(|| packed(GoTool::NATS_SERVER, NATS_IMAGE, &[])).await??;
        for archive in self.archives.iter().map(PathBuf::as_path).chain([nats.as_path()]) {
            load(cluster, archive).await?;
        }
        Ok(())
    }

    /// Loads them into this machine's own cluster, that of NATS by the name that the chart gives it. So a
    /// release needs no values for a test.
    ///
    /// # Errors
    /// As [`Cluster::load_image`].
    pub async fn load_as_shipped(&self, cluster: &Cluster) -> anyhow::Result<()> {
        self.load(cluster).await?;
        let values = std::fs::read_to_string(in_repository("charts/flutecast/values.yaml"))?;
        let values: serde_json::Value = serde_yaml::from_str(&values)?;
        let image = &values["nats"]["bundled"]["image"];
        let (Some(repository), Some(tag)) = (image["repository"].as_str(), image["tag"].as_str()) else {
            anyhow::bail!("the chart's image of NATS is {image}");
        };
        // What containerd makes of docker.io/nats.
        cluster.tag_image(NATS_IMAGE, &format!("docker.io/library/{repository}:{tag}")).await
    }
}

async fn load(cluster: &Cluster, archive: &Path) -> anyhow::Result<()> {
    cluster.load_image(archive).await.with_context(|| format!("loading {}", archive.display()))
}

/// Returns the next minor version.
///
/// # Errors
/// If `version` isn't three numbers.
pub fn version_after(version: &str) -> anyhow::Result<String> {
    let mut numbers = version.split('.').map(str::parse::<u64>);
    match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor)), Some(Ok(_)), None) => Ok(format!("{major}.{}.0", minor + 1)),
        _ => anyhow::bail!("{version:?} isn't three numbers"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_version_increments_the_minor_number() {
        assert_eq!(version_after("0.1.0").unwrap(), "0.2.0");
        assert_eq!(version_after("1.9.7").unwrap(), "1.10.0");
        for odd in ["", "1.2", "1.2.3.4", "1.x.3"] {
            assert!(version_after(odd).is_err(), "{odd}");
        }
    }
}
